"""A cable with faults between two network namespaces: it delays, loses, reorders and blocks what it carries.

Kernels are built without netem here and there, so this process is the cable. It holds a network interface in
each namespace, and passes each frame on when its time has come. `Cable` starts it and gives it orders:

    python -m tests.hosts.cable NAMESPACE ADDRESS/BITS NAMESPACE ADDRESS/BITS

It writes "wired" when both ends are up, takes orders as lines of JSON, and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.hosts.machines import HERE

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
#: Few large frames: the cable shares the processor with the machines that it joins.
_MTU = 9000
_MAX_FRAME = 65536
_MAX_WAIT_S = 0.3
#: By so much a reordered frame is late.
_LATE_S = (0.005, 0.06)
ENDS = ("cable-a", "cable-b")


@dataclass(frozen=True)
class Orders:
    """What the cable does to frames, the same in each direction.

    Attributes:
        mbit_s: its speed; 0 for no limit. What would wait longer than 0.3 s for its turn is lost.
        delay_ms: what every frame takes longer.
        loss: share of frames that are lost, 0..1.
        reorder: share of frames that are 5 to 60 ms late, and so come after later ones, 0..1.
        blocked: directions in which nothing passes: "", "ab", "ba" or "ab ba".
        num_flushes: when it grows, the connections of that moment are forgotten: no frame of theirs passes
            again. New ones work, as after the flush of a router's or a firewall's table of connections.
    """

    mbit_s: float = 0.0
    delay_ms: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    blocked: str = ""
    num_flushes: int = 0


class Flows:
    """The TCP connections that a cable has seen, and those that it has forgotten."""

    def __init__(self) -> None:
        self._seen: set[tuple[bytes, ...]] = set()
        self._forgotten: set[tuple[bytes, ...]] = set()

    def flush(self) -> None:
        """Forget every connection so far."""
        self._forgotten |= self._seen
        self._seen.clear()

    def passes(self, frame: bytes) -> bool:
        """Whether the frame's connection is known or begins with it; frames of no connection always pass."""
        # Ethernet, IPv4, TCP: 14 bytes, 20 or more, and the two ports first.
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            return True
        tcp = 14 + (frame[14] & 15) * 4
        ends = (frame[26:30] + frame[tcp : tcp + 2], frame[30:34] + frame[tcp + 2 : tcp + 4])
        flow = tuple(sorted(ends))
        begins = frame[tcp + 13] & 0x02
        if begins:
            self._forgotten.discard(flow)
        if flow in self._forgotten:
            return False
        self._seen.add(flow)
        return True


class Direction:
    """One direction of the cable.

    Args:
        name: "ab" or "ba", as `Orders.blocked` names it.
        chance: returns 0..1.
    """

    def __init__(self, name: str, chance: Callable[[], float] = random.random) -> None:
        self._name = name
        self._chance = chance
        self._free_at = 0.0
        self._under_way: list[tuple[float, int, bytes]] = []
        self._num_frames = 0

    @property
    def next_at(self) -> float | None:
        """When the next frame comes out; None if there is none."""
        return self._under_way[0][0] if self._under_way else None

    def enter(self, frame: bytes, now: float, orders: Orders) -> None:
        """A frame begins its way, or is lost."""
        if self._name in orders.blocked.split() or (orders.loss and self._chance() < orders.loss):
            return
        at = now
        if orders.mbit_s:
            at = max(now, self._free_at) + len(frame) * 8 / (orders.mbit_s * 1e6)
            if at - now > _MAX_WAIT_S:
                return
            self._free_at = at
        at += orders.delay_ms / 1000
        if orders.reorder and self._chance() < orders.reorder:
            soonest, latest = _LATE_S
            at += soonest + self._chance() * (latest - soonest)
        self._num_frames += 1
        heapq.heappush(self._under_way, (at, self._num_frames, frame))

    def due(self, now: float) -> list[bytes]:
        """The frames that come out by now."""
        frames = []
        while self._under_way and self._under_way[0][0] <= now:
            frames.append(heapq.heappop(self._under_way)[2])
        return frames


class Cable:
    """A cable between two namespaces, as a process. `close` ends it.

    Args:
        one: the namespace of end a; `address` is its address there, with bits: "10.79.0.1/24".
        other: the namespace of end b.
    """

    def __init__(self, one: str, address: str, other: str, other_address: str) -> None:
        self._orders = Orders()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, one, address, other, other_address],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "wired\n"

    def order(self, **orders: Any) -> None:
        """Give new orders, those of `Orders`; they replace the earlier ones."""
        self._tell(Orders(**{"num_flushes": self._orders.num_flushes, **orders}))

    def flush(self) -> None:
        """Let it forget its connections; its other orders hold on."""
        self._tell(Orders(**{**asdict(self._orders), "num_flushes": self._orders.num_flushes + 1}))

    def close(self) -> None:
        """End the cable."""
        if self._process.poll() is None:
            self._process.communicate(timeout=10)

    def _tell(self, orders: Orders) -> None:
        self._orders = orders
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(orders)) + "\n")
        self._process.stdin.flush()


def interface(namespace: str, name: str, address: str) -> int:
    """Make a network interface in a namespace; returns the file of its frames."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        for command in (f"addr add {address} dev {name}", f"link set {name} mtu {_MTU} txqueuelen 1000 up"):
            subprocess.run(["ip", *command.split()], check=True)
        return file
    finally:
        if libc.setns(home, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot come back from a namespace")
        os.close(home)
        os.close(there)


def carry(files: tuple[int, int]) -> None:
    """Pass frames from each file to the other until the standard input ends."""
    orders, flows = Orders(), Flows()
    directions = (Direction("ab"), Direction("ba"))
    waiting = selectors.DefaultSelector()
    for file in (*files, 0):
        waiting.register(file, selectors.EVENT_READ)
    lines = b""
    while True:
        next_at = min((each.next_at for each in directions if each.next_at is not None), default=None)
        ready = waiting.select(1.0 if next_at is None else max(0.0, next_at - time.monotonic()))
        for key, _ in ready:
            if key.fd == 0:
                if not (read := os.read(0, 4096)):
                    return
                *whole, lines = (lines + read).split(b"\n")
                for line in whole:
                    before, orders = orders, Orders(**json.loads(line))
                    if orders.num_flushes > before.num_flushes:
                        flows.flush()
                continue
            direction = directions[files.index(key.fd)]
            for frame in _frames(key.fd):
                if flows.passes(frame):
                    direction.enter(frame, time.monotonic(), orders)
        now = time.monotonic()
        for number, direction in enumerate(directions):
            for frame in direction.due(now):
                # If the reader is too slow or its end is down, the frame is lost, as in any network.
                with contextlib.suppress(OSError):
                    os.write(files[1 - number], frame)


def _frames(file: int) -> list[bytes]:
    """The frames that wait at an end; not too many, so that the other end has its turn."""
    frames: list[bytes] = []
    # An end that is down, or has no frame, gives an error.
    with contextlib.suppress(OSError):
        while len(frames) < 64:
            frames.append(os.read(file, _MAX_FRAME))
    return frames


def main(one: str, one_address: str, other: str, other_address: str) -> None:
    """Be a cable until the standard input ends."""
    files = (interface(one, ENDS[0], one_address), interface(other, ENDS[1], other_address))
    print("wired", flush=True)
    carry(files)


if __name__ == "__main__":
    main(*sys.argv[1:])
