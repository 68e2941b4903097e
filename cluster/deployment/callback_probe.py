"""Whether the way between a head and another machine is open, both ways, before that machine joins.

A machine that wants to join can try the head's ports, but not whether the head reaches its own. So beside
the head lives a callback probe: it reads requests from the cluster's key-value store, knocks at the ports
that they name, and writes down what it found. Both speak to the head's store only, with the token, and need
no node.

    python -m cluster.deployment.callback_probe HEAD                   the probe, until the head is gone
    python -m cluster.deployment.callback_probe HEAD ask HOST PORT…    one question; prints one JSON object

Both run as processes of their own, because Ray's client ends the whole process when it finds no token.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from cluster.node.addresses import knock_all

_NAMESPACE = b"rayface"
_REQUEST, _ANSWER = b"visit/", b"visited/"
_CALL_TIMEOUT_S = 5
#: An answer that nobody came for.
_FORGOTTEN_S = 60.0
_ANSWER_WITHIN_S = 10.0


def answer_requests(
    client: Any, answered: dict[bytes, float], clock: Callable[[], float] = time.monotonic
) -> int:
    """Knock wherever the requests ask for it, and write down what was found.

    Args:
        client: of the cluster's store.
        answered: what was written and when, kept between calls; what nobody came for is taken away again.
            (By this process's own clock: the other machine's may be hours off, which is to be found out.)

    Returns:
        How many requests there were.
    """
    requests = client.internal_kv_keys(_REQUEST, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
    for key in requests:
        asked = client.internal_kv_get(key, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
        # Taken away first: one that cannot be answered ends this process, but not the next one too.
        client.internal_kv_del(key, False, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
        request = json.loads(asked or b"{}")
        ports: list[int] = request.get("ports", [])
        found = knock_all(str(request.get("host")), ports)
        answer = _ANSWER + key.removeprefix(_REQUEST)
        said = json.dumps({"visited": found, "time": time.time()}).encode()
        client.internal_kv_put(answer, said, True, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
        answered[answer] = clock()
    for answer in [each for each, at in answered.items() if clock() - at > _FORGOTTEN_S]:
        client.internal_kv_del(answer, False, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
        del answered[answer]
    return len(requests)


def ask(
    client: Any, host: str, ports: Sequence[int], sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """The head's versions and time, and for each port why the head does not reach it ("" where it does).

    `visited` is None where no callback probe answered: the head was not started by `rayface head`.
    `clock_skew_s` is how far this machine's clock is ahead of the head's, as far as can be told (a second or
    two); None likewise.
    """
    versions = json.loads(
        client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=_CALL_TIMEOUT_S) or b"{}"
    )
    name = uuid.uuid4().hex.encode()
    request = json.dumps({"host": host, "ports": list(ports)}).encode()
    visited: dict[str, str] | None = None
    clock_skew_s: float | None = None
    if ports:
        client.internal_kv_put(_REQUEST + name, request, True, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
        until = time.monotonic() + _ANSWER_WITHIN_S
        while visited is None and time.monotonic() < until:
            sleep(0.3)
            kept = client.internal_kv_get(_ANSWER + name, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
            if kept:
                answer = json.loads(kept)
                visited, clock_skew_s = answer["visited"], round(time.time() - answer["time"], 1)
        for key in (_REQUEST + name, _ANSWER + name):
            client.internal_kv_del(key, False, _NAMESPACE, timeout=_CALL_TIMEOUT_S)
    return {
        "ray_version": versions.get("ray_version", ""),
        "python_version": versions.get("python_version", ""),
        "visited": visited,
        "clock_skew_s": clock_skew_s,
    }


def main(arguments: Sequence[str]) -> int:
    """Returns 0; any fault of Ray's is an exception, which the caller of this process reads."""
    import ray._raylet

    client = ray._raylet.GcsClient(address=arguments[0])
    if len(arguments) > 1:
        answer = ask(client, arguments[2], [int(port) for port in arguments[3:]])
        sys.stdout.write(json.dumps(answer) + "\n")
        return 0
    answered: dict[bytes, float] = {}
    while True:
        answer_requests(client, answered)
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
