"""What a node's supervisor, its detectors and every driver must agree on: names, and Ray's variables."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.ray_internals import CALL_VARIABLES

#: Each unit is one device that a detector may own.
RESOURCE = "directml"

#: For every process of the cluster, drivers included, because Ray reads these on both sides of a call.
COMMON: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Names of machines come from hosts files; gRPC's own resolver does not read them when DNS is away.
    "GRPC_DNS_RESOLVER": "native",
    **CALL_VARIABLES,
}

#: What the machine says it lends, for example "directml:0,directml:1"; set by `rayface join`.
DEVICES_VARIABLE = "RAYFACE_NODE_DEVICES"
#: Where the machine's supervisor and its detectors leave notes for each other; set by `rayface join`.
NOTES_VARIABLE = "RAYFACE_NODE_NOTES"
#: A file in that folder; while it is there, detectors of this machine answer what they have and close.
DRAIN_NOTE = "drain"
