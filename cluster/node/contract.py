"""What a node's supervisor, its detectors and every driver must agree on: names, and Ray's variables."""

from __future__ import annotations

from collections.abc import Mapping

#: Each unit is one device that a detector may own.
RESOURCE = "directml"

#: For every process of the cluster, drivers included, because Ray reads these on both sides of a call.
COMMON: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Names of machines come from hosts files; gRPC's own resolver does not read them when DNS is away.
    "GRPC_DNS_RESOLVER": "native",
    # A link that is cut without a word is noticed after 5 + 10 s, idle or not.
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    # The photos of one call travel inside it, and not by way of the object store, which across a NAT is
    # slower and needs further ports both ways.
    "RAY_max_direct_call_object_size": "12000000",
    "RAY_task_rpc_inlined_bytes_limit": "64000000",
    # Ray's default refuses a node of another patch version of Python.
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    # Ray hides GPUs from actors that ask for none; DirectML is not among what it counts.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

#: What the machine says it lends, for example "directml:0,directml:1"; set by `rayface join`.
DEVICES_VARIABLE = "RAYFACE_NODE_DEVICES"
#: Where the machine's supervisor and its detectors leave notes for each other; set by `rayface join`.
NOTES_VARIABLE = "RAYFACE_NODE_NOTES"
#: A file in that folder; while it is there, detectors of this machine answer what they have and close.
DRAIN_NOTE = "drain"
