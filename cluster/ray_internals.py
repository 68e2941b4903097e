"""Every private name of Ray that we use, each with the reason and with the test that fails when it changes.

Ray is pinned exactly, so a private name can only change with a new pin. `tests/unit/test_ray_internals.py`
finds any private name of Ray that stands elsewhere in `cluster`, `actors` or `app`. Private variables and
names of processes stand in `ray_variables`.

These are public and may stand anywhere in `cluster`: what `ray`, `ray.exceptions` and `ray.util` export, and
the variables that Ray's documentation names for people to set: RAY_ADDRESS, RAY_AUTH_MODE, RAY_AUTH_TOKEN,
RAY_AUTH_TOKEN_PATH, RAY_USAGE_STATS_ENABLED and RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.ray_variables import NODE_PROCESS_NAMES

_NAMESPACE = b"rayface"


def silence_error_listener() -> None:
    """End the thread that prints errors of other processes; without a head it takes half a core.

    Why private: Ray starts it for every driver, even with `log_to_driver=False`.
    Test: tests/live/test_private_names.py::test_the_error_listener_can_be_ended
    """
    from ray._private.worker import global_worker

    global_worker.threads_stopped.set()


@contextlib.contextmanager
def without_spare_processes() -> Iterator[None]:
    """While the block runs, `ray.init` starts no process that an embedded cluster can do without.

    Those are the autoscaler, the reader of the workers' logs, and the dashboard's server. They take about
    half of the processor time of a start, and `ray.init` waits for the server.

    Why private: `ray.init` has no option for the first two, and `include_dashboard=False` starts the server
    all the same, with fewer modules.
    Test: tests/live/test_private_names.py::test_an_embedded_cluster_has_only_the_processes_that_it_needs
    """
    from ray._private import node, parameter

    class FewerProcesses(parameter.RayParams):  # type: ignore[misc]  # Ray's classes have no types
        def __init__(self, **given: Any) -> None:
            super().__init__(**given, include_log_monitor=False, no_monitor=True)

    usual, start_server = parameter.RayParams, node.Node.start_api_server
    parameter.RayParams = FewerProcesses
    node.Node.start_api_server = lambda self, **options: None
    try:
        yield
    finally:
        parameter.RayParams, node.Node.start_api_server = usual, start_server


def own_address() -> tuple[str, int]:
    """The address and the port at which other processes of the cluster answer this one.

    Why private: nothing public tells the port of a driver.
    Test: tests/live/test_private_names.py::test_a_driver_listens_at_its_own_address
    """
    import ray
    from ray._private.worker import global_worker
    from ray.core.generated.common_pb2 import Address

    owner = Address.FromString(global_worker.core_worker.get_owner_address(ray.put(None)))
    return str(owner.ip_address), int(owner.port)


def session_folder() -> Path:
    """The folder of the Ray session that this process belongs to.

    Why private: nothing public tells it to a process of the session.
    Test: tests/live/test_private_names.py::test_the_session_has_a_folder
    """
    from ray._private.worker import _global_node

    return Path(_global_node.get_session_dir_path())


def find_cluster() -> str:
    """The address that Ray takes for "auto": RAY_ADDRESS, or a head that runs or ran on this machine.

    Why private: `ray.init` applies the rule and tells nobody before it tries the address, for minutes.
    Test: tests/live/test_command.py::test_no_cluster_is_exit_code_3

    Raises:
        ConnectionError: there is none.
    """
    from ray._private.services import get_ray_address_from_environment

    return str(get_ray_address_from_environment("auto", None))


def allow_clusters(is_allowed: bool) -> None:
    """Set what RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER says, in a process that has imported Ray already.

    Why private: Ray reads the variable once, when it is imported.
    Test: tests/unit/test_ray_internals.py::test_whether_clusters_are_allowed_decides_what_localhost_means
    """
    import ray._private.ray_constants as constants

    constants.ENABLE_RAY_CLUSTER = is_allowed


def actor_row(handle: Any) -> tuple[str, int, str, int, str] | None:
    """What Ray's table says of an actor: state, restarts, address, port, and why its last process ended.

    Why private: the public way (`ray.util.state`) needs the dashboard, and knows neither port nor address.
    Test: tests/live/test_private_names.py::test_the_table_of_actors
    """
    import ray._private.state as state

    row = state.actors(handle._actor_id.hex())
    if not row:
        return None
    address = row["Address"]
    cause = _death_cause(row["DeathCause"])
    return row["State"], int(row["NumRestarts"]), address["IPAddress"], int(address["Port"]), cause


def _death_cause(death: Any) -> str:
    """Ray's words for why a process ended, in one line.

    Why private: as for `actor_row`.
    Test: tests/live/test_private_names.py::test_the_table_of_actors
    """
    kind = death.WhichOneof("context") if death is not None else None
    context = getattr(death, kind) if kind else None
    # The reason stands in the first line; of a traceback, in the last one.
    trace = str(getattr(context, "formatted_exception_string", "")).strip().splitlines()
    said = str(getattr(context, "error_message", "")).strip().splitlines()
    return (said[:1] or trace[-1:] or [""])[0][:300]


def is_node_alive(node_id: str, timeout_s: float) -> bool:
    """Whether the head counts a node as alive; `node_id` in hex.

    Why private: `ray.nodes` has no time limit, and a driver whose head is gone would wait in it for ever.
    Test: tests/live/test_private_names.py::test_the_head_knows_its_nodes

    Raises:
        Exception: the head does not answer in time; Ray promises no class.
    """
    import ray
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    (is_alive,) = internal_kv_get_gcs_client().check_alive([ray.NodeID.from_hex(node_id)], timeout_s)
    return bool(is_alive)


def unregister_nodes(head_address: str, address: str, port: int, timeout_s: float) -> int:
    """Tell a head that the node at an address and node manager's port is gone, for a process outside.

    Why private: `ray drain-node` asks the node itself, which cannot answer any more. The raylet sends the
    same message when it ends in order.
    Test: tests/live/test_private_names.py::test_the_head_is_told_that_a_node_is_gone

    Args:
        head_address: of the head, HOST:PORT.
        address: of the node, as it was given to `ray start`.
        port: of its node manager.
        timeout_s: after which each of the two questions gives up.

    Returns:
        How many nodes with that address the head had counted as alive: 0 or 1.

    Raises:
        grpc.RpcError: the head does not answer in time, or refuses the token.
    """
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.common_pb2 import NodeDeathInfo
    from ray.core.generated.gcs_pb2 import GcsNodeInfo
    from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest, UnregisterNodeRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    with init_grpc_channel(head_address) as channel:
        head = NodeInfoGcsServiceStub(channel)
        known = head.GetAllNodeInfo(GetAllNodeInfoRequest(), timeout=timeout_s).node_info_list
        gone = [
            node.node_id
            for node in known
            if node.state == GcsNodeInfo.ALIVE
            and (node.node_manager_address, node.node_manager_port) == (address, port)
        ]
        death = NodeDeathInfo(
            reason=NodeDeathInfo.EXPECTED_TERMINATION, reason_message="its supervisor says that it ended"
        )
        for node_id in gone:
            request = UnregisterNodeRequest(node_id=node_id, node_death_info=death)
            head.UnregisterNode(request, timeout=timeout_s)
    return len(gone)


def is_other_cluster(error: Exception) -> bool:
    """Whether an error of `is_node_alive` says that another cluster answers at the head's address.

    Why private: Ray raises one class for every refusal of the head; only the text tells them apart.
    Test: tests/unit/test_ray_internals.py::test_texts_that_we_look_for_are_in_rays_core
    """
    return "WrongClusterID" in str(error)


def refuses_token(said: str) -> bool:
    """Whether the last words of a process that asked a head say that the head refused its token.

    Why private: the process ends with whatever error Ray has for it; only the text is always the same.
    Test: tests/live/test_private_names.py::test_a_head_refuses_another_token
    """
    return "InvalidAuthToken" in said or "AuthenticationError" in said


def has_started(said: str) -> bool:
    """Whether the output of `ray start` says that the head knows the new node.

    Why private: `ray start --block` does not end, and tells nobody else.
    Test: tests/unit/test_ray_internals.py::test_ray_start_says_when_the_node_is_in
    """
    return "Ray runtime started." in said


def lacks_ports(said: str) -> bool:
    """Whether the last words of a process that joined say that its node has no port left for it.

    Why private: Ray's core ends the process, without an exception; only the text tells why.
    Test: tests/unit/test_ray_internals.py::test_texts_that_we_look_for_are_in_rays_core
    """
    return "No available ports" in said


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The ports that a node of this machine gives to its workers and to drivers.

    Attributes:
        first, last: of the row.
        is_head: whether it is the node of a head.
        num_clients: ports at which processes listen that the node has not started.

    Why private: as for `node_ports`.
    Test: tests/live/test_private_names.py::test_a_node_says_its_ports_in_its_command_line
    """

    first: int
    last: int
    is_head: bool
    num_clients: int


def node_ports(address: str) -> NodePorts | None:
    """The ports of this machine's node in the cluster whose head is at HOST:PORT; None if that is not known.

    Why private: the node is asked by its command line, because it lets no further driver in.
    Test: tests/live/test_private_names.py::test_a_node_says_its_ports_in_its_command_line
    """
    import psutil

    for node in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError, KeyError):
            if node.name() not in NODE_PROCESS_NAMES:
                continue
            words = node.cmdline()
            options = dict(word[2:].split("=", 1) for word in words if word[:2] == "--" and "=" in word)
            port = address.rpartition(":")[2]
            if port.isdigit() and options["gcs-address"].rpartition(":")[2] != port:
                continue
            first, last = int(options["min_worker_port"]), int(options["max_worker_port"])
            own = {node.pid, *(each.pid for each in node.children(recursive=True))}
            listening = {
                each.laddr.port
                for each in psutil.net_connections("tcp")
                if each.status == psutil.CONN_LISTEN and each.pid not in own
            }
            num_clients = len(listening & set(range(first, last + 1)))
            return NodePorts(first, last, "--head" in words, num_clients) if first > 0 else None
    return None


class KeyValueStore:
    """The key-value store of a cluster's head: bytes by key, kept as long as the head keeps its tables.

    Why private: the store is Ray's own, and the only one that every process of a cluster reaches; Ray offers
    actors instead, which need a node that holds them.
    Test: tests/live/test_private_names.py::test_the_key_value_store

    Args:
        client: Ray's client of a head.
        timeout_s: after which a call gives up.

    Every method raises an error of Ray's if the head does not answer in time.
    """

    def __init__(self, client: Any, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    @classmethod
    def joined(cls, timeout_s: float = 2.0) -> KeyValueStore:
        """The store of the cluster that this process has joined."""
        from ray.experimental.internal_kv import internal_kv_get_gcs_client

        return cls(internal_kv_get_gcs_client(), timeout_s)

    @classmethod
    def at(cls, address: str, timeout_s: float = 5.0) -> KeyValueStore:
        """The store of the head at HOST:PORT, for a process that has joined no cluster.

        Ray ends the whole process if there is no token.
        """
        import ray._raylet

        return cls(ray._raylet.GcsClient(address=address), timeout_s)

    def get(self, key: str) -> bytes | None:
        """The value of a key; None if it has none."""
        value: bytes | None = self._client.internal_kv_get(key.encode(), _NAMESPACE, timeout=self._timeout_s)
        return value

    def get_all(self, prefix: str) -> dict[str, bytes]:
        """Every value whose key begins with the prefix, by key."""
        values = {key: self.get(key) for key in self.keys(prefix)}
        # A key may have been deleted since it was listed.
        return {key: value for key, value in values.items() if value is not None}

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with the prefix."""
        keys = self._client.internal_kv_keys(prefix.encode(), _NAMESPACE, timeout=self._timeout_s)
        return [key.decode() for key in keys]

    def put(self, key: str, value: bytes, *, overwrite: bool = True) -> bool:
        """Write a value; returns whether the key is new. Without `overwrite`, an earlier value stays."""
        num_added = self._client.internal_kv_put(
            key.encode(), value, overwrite, _NAMESPACE, timeout=self._timeout_s
        )
        return int(num_added) == 1

    def delete(self, key: str) -> None:
        """Delete a value; a missing one is no error."""
        self._client.internal_kv_del(key.encode(), False, _NAMESPACE, timeout=self._timeout_s)

    def read_versions(self) -> tuple[str, str]:
        """The versions of Ray and of Python at the head; empty where Ray has not written them.

        Why private: only a process that has joined can ask, and joining fails where versions differ.
        Test: tests/live/test_private_names.py::test_the_head_says_its_versions
        """
        said = self._client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=self._timeout_s)
        versions = json.loads(said or b"{}")
        return versions.get("ray_version", ""), versions.get("python_version", "")
