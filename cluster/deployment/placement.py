"""Find a Ray cluster, or start one here, and place the named, detached detector on it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from cluster.deployment.detector_actor import DetectorActor
from cluster.errors import ClusterUnavailable, ConfigurationError, DetectorNotReady
from cluster.node.addresses import is_loopback
from cluster.node.contract import COMMON, RESOURCE
from cluster.node.token import have_token
from cluster.ray_internals import DRIVER_VARIABLES, EMBEDDED_VARIABLES, allow_clusters, find_cluster
from cluster.settings import Settings

Handle = Any

_KNOCK_TIMEOUT_S = 10.0
_DRIVER = {**COMMON, **DRIVER_VARIABLES}
# Nothing leaves the machine unasked.
_EMBEDDED = {"RAY_USAGE_STATS_ENABLED": "0", **EMBEDDED_VARIABLES}


def join_or_start(settings: Settings) -> Callable[[], None]:
    """Make this process a driver of the cluster in the settings, or of an embedded one.

    Returns:
        What undoes it.

    Raises:
        ClusterUnavailable: no cluster at the address, it refuses us, or an embedded one does not start.
    """
    embedded = settings.cluster.address is None
    if embedded:
        _prepare_embedded()
    else:
        _set_defaults(_DRIVER)
        address = resolve(settings)
        _stay_on_loopback(address.rpartition(":")[0] or address)
        _knock(settings, address)
    import ray

    try:
        if embedded:
            ray.init(
                address="local",
                namespace=settings.cluster.namespace,
                # One CPU, so that Ray starts no idle workers for every core: only the detector runs here.
                num_cpus=1,
                resources={RESOURCE: 1},
                object_store_memory=settings.cluster.object_store_bytes,
                include_dashboard=settings.cluster.dashboard,
                log_to_driver=False,
                logging_level="ERROR",
            )
        else:
            ray.init(
                address=settings.cluster.address,
                namespace=settings.cluster.namespace,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except Exception as error:
        # Ray raises ConnectionError, RuntimeError, ValueError, AuthenticationError and more here.
        raise ClusterUnavailable(_why_no_cluster(settings, error)) from error
    leave: Callable[[], None] = ray.shutdown
    return leave


def place_all(settings: Settings) -> dict[str, Handle]:
    """Every detector of the cluster, by name; one is placed for each lent device that has none.

    Named FaceDetector, FaceDetector-2, …; one whose machine left keeps its name and waits for a device.

    Raises:
        DetectorNotReady: there is no detector, and no machine lends a device.
    """
    import ray

    first = settings.cluster.detector_name
    found = _names(settings)
    num_units = num_devices(ray.nodes())
    if not found and num_units < 1:
        raise DetectorNotReady(
            f"No machine of the cluster offers a `{RESOURCE}` unit, so there is no device for a detector. "
            "Run `rayface join HEAD` on the machine with the GPU."
        )
    names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
    missing = (name for name in names if name not in found)
    found.update(itertools.islice(missing, max(0, num_units - len(found))))
    return {name: _place(name, settings) for name in _in_order(found)}


def num_devices(nodes: Iterable[Mapping[str, Any]]) -> int:
    """How many devices the machines of a cluster lend, by Ray's table of nodes.

    A machine whose Ray was killed and started again is there twice until Ray has given up the first: known
    by its address and object manager, it is counted once, or it would get a second detector for its one
    device.
    """
    lent: dict[tuple[str, int], int] = {}
    for node in nodes:
        if node["Alive"]:
            machine = (node["NodeManagerAddress"], node["ObjectManagerPort"])
            lent[machine] = max(lent.get(machine, 0), int(node["Resources"].get(RESOURCE, 0)))
    return sum(lent.values())


def find_all(settings: Settings) -> dict[str, Handle]:
    """Every detector that the cluster has, by name; places none."""
    import ray

    found = {}
    for name in _in_order(_names(settings)):
        # One may have gone since it was listed.
        with contextlib.suppress(ValueError):
            found[name] = ray.get_actor(name, namespace=settings.cluster.namespace)
    return found


def remove(name: str, settings: Settings) -> None:
    """Take a detector away for good. While a device is lent for it, it is placed again when somebody asks.

    Raises:
        DetectorNotReady: there is none of that name.
    """
    import ray

    try:
        handle = ray.get_actor(name, namespace=settings.cluster.namespace)
    except ValueError as error:
        known = ", ".join(_in_order(_names(settings))) or "none"
        raise DetectorNotReady(f"No detector here is called {name!r}; there are: {known}.") from error
    ray.kill(handle, no_restart=True)


def _names(settings: Settings) -> set[str]:
    import ray

    ours = re.compile(rf"{re.escape(settings.cluster.detector_name)}(-[0-9]+)?")
    return {
        each["name"]
        for each in ray.util.list_named_actors(all_namespaces=True)
        if each["namespace"] == settings.cluster.namespace and ours.fullmatch(each["name"])
    }


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (len(name), name))


def _place(name: str, settings: Settings) -> Handle:
    import ray

    told: list[BaseModel] = [settings.detector]
    if settings.tracing.is_on:
        told.append(settings.tracing)
    return (
        ray.remote(DetectorActor)
        .options(
            name=name,
            namespace=settings.cluster.namespace,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            resources={RESOURCE: 1},
            max_restarts=-1,
            max_task_retries=settings.cluster.max_task_retries,
        )
        # Mappings of plain values: large or custom objects would live in this driver's object store.
        .remote(name, *(each.model_dump(mode="json") for each in told))
    )


def _prepare_embedded() -> None:
    """What Ray reads from the environment when it is imported or started here.

    Ray asks for a token in a cluster that `ray.init` starts, and makes it if need be, for every user of the
    machine to read; so it is made here before.
    """
    # Where it cannot be kept, Ray says what it needs.
    with contextlib.suppress(ConfigurationError):
        have_token()
    _set_defaults(_EMBEDDED)
    _stay_on_loopback("127.0.0.1")


def _set_defaults(variables: Mapping[str, str]) -> None:
    """What a person has set stays."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def resolve(settings: Settings) -> str:
    """The address that Ray will go to: "auto" is RAY_ADDRESS, or else a head that runs or ran here.

    Raises:
        ClusterUnavailable: there is none.
    """
    if settings.cluster.address != "auto":
        return settings.cluster.address or ""
    try:
        return find_cluster()
    except ConnectionError as error:
        raise ClusterUnavailable(_why_no_cluster(settings, error)) from error


def _stay_on_loopback(host: str) -> None:
    """Let Ray take 127.0.0.1 for what it is where the cluster is known by it; it would take an outer address.

    For an embedded cluster this means that nothing of it listens on any other interface.
    """
    if not is_loopback(host):
        return
    is_allowed = os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0") != "0"
    # Ray reads the variable when it is imported, and this process may have done that already.
    allow_clusters(is_allowed)


def _knock(settings: Settings, address: str) -> None:
    """Where nobody listens, Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), timeout=_KNOCK_TIMEOUT_S):
            return
    except OSError as error:
        unheard = f"nobody answers at {address} ({error.strerror or error})"
        raise ClusterUnavailable(_why_no_cluster(settings, ConnectionError(unheard))) from error


def _why_no_cluster(settings: Settings, error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".") + "."
    if settings.cluster.address is None:
        return (
            f"The embedded Ray did not start: {line} "
            "Its logs are in the `ray` folder of the system's temporary directory, under session_latest/logs."
        )
    return (
        f"No Ray cluster can be joined at {settings.cluster.address!r}: {line} "
        "Check that its head runs, that the address is right, and that the token is the head's own "
        "(RAY_AUTH_TOKEN, or the file ~/.ray/auth_token)."
    )
