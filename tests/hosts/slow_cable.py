"""A slow cable between two network namespaces: `python -m … NS ADDRESS/BITS NS ADDRESS/BITS MBIT_S DELAY_MS`.

Kernels are built without netem here and there, so this process is the cable. It holds a network interface in
each namespace, and passes each frame on when its time has come. Each direction has the speed and the delay
of its own, and loses what would wait longer than `_MAX_WAIT_S`. It writes "wired" when both ends are up, and
ends with its standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import struct
import subprocess
import sys
import time
from collections import deque

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
#: Few large frames: the cable shares the processor with the machines that it joins.
_MTU = 9000
_MAX_FRAME = 65536
_MAX_WAIT_S = 0.3


class Direction:
    """One direction of the cable.

    Args:
        bytes_per_s: its speed.
        delay_s: what every frame takes longer.
    """

    def __init__(self, bytes_per_s: float, delay_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._delay_s = delay_s
        self._free_at = 0.0
        self._under_way: deque[tuple[float, bytes]] = deque()

    @property
    def next_at(self) -> float | None:
        """When the next frame comes out; None if there is none."""
        return self._under_way[0][0] if self._under_way else None

    def enter(self, frame: bytes, now: float) -> None:
        """A frame begins its way, or is lost because too much waits."""
        sent = max(now, self._free_at) + len(frame) / self._bytes_per_s
        if sent - now <= _MAX_WAIT_S:
            self._free_at = sent
            self._under_way.append((sent + self._delay_s, frame))

    def due(self, now: float) -> list[bytes]:
        """The frames that come out by now."""
        frames = []
        while self._under_way and self._under_way[0][0] <= now:
            frames.append(self._under_way.popleft()[1])
        return frames


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


def carry(files: tuple[int, int], directions: tuple[Direction, Direction]) -> None:
    """Pass frames from each file to the other until the standard input ends."""
    waiting = selectors.DefaultSelector()
    for file in (*files, 0):
        waiting.register(file, selectors.EVENT_READ)
    while True:
        next_at = min((each.next_at for each in directions if each.next_at is not None), default=None)
        ready = waiting.select(1.0 if next_at is None else max(0.0, next_at - time.monotonic()))
        for key, _ in ready:
            if key.fd == 0:
                if not os.read(0, 4096):
                    return
                continue
            _read_all(key.fd, directions[files.index(key.fd)])
        now = time.monotonic()
        for number, direction in enumerate(directions):
            for frame in direction.due(now):
                _write(files[1 - number], frame)


def _read_all(file: int, direction: Direction) -> None:
    while True:
        try:
            frame = os.read(file, _MAX_FRAME)
        except BlockingIOError:
            return
        direction.enter(frame, time.monotonic())


def _write(file: int, frame: bytes) -> None:
    # If the reader is too slow, the frame is lost, as in any network.
    with contextlib.suppress(BlockingIOError):
        os.write(file, frame)


def main(one: str, one_address: str, other: str, other_address: str, mbit_s: str, delay_ms: str) -> None:
    """Be a cable until the standard input ends."""
    files = (interface(one, "slow-a", one_address), interface(other, "slow-b", other_address))
    speed, delay_s = float(mbit_s) * 1e6 / 8, float(delay_ms) / 1000
    print("wired", flush=True)
    carry(files, (Direction(speed, delay_s), Direction(speed, delay_s)))


if __name__ == "__main__":
    main(*sys.argv[1:])
