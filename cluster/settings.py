"""One `Settings` out of `configs/*.toml` and `RAYFACE_…` variables over it."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from actors.device import Device
from actors.settings import DetectorSettings
from cluster.errors import ConfigurationError

_PREFIX = "RAYFACE_"
#: Variables of ours that are no settings: where the settings file and the model cache are; what tests need.
_OTHER_VARIABLES = frozenset(
    {"RAYFACE_CONFIG", "RAYFACE_CACHE_DIR", "RAYFACE_NODE_DEVICES", "RAYFACE_NODE_NOTES"}
)
#: Of tests, and of the backend: none of this room's business.
_NOT_OURS = ("RAYFACE_TEST_", "RAYFACE_APP_")


class ClusterSettings(BaseModel):
    """Where the cluster is and how the detector is placed on it.

    Attributes:
        address: of a running Ray ("auto", or "HOST:PORT"); None starts an embedded one for this program.
        namespace: Ray's, in which the detector has its name.
        detector_name: what `ray.get_actor` finds it by.
        dashboard: of an embedded Ray; a running one has its own.
        object_store_bytes: of an embedded Ray.
        max_task_retries: Ray's; nobody else repeats a call. Detection is pure, so repeating is harmless. A
            photo that ends the detector's process is found out after two; one more for other accidents.
        start_timeout_s: how long a detector may take to become ready (the first start fetches the model).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = None
    namespace: str = "rayface"
    detector_name: str = "FaceDetector"
    dashboard: bool = False
    object_store_bytes: Annotated[int, Field(ge=80_000_000)] = 256_000_000
    max_task_retries: Annotated[int, Field(ge=-1)] = 3
    start_timeout_s: Annotated[float, Field(gt=0)] = 300.0


class ClientSettings(BaseModel):
    """How calls are made.

    Attributes:
        deadline_s: of a call by `detect`, for all its images together.
        stream_deadline_s: of each call that `stream` makes.
        images_per_call: images that travel together.
        max_calls_in_flight: calls under way at once; bounds the memory of a stream.
        max_images_in_flight: images that are prepared or asked for at once, by all calls of a client
            together; others wait their turn, interactive before bulk. Bounds the memory of a client.
        max_waiting_calls: calls that wait for their turn; more are answered `busy`.
        max_pause_s: how long a stream of bulk images waits for a detector when there is none to be asked,
            before its images fail with the reason.
        num_prepare_threads: for shrinking photos; None takes one a core.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    deadline_s: Annotated[float, Field(gt=0)] = 30.0
    stream_deadline_s: Annotated[float, Field(gt=0)] = 120.0
    images_per_call: Annotated[int, Field(ge=1, le=256)] = 8
    max_calls_in_flight: Annotated[int, Field(ge=1, le=64)] = 4
    max_images_in_flight: Annotated[int, Field(ge=1)] = 128
    max_waiting_calls: Annotated[int, Field(ge=1)] = 1000
    max_pause_s: Annotated[float, Field(ge=0)] = 3600.0
    num_prepare_threads: Annotated[int, Field(ge=1)] | None = None


class CircuitSettings(BaseModel):
    """When calls to a detector are stopped for a while, and how it is tried again.

    Attributes:
        window_s: calls older than this are forgotten.
        min_calls: in the window; fewer are not judged by rate.
        max_failure_rate: share of failed calls at which it opens, 0..1.
        max_slow_rate: share of slow calls at which it opens, 0..1.
        slow_run_s: a call is slow whose run on the device took longer.
        grace_s: how long a detector may be silent (a restart, a broken link) before it opens.
        open_s: how long it is open the first time; doubled each time, up to `max_open_s`.
        max_open_s: the longest.
        jitter: share of that time that chance may take away, so that clients do not probe together.
        num_probes: golden photos in a row that close it.
        probe_timeout_s: a probe without an answer for so long has failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: Annotated[float, Field(gt=0)] = 30.0
    min_calls: Annotated[int, Field(ge=1, le=1000)] = 10
    max_failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_slow_rate: Annotated[float, Field(gt=0, le=1)] = 0.9
    slow_run_s: Annotated[float, Field(gt=0)] = 5.0
    grace_s: Annotated[float, Field(gt=0)] = 30.0
    open_s: Annotated[float, Field(gt=0)] = 2.0
    max_open_s: Annotated[float, Field(gt=0)] = 60.0
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    num_probes: Annotated[int, Field(ge=1)] = 2
    probe_timeout_s: Annotated[float, Field(gt=0)] = 15.0


class FallbackSettings(BaseModel):
    """When the caller's own CPU stands in for a detector. Whoever wants it says so; the default is never.

    Attributes:
        policy: "never"; "when_open": while the circuit of every detector is open; "after_s": then, and for
            a call that a detector did not answer within `after_s` or failed.
        after_s: for that policy.
        bulk: whether bulk images are given to the CPU too; else they wait for a detector.
        max_threads: of the CPU that it takes at once.
        max_images_per_minute: the budget; beyond it, images fail with the detector's reason.
        max_queued_images: waiting for the CPU; more fail with the detector's reason.
        idle_s: the model is closed when it was not asked for so long.
        opener: in place of ONNX Runtime on the CPU, as `detector.opener` is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Literal["never", "when_open", "after_s"] = "never"
    after_s: Annotated[float, Field(gt=0)] = 5.0
    bulk: bool = False
    max_threads: Annotated[int, Field(ge=1)] = 1
    max_images_per_minute: Annotated[int, Field(ge=1)] = 120
    max_queued_images: Annotated[int, Field(ge=1)] = 32
    idle_s: Annotated[float, Field(gt=0)] = 60.0
    opener: str | None = None


class TracingSettings(BaseModel):
    """Where OpenTelemetry spans of calls go; nowhere by default, and then they cost nothing.

    A detector is placed with those of whoever asks first; `RAYFACE_TRACING__…` variables of its own machine
    come before them. Sampling, headers and the like are OpenTelemetry's own `OTEL_…` variables.

    Attributes:
        endpoint: of a collector that takes OTLP over HTTP, for example "http://127.0.0.1:4318"; empty: none.
            Needs `rayface[tracing]` on each machine.
        folder: in which each process writes its spans, one a line, as JSON; for a look without a collector.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str = ""
    folder: Path | None = None

    @field_validator("endpoint")
    @classmethod
    def _an_address(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if endpoint and not (parts.scheme in ("http", "https") and parts.hostname):
            raise ValueError("must be the address of a collector, for example http://127.0.0.1:4318")
        if parts.username or parts.password:
            raise ValueError("must hold no password; OTEL_EXPORTER_OTLP_HEADERS is the place for one")
        return endpoint

    @field_validator("folder", mode="before")
    @classmethod
    def _whole_path(cls, folder: str | Path | None) -> Path | None:
        # The processes of Ray have working directories of their own.
        return Path(folder).expanduser().absolute() if folder else None

    @property
    def is_on(self) -> bool:
        """Whether spans go anywhere."""
        return bool(self.endpoint) or self.folder is not None


class NodeSettings(BaseModel):
    """What a head and a machine that joins have in common.

    Attributes:
        address: of this machine, or its name, as every other machine of the cluster reaches it.
        first_port: of eight in a row: node manager, object manager, runtime environment, agent, metrics,
            logs, two more for the node manager; of nine on a head: Ray Client instead of these, and metrics
            of autoscaler and dashboard.
        first_worker_port: of those that processes of this machine are reached at, drivers too.
        num_worker_ports: how many of them; must not overlap another machine's where both share an address.
        num_cpus: for Ray's bookkeeping; detectors ask for none.
        object_store_bytes: of this machine.
        temp_dir: for Ray's session, logs and sockets; a short path.
        log_folder: for the supervisor's own log; None takes the user's log folder.
        drain_s: how long detectors may take to finish what they have accepted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = None
    first_port: Annotated[int, Field(gt=0, lt=65000)] = 7380
    first_worker_port: Annotated[int, Field(gt=0, lt=65000)] = 11002
    num_worker_ports: Annotated[int, Field(ge=5, le=500)] = 20
    num_cpus: Annotated[int, Field(ge=0)] = 1
    object_store_bytes: Annotated[int, Field(ge=80_000_000)] = 256_000_000
    temp_dir: Path | None = None
    log_folder: Path | None = None
    drain_s: Annotated[float, Field(ge=0)] = 10.0


class HeadSettings(NodeSettings):
    """The head.

    Attributes:
        gcs_port: where everybody finds the cluster.
        dashboard_host: loopback: who may see the dashboard may run code.
        dashboard_port: of Ray's own pages.
        storage: a folder in which the head remembers its detectors across a restart (Ray's RocksDB
            storage: alpha, Linux only, one writer); None forgets.
    """

    first_port: Annotated[int, Field(gt=0, lt=65000)] = 6380
    first_worker_port: Annotated[int, Field(gt=0, lt=65000)] = 10002
    gcs_port: Annotated[int, Field(gt=0, lt=65536)] = 6379
    dashboard_host: str = "127.0.0.1"
    dashboard_port: Annotated[int, Field(gt=0, lt=65536)] = 8265
    storage: Path | None = None


class JoinSettings(NodeSettings):
    """A machine that lends its devices.

    Attributes:
        devices: what it lends, one detector each: "directml:0" is the first adapter; "cpu" for a trial.
        node_lock: of the machine; another name lets a second node live on one machine, for tests.
    """

    devices: tuple[str, ...] = ("directml:0",)
    node_lock: str = "node"

    @field_validator("devices")
    @classmethod
    def _known_and_different(cls, devices: tuple[str, ...]) -> tuple[str, ...]:
        parsed = [str(Device.parse(device)) for device in devices]
        if not parsed or len(set(parsed)) != len(parsed) or len({d.split(":")[0] for d in parsed}) > 1:
            raise ValueError("must be at least one device, each once, and all of one kind")
        return tuple(parsed)


class Settings(BaseSettings):
    """Everything that can be set; `RAYFACE_CLUSTER__ADDRESS=auto` sets `cluster.address`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__", toml_file=None
    )

    detector: DetectorSettings = DetectorSettings()
    cluster: ClusterSettings = ClusterSettings()
    client: ClientSettings = ClientSettings()
    circuit: CircuitSettings = CircuitSettings()
    fallback: FallbackSettings = FallbackSettings()
    tracing: TracingSettings = TracingSettings()
    head: HeadSettings = HeadSettings()
    join: JoinSettings = JoinSettings()


def load_settings(config: str | Path | None = None, **overrides: dict[str, Any]) -> Settings:
    """Read the settings: overrides beat variables, variables beat the file, the file beats the defaults.

    Args:
        config: a TOML file; None takes `RAYFACE_CONFIG`, or else our own `local.toml`.
        overrides: by section, for example `detector={"model": "yunet"}`.

    Raises:
        ConfigurationError: a file or a value cannot be used; says which, and what is expected.
    """
    path = Path(config or os.environ.get("RAYFACE_CONFIG") or own_config("local.toml")).expanduser()
    if not path.is_file():
        raise ConfigurationError(f"There is no settings file at {path}. Check --config or RAYFACE_CONFIG.")
    _refuse_unknown_variables()

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)

    try:
        return FromFile(**overrides)  # type: ignore[arg-type]  # sections arrive as mappings and are validated
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']} (got {each['input']!r})"
            for each in error.errors()
        )
        raise ConfigurationError(
            f"The settings cannot be used: {problems}. They come from {path} and {_PREFIX}… variables."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from None


def own_config(name: str) -> Path:
    """In an installed wheel beside this module, in a checkout at its top level."""
    shipped = Path(__file__).parent / "configs" / name
    return shipped if shipped.exists() else Path(__file__).parent.parent / "configs" / name


def _refuse_unknown_variables() -> None:
    """A misspelt variable would otherwise be ignored without a word."""
    known = [f"{_PREFIX}{section.upper()}" for section in Settings.model_fields]
    for variable in sorted(os.environ):
        if not variable.startswith(_PREFIX) or variable.startswith(_NOT_OURS):
            continue
        if variable in _OTHER_VARIABLES or variable.split("__")[0] in known:
            continue
        near = difflib.get_close_matches(variable.split("__")[0], [*known, *_OTHER_VARIABLES], n=1)
        hint = f"did you mean {near[0]}…?" if near else f"sections are {', '.join(Settings.model_fields)}."
        raise ConfigurationError(f"The variable {variable} is no setting of rayface; {hint}")
