"""The faults that the suite can plant, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos.faults import backends, machines, network, processes
from tests.chaos.faults.kind import FaultKind

FAULTS: Mapping[str, FaultKind] = {
    kind.name: kind for kind in (*processes.KINDS, *network.KINDS, *machines.KINDS, *backends.KINDS)
}
