"""What `rayface join` checks before it lends the machine: it stops at the first thing that is wrong."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from cluster.errors import ClusterUnavailable, ConfigurationError, DetectorNotReady, DeviceTaken, RayfaceError
from cluster.node import checks
from cluster.node.findings import Finding, Verdict, warn
from cluster.node.model_checks import check_wanted_models
from cluster.node.ray_start import reached_ports
from cluster.settings import Settings

#: The first ports of worker processes stand for all of them.
_NUM_WORKER_PORTS = 3
#: For each check, the error that a wrong finding of it becomes; all others become `ClusterUnavailable`.
_ERRORS: Mapping[str, type[RayfaceError]] = {
    "token": ConfigurationError,
    "owner": DeviceTaken,
    "model": DetectorNotReady,
    "device": DetectorNotReady,
}


def check_join(head_address: str, settings: Settings) -> Iterator[Finding]:
    """Make every check, in an order in which each can rely on those before it.

    Raises:
        RayfaceError: joining would be of no use; says what is wrong, and what to do.
    """
    for finding in _findings(head_address, settings):
        if finding.verdict is Verdict.WRONG:
            raise _ERRORS.get(finding.name, ClusterUnavailable)(finding.sentence)
        yield finding


def _findings(head_address: str, settings: Settings) -> Iterator[Finding]:
    yield from checks.check_token()
    own = yield from checks.check_head(head_address, settings.join, lends=True)
    if own is None:
        return
    ports = reached_ports(settings.join, _NUM_WORKER_PORTS)
    answer = yield from checks.ask_head(head_address, own, ports, listen=True)
    if answer is None:
        return
    ours = {"ray": version("ray"), "python": platform.python_version()}
    yield from checks.check_versions(answer, ours)
    yield from checks.check_way_back(answer, own, lends=True)
    ours_begins = f"{settings.cluster.namespace}/"
    placed = {
        name.removeprefix(ours_begins): values
        for name, values in answer.placed.items()
        if name.startswith(ours_begins)
    }
    usable = yield from check_wanted_models(settings.detector, placed)
    for device in settings.join.devices:
        if usable is None:
            yield warn("device", f"{device} was not tried: there is no model to try it with", "See above.")
        else:
            yield from checks.check_device(device, usable)
