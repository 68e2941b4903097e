"""Every private variable of Ray's, and name of its processes, that we use: as `ray_internals`, with reasons.

They are words, and not code: nothing here asks Ray.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: How much Ray remembers of the calls that it made, for its lists of tasks. Its own limits are fifty times as
#: high: the head grew by 4 KB with each call, for hours (`python -m tests.benchmarks.soak`).
#:
#: Why private: neither `ray.init` nor `ray start` has an option for any of them.
#: Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
TASK_LIST_VARIABLES: Mapping[str, str] = {
    # The head's list: calls that ended well go first, those under way last.
    "RAY_task_events_max_num_task_in_gcs": "2000",
    # Of older calls the head remembers that it knew them.
    "RAY_task_events_max_dropped_task_attempts_tracked_per_job_in_gcs": "2000",
    # What each process keeps for the head while it is away.
    "RAY_task_events_max_num_status_events_buffer_on_worker": "2000",
    "RAY_task_events_max_num_profile_events_buffer_on_worker": "2000",
}

#: Ray's core and its Python read these on both sides of a call, so every process of a cluster needs them.
#:
#: Why private: neither `ray.init` nor `ray start` has an option for any of them.
#: Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
CALL_VARIABLES: Mapping[str, str] = {
    # A link that is cut without a word is noticed after 5 + 10 s, idle or not.
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    # The photos of one call travel inside it. By way of the object store they would be slower across a NAT,
    # and would need further ports both ways.
    "RAY_max_direct_call_object_size": "12000000",
    "RAY_task_rpc_inlined_bytes_limit": "64000000",
    # Ray's default refuses a node of another patch version of Python.
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    # Ray hides GPUs from actors that ask for none, and does not count what DirectML uses.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    **TASK_LIST_VARIABLES,
}

#: For whatever starts processes that work: Ray calls this function first in each of them.
#:
#: Why private: only a program's own runtime environment can name such a function in public.
#: Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
WORKER_VARIABLES: Mapping[str, str] = {
    "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": "cluster.node.worker_streams.let_writes_fail",
}

#: For an embedded cluster, whose calls never leave the machine.
#:
#: Why private: as for `CALL_VARIABLES`.
#: Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
EMBEDDED_VARIABLES: Mapping[str, str] = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": CALL_VARIABLES["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"],
    **TASK_LIST_VARIABLES,
    **WORKER_VARIABLES,
}

#: Ray's core would end the whole process of a driver, without an exception, after a minute without the head.
#:
#: Why private: Ray raises nothing that a driver could catch, and `ray.init` has no option for it.
#: Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
DRIVER_VARIABLES: Mapping[str, str] = {"RAY_gcs_rpc_server_reconnect_timeout_s": "1000000"}

#: For a head and for every machine that joins it: when a machine counts as lost.
#:
#: Why private: `ray start` has no option for any of them.
#: Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
NODE_VARIABLES: Mapping[str, str] = {
    # Fifteen checks in a row, each at most 2 s, one second apart: 45 s of silence. A machine that is given up
    # sooner starts Ray anew after a break that it could have waited for; its own `join` says at once when its
    # Ray ended.
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "15",
    # A machine that was given up, or whose head stays away, ends its Ray; its supervisor starts Ray again.
    "RAY_raylet_liveness_self_check_interval_ms": "2000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "60",
    # The supervisor lets detectors finish; Ray has nothing more to wait for.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    **WORKER_VARIABLES,
}


def storage_variables(folder: Path) -> dict[str, str]:
    """Let a head keep its tables in a folder, so that it finds them again after a restart.

    Why private: the public way needs a Redis server beside the head.
    Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
    """
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder)}


def metrics_port_variables(autoscaler: int, dashboard: int) -> dict[str, str]:
    """The ports at which a head's autoscaler and dashboard show their metrics.

    Ray opens them on every head; unnamed, they would be the same for any two heads of one machine.

    Why private: `ray start` has no option for them.
    Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
    """
    return {"AUTOSCALER_METRIC_PORT": str(autoscaler), "DASHBOARD_METRIC_PORT": str(dashboard)}


#: The module behind the command `ray`, for `python -m`.
#:
#: Why private: a `ray` found on the path may belong to another Python, and `python -m ray` does not exist.
#: Test: tests/unit/test_ray_internals.py::test_the_command_ray_is_the_module_that_we_start
COMMAND_MODULE = "ray.scripts.scripts"

#: What the process of a node is called, on Linux and on Windows.
#:
#: Why private: without a head to ask, nothing public tells whether a node runs on this machine.
#: Test: tests/live/test_private_names.py::test_a_node_is_a_process_of_that_name
NODE_PROCESS_NAMES = ("raylet", "raylet.exe")

#: What the process that is the head of a cluster is called, on Linux and on Windows.
#:
#: Why private: without asking the head, nothing public tells whether its process runs.
#: Test: tests/live/test_private_names.py::test_an_embedded_cluster_has_only_the_processes_that_it_needs
HEAD_PROCESS_NAMES = ("gcs_server", "gcs_server.exe")


def last_cluster_file(temp_dir: Path | None) -> Path:
    """Where a head notes its address, which the next `ray start --head` compares with that of other nodes.

    If a machine of that cluster is this one and its Ray still runs, Ray refuses to start the head again.

    Args:
        temp_dir: of the head; None for Ray's own.

    Why private: Ray removes the note only in its own way to end.
    Test: tests/unit/test_ray_internals.py::test_a_head_notes_its_address_in_that_file
    """
    own = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    return (temp_dir or own) / "ray_current_cluster"


def temp_dir_variables(folder: Path) -> dict[str, str]:
    """Let an embedded cluster keep its session, its logs and its sockets below a short path.

    Why private: `ray.init` has only a private argument for it.
    Test: tests/unit/test_ray_internals.py::test_ray_reads_the_variables_that_we_set
    """
    return {"RAY_TMPDIR": str(folder)}
