"""`Settings`: everything that can be set, from a file `configs/*.toml` and from variables `RAYFACE_…`.

Each `Attributes:` entry below is one sentence or more; docs/settings.md is made of them.
"""

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
#: Variables of ours that are no settings: they name the settings file and the folder of the models, and
#: `rayface join` sets two for the detectors of its machine.
_OTHER_VARIABLES = frozenset(
    {"RAYFACE_CONFIG", "RAYFACE_CACHE_DIR", "RAYFACE_NODE_DEVICES", "RAYFACE_NODE_NOTES"}
)
#: Variables of the tests and of the backend in `app/`.
_NOT_OURS = ("RAYFACE_TEST_", "RAYFACE_APP_")


class ClusterSettings(BaseModel):
    """Which cluster is used, and how a detector is placed on it.

    Attributes:
        address: The address of a running Ray, "HOST:PORT" or "auto". None starts an embedded Ray for this
            program alone.
        namespace: Ray's namespace, in which the detectors have their names.
        detector_name: The name of the first detector, as `ray.get_actor` takes it; further ones get a number.
        dashboard: Whether an embedded Ray has its dashboard, and the other processes that Ray's own commands
            ask; it starts sooner without them. A running Ray decides that for itself.
        object_store_bytes: Size of the object store of an embedded Ray, in bytes.
        max_task_retries: How often Ray repeats a call whose detector's process ended or cannot be reached;
            nobody else repeats a call. Detection changes nothing, so a repeated call does no harm. A photo
            that ends the process is recognised after two attempts; a broken network uses up one every few
            seconds. -1 repeats until the call's deadline.
        start_timeout_s: How long a detector may take to become ready, in seconds. The first start fetches
            the model.
        other_settings: What a client does with a detector that was placed with another model or another
            `detector.input_size`: "refuse" it, and say how to go on, or "use" it as it is. Of several
            detectors, those that fit are asked. Thresholds travel with each call, and are never refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = None
    namespace: str = "rayface"
    detector_name: str = "FaceDetector"
    dashboard: bool = False
    object_store_bytes: Annotated[int, Field(ge=80_000_000)] = 256_000_000
    max_task_retries: Annotated[int, Field(ge=-1)] = 10
    start_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    other_settings: Literal["refuse", "use"] = "refuse"


class ClientSettings(BaseModel):
    """How a client makes its calls.

    Attributes:
        deadline_s: Deadline of one call by `detect`, for all its images together, in seconds.
        stream_deadline_s: Deadline of each call that `stream` makes, in seconds.
        images_per_call: How many images travel together.
        max_calls_in_flight: How many calls of one stream are under way at once; bounds its memory.
        max_images_in_flight: How many images all calls of a client together prepare or ask for at once; more
            images wait, interactive ones before bulk ones. Bounds the memory of a client.
        max_waiting_calls: How many calls of a client may wait for their turn; further ones fail as `busy`.
        max_pause_s: How long a stream of bulk images waits while no detector can be asked, in seconds; then
            its images fail with the reason.
        num_prepare_threads: How many threads make photos small. None takes one for each core.
        prepare: Where the photos of a scan are made small: by the "client" alone, or by the "cluster": while
            all threads of the client are busy, on the CPUs that other machines offer (`join.num_cpus`).
        max_shared_bytes: The most memory for pixels that a client shares with its driver process, and with
            detectors of its own machine. Further pixels are copied from process to process. 0 shares none.
        wire: How photos travel to a detector: as "pixels", or as "jpeg" of high quality, which has about a
            fifth of the bytes and costs both machines a few milliseconds of processor time a photo. "auto"
            takes JPEGs where the measured link is slow, and neither the client's cores nor those of the
            detector's machine are what photos wait for.
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
    prepare: Literal["client", "cluster"] = "client"
    max_shared_bytes: Annotated[int, Field(ge=0)] = 160_000_000
    wire: Literal["pixels", "jpeg", "auto"] = "auto"


class CircuitSettings(BaseModel):
    """When a client stops calling a detector for a while, and how it tries the detector again.

    Attributes:
        window_s: Calls older than this many seconds are forgotten.
        min_calls: With fewer calls than this in the window, no rate is judged.
        max_failure_rate: The circuit opens when this share of the calls has failed, 0..1.
        max_slow_rate: The circuit opens when this share of the calls was slow, 0..1.
        slow_run_s: A call is slow if its run on the device took longer than this, in seconds.
        grace_s: How long a detector may be silent (a restart, a broken link) before the circuit opens, in
            seconds.
        open_s: How long the circuit stays open the first time, in seconds; twice as long each further time.
        max_open_s: The longest time that it stays open, in seconds.
        jitter: Share of that time that is taken away at random, so that clients do not probe together.
        num_probes: How many golden photos in a row must be found to close the circuit.
        probe_timeout_s: A probe has failed if it is not answered within this time, in seconds.
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
    """When the CPU of the client's own machine answers in place of a detector. By default it never does.

    Attributes:
        policy: "never"; "when_open": while the circuits of all detectors are open; "after_s": then too, and
            for a call that a detector failed or did not answer within `after_s`.
        after_s: How long the policy "after_s" waits for a detector, in seconds.
        bulk: Whether the CPU also answers for bulk images; if not, they wait for a detector.
        max_threads: How many threads of the CPU it uses at once.
        max_images_per_minute: Its budget; beyond it, images fail with the detector's reason.
        max_queued_images: How many images may wait for the CPU; further ones fail with the detector's reason.
        idle_s: The model is closed if nobody has asked for it for this long, in seconds.
        opener: What opens the model in place of ONNX Runtime; see `detector.opener`.
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
    """Where OpenTelemetry spans of calls go. By default they go nowhere, and then they cost nothing.

    A detector is placed with the settings of the client that asks first; variables `RAYFACE_TRACING__…` on
    the detector's machine win over them. Sampling and headers are OpenTelemetry's own `OTEL_…` variables.

    Attributes:
        endpoint: The address of a collector that takes OTLP over HTTP, for example "http://127.0.0.1:4318";
            empty for none. It needs `rayface[tracing]` on each machine.
        folder: A folder in which each process writes its spans, one a line, as JSON; for a look without a
            collector.
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
        # Ray's processes have other working directories, so a relative path would mean another folder there.
        return Path(folder).expanduser().absolute() if folder else None

    @property
    def is_on(self) -> bool:
        """Whether spans go anywhere."""
        return bool(self.endpoint) or self.folder is not None


class NodeSettings(BaseModel):
    """What the settings of a head and of a machine that joins have in common.

    Attributes:
        address: The address or name of this machine by which every other machine of the cluster reaches it.
            None takes this machine's address on the way out, or on the way to the head.
        first_port: The first of eight ports in a row: node manager, object manager, runtime environment,
            agent, metrics, logs, and two more for the node manager. On a head it is the first of nine: Ray
            Client and the metrics of autoscaler and dashboard take the place of the last two.
        first_worker_port: The first port at which processes of this machine are reached, drivers too.
        num_worker_ports: How many such ports there are. They must not overlap another machine's if both
            machines share an address.
        num_cpus: What Ray counts as CPUs of this machine; detectors ask for none.
        object_store_bytes: Size of Ray's object store on this machine, in bytes.
        temp_dir: The folder of Ray's session, logs and sockets; its path must be short. None takes Ray's own.
        log_folder: The folder of the command's own log. None takes the user's log folder.
        drain_s: How long detectors may take to finish the images that they have accepted, in seconds.
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
    """The head (`rayface head`).

    Attributes:
        num_worker_ports: How many such ports there are: one for each client that joins by this machine's Ray,
            and some for Ray itself. They must not overlap another machine's if both share an address.
        gcs_port: The port at which everybody finds the cluster.
        dashboard_host: The address at which Ray's dashboard listens. It is loopback, because everybody who
            can see the dashboard can run code.
        dashboard_port: The port of Ray's dashboard.
        storage: A folder in which the head remembers its detectors across a restart (Ray's RocksDB storage:
            alpha, Linux only, one writer). None remembers nothing.
    """

    first_port: Annotated[int, Field(gt=0, lt=65000)] = 6380
    first_worker_port: Annotated[int, Field(gt=0, lt=65000)] = 10002
    num_worker_ports: Annotated[int, Field(ge=5, le=500)] = 120
    gcs_port: Annotated[int, Field(gt=0, lt=65536)] = 6379
    dashboard_host: str = "127.0.0.1"
    dashboard_port: Annotated[int, Field(gt=0, lt=65536)] = 8265
    storage: Path | None = None


class JoinSettings(NodeSettings):
    """A machine that lends its devices (`rayface join`).

    Attributes:
        devices: The devices that it lends, one detector for each: "directml:0" is the first adapter; "cpu" is
            for a trial.
        node_lock: The name of the lock that lets one node run on a machine. Tests use another name to run a
            second node on the same machine.
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
    """Everything that can be set; `RAYFACE_CLUSTER__ADDRESS=auto` sets `cluster.address`.

    Attributes:
        detector: What a detector is made of.
        cluster: Which cluster is used, and how a detector is placed on it.
        client: How a client makes its calls.
        circuit: When a client stops calling a detector for a while.
        fallback: When the CPU of the client's own machine answers.
        tracing: Where OpenTelemetry spans go.
        head: The head's machine.
        join: A machine that lends its devices.
    """

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
    """Read the settings: overrides win over variables, variables over the file, the file over the defaults.

    Args:
        config: a TOML file; None takes the file that `RAYFACE_CONFIG` names, or else our own `local.toml`.
        overrides: by section, for example `detector={"model": "yunet"}`.

    Raises:
        ConfigurationError: a file or a value cannot be used; says which one, and what is expected.
    """
    path = Path(config or os.environ.get("RAYFACE_CONFIG") or own_config("local.toml")).expanduser()
    if not path.is_file():
        raise ConfigurationError(
            f"There is no settings file at {path}. Check the path in --config or RAYFACE_CONFIG."
        )
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
            f"The settings cannot be used: {problems}. They come from {path} and from variables {_PREFIX}…; "
            "docs/settings.md lists them all."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}. Correct that line.") from None


def own_config(name: str) -> Path:
    """The path of a settings file that we ship: beside this module in a wheel, at the top in a checkout."""
    shipped = Path(__file__).parent / "configs" / name
    return shipped if shipped.exists() else Path(__file__).parent.parent / "configs" / name


def _refuse_unknown_variables() -> None:
    """Refuse a variable that is misspelt: pydantic would ignore it without a word."""
    known = [f"{_PREFIX}{section.upper()}" for section in Settings.model_fields]
    for variable in sorted(os.environ):
        if not variable.startswith(_PREFIX) or variable.startswith(_NOT_OURS):
            continue
        if variable in _OTHER_VARIABLES or variable.split("__")[0] in known:
            continue
        near = difflib.get_close_matches(variable.split("__")[0], [*known, *_OTHER_VARIABLES], n=1)
        hint = (
            f"Did you mean {near[0]}…?" if near else f"The sections are {', '.join(Settings.model_fields)}."
        )
        raise ConfigurationError(f"The variable {variable} is no setting of rayface. {hint}")
