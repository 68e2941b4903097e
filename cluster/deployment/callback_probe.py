"""Whether the way between a head and another machine is open, both ways, before that machine joins.

A machine that wants to join can try the head's ports itself, but it cannot see whether the head reaches its
own ports. So a callback probe runs beside the head: it reads requests from the cluster's key-value store,
knocks at the ports that they name, and writes down what it found. The probe and the machine that asks speak
to the head's store only, with the token; neither needs a node.

    python -m cluster.deployment.callback_probe HEAD                   the probe, until the head is gone
    python -m cluster.deployment.callback_probe HEAD ask HOST PORT…    one question; prints one JSON object

Each runs as a process of its own, because Ray's client ends the whole process when it finds no token.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from cluster.deployment import placed
from cluster.node.addresses import knock_all
from cluster.protocol.identity import identity
from cluster.ray_internals import KeyValueStore

_REQUEST, _ANSWER = "visit/", "visited/"
#: Where the head says which rayface it has.
_IDENTITY = "head/rayface"
#: An answer that nobody has read for so long is deleted.
_FORGOTTEN_S = 60.0
_ANSWER_WITHIN_S = 10.0


def answer_requests(
    store: KeyValueStore, answered: dict[str, float], clock: Callable[[], float] = time.monotonic
) -> int:
    """Knock at the ports that the requests name, and write down what was found.

    Args:
        store: of the cluster.
        answered: when each answer was written, by its key; kept between calls, to delete answers that
            nobody reads. The times are of `clock`: the other machine's clock may be hours off.
        clock: seconds.

    Returns:
        How many requests there were.
    """
    requests = store.keys(_REQUEST)
    for key in requests:
        asked = store.get(key)
        # Deleted first: a request that cannot be answered must not come back.
        store.delete(key)
        try:
            host, ports = _parsed(asked or b"")
        except (ValueError, TypeError, LookupError) as error:
            # Another machine's mistake must not end the probe for all the others.
            sys.stderr.write(f"A request that cannot be read was deleted: {error!r}\n")
            continue
        found = knock_all(host, ports)
        answer = _ANSWER + key.removeprefix(_REQUEST)
        store.put(answer, json.dumps({"visited": found, "time": time.time()}).encode())
        answered[answer] = clock()
    for answer in [each for each, at in answered.items() if clock() - at > _FORGOTTEN_S]:
        store.delete(answer)
        del answered[answer]
    return len(requests)


def _parsed(request: bytes) -> tuple[str, list[int]]:
    """The host and the ports that a request names; raises ValueError, TypeError or LookupError."""
    asked = json.loads(request)
    return str(asked["host"]), [int(port) for port in asked["ports"]]


def ask(
    store: KeyValueStore, host: str, ports: Sequence[int], sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """The head's versions and time, and for each port why the head does not reach it ("" where it does).

    `rayface` is which rayface the head has; None if `rayface head` did not start it, or an older one did.
    `visited` is None if no callback probe answered: it has failed, or `rayface head` did not start the head.
    `clock_skew_s` is how far this machine's clock is ahead of the head's, correct to a second or two; None
    if no callback probe answered. `placed` has the settings of each detector, by "NAMESPACE/NAME".
    """
    ray_version, python_version = store.read_versions()
    name = uuid.uuid4().hex
    visited: dict[str, str] | None = None
    clock_skew_s: float | None = None
    if ports:
        store.put(_REQUEST + name, json.dumps({"host": host, "ports": list(ports)}).encode())
        until = time.monotonic() + _ANSWER_WITHIN_S
        while visited is None and time.monotonic() < until:
            sleep(0.3)
            if said := store.get(_ANSWER + name):
                answer = json.loads(said)
                visited, clock_skew_s = answer["visited"], round(time.time() - answer["time"], 1)
        for key in (_REQUEST + name, _ANSWER + name):
            store.delete(key)
    return {
        "ray_version": ray_version,
        "python_version": python_version,
        "rayface": json.loads(store.get(_IDENTITY) or b"null"),
        "visited": visited,
        "clock_skew_s": clock_skew_s,
        "placed": placed.read(store),
    }


def main(arguments: Sequence[str]) -> int:
    """Run the probe, or ask one question; an error of Ray's ends the process with its text on stderr."""
    store = KeyValueStore.at(arguments[0])
    if len(arguments) > 1:
        answer = ask(store, arguments[2], [int(port) for port in arguments[3:]])
        sys.stdout.write(json.dumps(answer) + "\n")
        return 0
    answered: dict[str, float] = {}
    store.put(_IDENTITY, json.dumps(identity().as_dict()).encode())
    while True:
        answer_requests(store, answered)
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
