"""Places detectors on the cluster that this process has joined, finds them, and removes them."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cluster.deployment import placed, replacing
from cluster.deployment.placing_order import PlacingOrder
from cluster.errors import DetectorNotReady, VersionSkew
from cluster.node.contract import RESOURCE
from cluster.protocol.identity import identity, identity_of_labels, skew_sentence
from cluster.ray_internals import KeyValueStore
from cluster.settings import Settings

Handle = Any


def place_all(settings: Settings) -> dict[str, Handle]:
    """Place a detector for each lent device that has none; returns all detectors of the cluster, by name.

    Their names are FaceDetector, FaceDetector-2, and so on. A detector whose machine left keeps its name and
    waits for a device.

    Raises:
        DetectorNotReady: there is no detector, and no machine lends a device.
    """
    import ray

    first = settings.cluster.detector_name
    found = find_all(settings)
    num_units = num_devices(ray.nodes())
    if not found and num_units < 1:
        raise DetectorNotReady(
            f"No machine of the cluster offers a `{RESOURCE}` unit, so there is no device for a detector. "
            "Run `rayface join HEAD` on the machine with the GPU."
        )
    names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
    missing = (name for name in names if name not in found)
    if num_units > len(found):
        _check_versions(ray.nodes())
    for name in list(itertools.islice(missing, max(0, num_units - len(found)))):
        found[name] = _place(name, settings)
    return {name: found[name] for name in _in_order(found)}


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


def _check_versions(nodes: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to place a detector if no machine that lends a device has our version.

    Raises:
        VersionSkew: says which version such a machine has.
    """
    lending = [each for each in nodes if each["Alive"] and each["Resources"].get(RESOURCE, 0) >= 1]
    known = [identity_of_labels(each["Labels"], each["NodeName"]) for each in lending]
    others = [each for each in known if each is not None and each.tag != identity().tag]
    if others and len(others) == len(known):
        raise VersionSkew(skew_sentence(others[0], identity()))


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

    ray.kill(_found(name, settings), no_restart=True)
    placed.forget(KeyValueStore.joined(), settings.cluster.namespace, name)


def replace_one(name: str, settings: Settings, drain_s: float) -> None:
    """Place a detector anew, by these settings; see `replacing`. Blocks until it is placed.

    Args:
        name: of the detector.
        settings: it is placed by these.
        drain_s: how long it may take to answer what it has accepted.

    Raises:
        DetectorNotReady: there is no detector of that name.
    """
    import ray

    handle = _found(name, settings)

    def is_gone() -> bool:
        try:
            ray.get_actor(name, namespace=settings.cluster.namespace)
        except ValueError:
            return True
        return False

    replacing.replace(
        KeyValueStore.joined(),
        settings.cluster.namespace,
        name,
        PlacingOrder.of(settings).packed(),
        drain=lambda: ray.get(handle.answer_drain.remote(identity().tag), timeout=drain_s),
        remove=lambda: ray.kill(handle, no_restart=True),
        is_gone=is_gone,
        place=lambda: _place(name, settings),
    )


def _names(settings: Settings) -> set[str]:
    import ray

    ours = re.compile(rf"{re.escape(settings.cluster.detector_name)}(-[0-9]+)?")
    return {
        each["name"]
        for each in ray.util.list_named_actors(all_namespaces=True)
        if each["namespace"] == settings.cluster.namespace and ours.fullmatch(each["name"])
    }


def _found(name: str, settings: Settings) -> Handle:
    import ray

    try:
        return ray.get_actor(name, namespace=settings.cluster.namespace)
    except ValueError as error:
        known = ", ".join(_in_order(_names(settings))) or "none"
        raise DetectorNotReady(f"No detector here is called {name!r}; there are: {known}.") from error


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (len(name), name))


def _place(name: str, settings: Settings) -> Handle:
    import ray

    # Loaded here: most programs find a detector that is there, and need not load what it is made of.
    from cluster.deployment.detector_actor import DetectorActor

    # While somebody replaces the detector, it is placed by that order, whoever is the first to miss it.
    order = replacing.ordered(KeyValueStore.joined(), settings.cluster.namespace, name)
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
        # As text: large or custom objects would live in this driver's object store, and Ray needs the
        # arguments again when it restarts the detector, perhaps long after this driver has ended.
        .remote(name, order or PlacingOrder.of(settings).packed())
    )
