"""Private names of Ray do what `cluster.ray_internals` says that they do, in a process that is a driver."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from cluster import ray_internals
from cluster.deployment import joining
from cluster.ray_internals import KeyValueStore, NodePorts
from cluster.ray_variables import HEAD_PROCESS_NAMES, NODE_PROCESS_NAMES
from cluster.settings import load_settings
from tests.live.conftest import HERE, ray_processes


@pytest.fixture(scope="module", autouse=True)
def _driver() -> Iterator[None]:
    """This process is the driver of an embedded cluster, and is none afterwards."""
    before = dict(os.environ)
    leave = joining.join_or_start(load_settings())
    yield
    leave()
    os.environ.clear()
    os.environ.update(before)


def _address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 30.0
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.1)
    return held


def test_a_driver_listens_at_its_own_address() -> None:
    host, port = ray_internals.own_address()
    own = psutil.Process().net_connections("inet")
    assert port in {each.laddr.port for each in own if each.status == psutil.CONN_LISTEN}
    assert host == "127.0.0.1"


def test_the_session_has_a_folder() -> None:
    assert (ray_internals.session_folder() / "logs").is_dir()


def test_the_head_is_told_that_a_node_is_gone() -> None:
    """The only node here is the head's own, so a node that does not exist is named; the head is asked."""
    assert ray_internals.unregister_nodes(_address(), "203.0.113.1", 1, timeout_s=10.0) == 0


def test_a_node_says_its_ports_in_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    (node,) = (each for each in ray_processes(os.getpid()) if each.name() in NODE_PROCESS_NAMES)
    words = [word.partition("=")[0] for word in node.cmdline()]
    assert {"--min_worker_port", "--max_worker_port", "--gcs-address", "--head"} <= set(words)
    # An embedded cluster gives its workers any free port.
    assert ray_internals.node_ports(_address()) is None
    _, port = ray_internals.own_address()
    line = [word.replace("_worker_port=0", f"_worker_port={port}") for word in node.cmdline()]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda process: line if process == node else [])
    assert ray_internals.node_ports(_address()) == NodePorts(port, port, is_head=True, num_clients=1)
    assert ray_internals.node_ports("127.0.0.1:1") is None


def test_a_node_is_a_process_of_that_name() -> None:
    assert {each.name() for each in ray_processes(os.getpid())} & set(NODE_PROCESS_NAMES)


def test_the_head_knows_its_nodes() -> None:
    import ray

    node = ray.get_runtime_context().get_node_id()
    assert ray_internals.is_node_alive(node, 5.0)
    assert not ray_internals.is_node_alive("ab" * (len(node) // 2), 5.0)


def test_the_table_of_actors() -> None:
    """A living actor has an address; for an actor that ended, Ray gives the reason."""
    import ray

    class Plain:
        def end(self) -> None:
            os._exit(7)

    handle: Any = ray.remote(Plain).options(num_cpus=0).remote()
    assert _eventually(lambda: (ray_internals.actor_row(handle) or [""])[0] == "ALIVE")
    row = ray_internals.actor_row(handle)
    assert row is not None
    _, num_restarts, address, port, cause = row
    assert (num_restarts, address, cause) == (0, "127.0.0.1", "")
    assert port > 0
    handle.end.remote()
    assert _eventually(lambda: (ray_internals.actor_row(handle) or [""])[0] == "DEAD")
    row = ray_internals.actor_row(handle)
    assert row is not None
    assert row[4]
    assert "\n" not in row[4]


@pytest.mark.parametrize("kind", ["joined", "at"])
def test_the_key_value_store(kind: str) -> None:
    store = KeyValueStore.joined() if kind == "joined" else KeyValueStore.at(_address())
    assert store.put("test/a", b"1")
    assert not store.put("test/a", b"2", overwrite=False)
    assert store.get("test/a") == b"1"
    assert not store.put("test/a", b"3")
    assert store.put("test/b", b"4")
    assert sorted(store.keys("test/")) == ["test/a", "test/b"]
    assert store.get_all("test/") == {"test/a": b"3", "test/b": b"4"}
    for key in ("test/a", "test/b", "test/missing"):
        store.delete(key)
    assert store.keys("test/") == []
    assert store.get("test/a") is None


def test_the_head_says_its_versions() -> None:
    import ray

    assert KeyValueStore.joined().read_versions() == (ray.__version__, platform.python_version())


def test_a_head_refuses_another_token() -> None:
    """The question runs in a separate process, as on a machine that joins."""
    command = [sys.executable, "-m", "cluster.deployment.callback_probe", _address(), "ask", "127.0.0.1"]
    variables = os.environ | {"RAY_AUTH_MODE": "token"}

    def ask(**token: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=HERE,
            env=variables | token,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    allowed, refused = ask(), ask(RAY_AUTH_TOKEN="0" * 64)
    assert allowed.returncode == 0, allowed.stderr
    assert not ray_internals.refuses_token(allowed.stderr)
    assert refused.returncode != 0
    assert ray_internals.refuses_token(refused.stderr)


def test_the_error_listener_can_be_ended() -> None:
    """This test comes last: it ends all listeners of this driver. A listener ends after its next error."""
    from ray._private.utils import publish_error_to_driver
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    def listeners() -> list[str]:
        return [each.name for each in threading.enumerate() if "listen_error" in each.name]

    assert listeners()
    ray_internals.silence_error_listener()
    publish_error_to_driver("test", "An error that only wakes the listener.", internal_kv_get_gcs_client())
    assert _eventually(lambda: not listeners())


def test_an_embedded_cluster_has_only_the_processes_that_it_needs() -> None:
    """The head, a node with the two agents that it does not run without, and workers."""
    lines = [" ".join(each.cmdline()) for each in ray_processes(os.getpid())]
    assert {each.name() for each in ray_processes(os.getpid())} & set(HEAD_PROCESS_NAMES)
    spare = ("dashboard/dashboard.py", "monitor.py", "log_monitor.py")
    assert [line for line in lines if any(each in line for each in spare)] == []
