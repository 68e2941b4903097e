"""Whether the way between a head and another machine is open, both ways, before that machine joins.

A machine that wants to join can try the head's ports, but not whether the head reaches its own. So beside
the head lives a doorman, who reads requests from the cluster's key-value store, knocks at the ports they
name, and writes down what was found. Both speak to the head's store only, with the token, and need no node.

    python -m cluster.doorman HEAD                      the doorman, until the head is gone
    python -m cluster.doorman HEAD ask HOST PORT…       one question; prints one JSON object

Both run as processes of their own, because Ray's client ends the whole process when it finds no token.
"""

from __future__ import annotations

import json
import socket
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_NAMESPACE = b"rayface"
_REQUEST, _ANSWER = b"visit/", b"visited/"
_CALL_TIMEOUT_S = 5
_KNOCK_TIMEOUT_S = 2.0
#: A request that nobody came back for.
_FORGOTTEN_S = 60.0
_ANSWER_WITHIN_S = 10.0


def knock(host: str, port: int, timeout_s: float = _KNOCK_TIMEOUT_S) -> str:
    """Connect and hang up; returns what went wrong, in words, or nothing."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return ""
    except TimeoutError:
        return "no answer (a firewall drops it, or the address is wrong)"
    except OSError as error:
        return error.strerror or str(error)


def answer_requests(client: Any) -> int:
    """Knock wherever the requests ask for it, write down what was found; returns how many there were."""
    requests = client.internal_kv_keys(_REQUEST, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
    for key in requests:
        request = json.loads(client.internal_kv_get(key, _NAMESPACE, timeout=_CALL_TIMEOUT_S) or b"{}")
        client.internal_kv_del(key, False, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
        if time.time() - request.get("at", 0) > _FORGOTTEN_S:
            continue
        ports: list[int] = request["ports"]
        with ThreadPoolExecutor(16) as pool:
            found = dict(zip(ports, pool.map(knock, [request["host"]] * len(ports), ports), strict=True))
        client.internal_kv_put(
            _ANSWER + key.removeprefix(_REQUEST),
            json.dumps(found).encode(),
            True,
            _NAMESPACE,
            timeout=_CALL_TIMEOUT_S,
        )
    return len(requests)


def ask(
    client: Any, host: str, ports: Sequence[int], sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """The head's versions, and for each port why the head does not reach it ("" where it does).

    `visited` is None where no doorman answered: the head was not started by `rayface head`.
    """
    versions = json.loads(
        client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=_CALL_TIMEOUT_S) or b"{}"
    )
    name = uuid.uuid4().hex.encode()
    request = json.dumps({"host": host, "ports": list(ports), "at": time.time()}).encode()
    visited: dict[str, str] | None = None
    if ports:
        client.internal_kv_put(_REQUEST + name, request, True, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
        until = time.monotonic() + _ANSWER_WITHIN_S
        while visited is None and time.monotonic() < until:
            sleep(0.3)
            kept = client.internal_kv_get(_ANSWER + name, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
            visited = json.loads(kept) if kept else None
        for key in (_REQUEST + name, _ANSWER + name):
            client.internal_kv_del(key, False, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
    return {
        "ray_version": versions.get("ray_version", ""),
        "python_version": versions.get("python_version", ""),
        "visited": visited,
    }


def main(arguments: Sequence[str]) -> int:
    """Returns 0; any fault of Ray's is an exception, which the caller of this process reads."""
    import ray._raylet

    client = ray._raylet.GcsClient(address=arguments[0])
    if len(arguments) > 1:
        answer = ask(client, arguments[2], [int(port) for port in arguments[3:]])
        sys.stdout.write(json.dumps(answer) + "\n")
        return 0
    while True:
        answer_requests(client)
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
