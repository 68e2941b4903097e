"""Joins a Ray cluster or starts one on this machine, and places detectors on it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, MutableMapping
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
        A function that leaves the cluster; an embedded one ends.

    Raises:
        ClusterUnavailable: there is no cluster at the address, the cluster refuses us, or an embedded one
            does not start; says why.
    """
    embedded = settings.cluster.address is None
    if embedded:
        prepare_embedded()
    else:
        _set_defaults(os.environ, _DRIVER)
        address = resolve(settings)
        _stay_on_loopback(os.environ, address.rpartition(":")[0] or address, allow_clusters)
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
        # Ray raises ConnectionError, RuntimeError, ValueError, AuthenticationError and others here.
        raise ClusterUnavailable(_why_no_cluster(settings, error)) from error
    leave: Callable[[], None] = ray.shutdown
    return leave


def place_all(settings: Settings) -> dict[str, Handle]:
    """Place a detector for each lent device that has none; returns all detectors of the cluster, by name.

    Their names are FaceDetector, FaceDetector-2, and so on. A detector whose machine left keeps its name and
    waits for a device.

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

    If Ray was killed and started again on a machine, the table has that machine twice until Ray gives up the
    first entry. Entries with the same address and object manager port count once; else the machine would get
    a second detector for its one device.
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
        # A detector may have been removed since it was listed.
        with contextlib.suppress(ValueError):
            found[name] = ray.get_actor(name, namespace=settings.cluster.namespace)
    return found


def remove(name: str, settings: Settings) -> None:
    """Remove a detector for good. If its device is still lent, the next client places a detector again.

    Raises:
        DetectorNotReady: there is no detector of that name.
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

    sections: list[BaseModel] = [settings.detector]
    if settings.tracing.is_on:
        sections.append(settings.tracing)
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
        # As plain values: large or custom objects would live in this driver's object store, and Ray needs the
        # arguments again when it restarts the detector, perhaps long after this driver has ended.
        .remote(name, *(each.model_dump(mode="json") for each in sections))
    )


def prepare_embedded(
    environment: MutableMapping[str, str] = os.environ, allow: Callable[[bool], None] = allow_clusters
) -> None:
    """Make the token, and set the variables, that Ray needs to start a cluster for this machine alone.

    Ray would create a token that every user of the machine can read; so a private one is created first.

    Args:
        environment: of this process; what a person has set stays.
        allow: tells Ray, which may be imported already, whether other machines may join.
    """
    # If the token cannot be kept, Ray says itself what it needs.
    with contextlib.suppress(ConfigurationError):
        have_token()
    _set_defaults(environment, _EMBEDDED)
    _stay_on_loopback(environment, "127.0.0.1", allow)


def _set_defaults(environment: MutableMapping[str, str], variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        environment.setdefault(name, value)


def resolve(settings: Settings) -> str:
    """The address that Ray will go to: for "auto", RAY_ADDRESS, or else a head that runs or ran here.

    Raises:
        ClusterUnavailable: there is no such address.
    """
    if settings.cluster.address != "auto":
        return settings.cluster.address or ""
    try:
        return find_cluster()
    except ConnectionError as error:
        raise ClusterUnavailable(_why_no_cluster(settings, error)) from error


def _stay_on_loopback(
    environment: MutableMapping[str, str], host: str, allow: Callable[[bool], None]
) -> None:
    """If the cluster's address is 127.0.0.1, keep Ray there; else it would use this machine's outer address.

    So nothing of an embedded cluster listens on any other interface.
    """
    if not is_loopback(host):
        return
    is_allowed = environment.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0") != "0"
    # Ray reads the variable when it is imported, and this process may have imported it already.
    allow(is_allowed)


def _knock(settings: Settings, address: str) -> None:
    """Refuse an address where nobody listens at once; Ray itself would go on trying for minutes."""
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
