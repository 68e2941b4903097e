"""Names and variables on which the supervisor of a node, its detectors and every driver must agree."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.ray_variables import CALL_VARIABLES

#: The name of Ray's resource; each unit of it is one device that a detector may own.
RESOURCE = "directml"

#: Variables for every process of the cluster, drivers too, because Ray reads them on both sides of a call.
COMMON: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The machines' names stand in hosts files, which gRPC's own resolver does not read while DNS is away.
    "GRPC_DNS_RESOLVER": "native",
    **CALL_VARIABLES,
}

#: The devices that the machine lends, for example "directml:0,directml:1"; `rayface join` sets it.
DEVICES_VARIABLE = "RAYFACE_NODE_DEVICES"
#: The folder where the machine's supervisor leaves notes for its detectors; `rayface join` sets it.
NOTES_VARIABLE = "RAYFACE_NODE_NOTES"
#: A file in that folder. While it exists, the detectors of this machine finish their images and close.
DRAIN_NOTE = "drain"
