"""The cable of the suites about several machines does to frames what its orders say."""

from __future__ import annotations

import pytest

from tests.hosts.cable import Direction, Flows, Orders


def _tcp(source: int, target: int, *, begins: bool = False) -> bytes:
    """An Ethernet frame with an IPv4 packet of TCP, between two fixed machines."""
    ip = bytes([0x45, *[0] * 8, 6, 0, 0, 10, 0, 0, min(source, 2), 10, 0, 0, min(target, 2)])
    tcp = source.to_bytes(2, "big") + target.to_bytes(2, "big") + bytes(9) + bytes([0x02 if begins else 0x10])
    return bytes(12) + b"\x08\x00" + ip + tcp


def test_a_frame_comes_out_after_its_delay_and_its_turn() -> None:
    direction = Direction("ab")
    orders = Orders(mbit_s=8.0, delay_ms=20.0)  # one byte a microsecond
    for _ in range(2):
        direction.enter(bytes(1000), 5.0, orders)
    assert direction.due(5.0209) == []
    assert len(direction.due(5.0211)) == 1
    assert direction.next_at == pytest.approx(5.022)


def test_what_waits_too_long_for_its_turn_is_lost() -> None:
    direction = Direction("ab")
    for _ in range(400):
        direction.enter(bytes(1000), 0.0, Orders(mbit_s=8.0))
    assert len(direction.due(1.0)) in (299, 300)


def test_a_blocked_direction_passes_nothing_and_the_other_all() -> None:
    ab, ba = Direction("ab"), Direction("ba")
    for each in (ab, ba):
        each.enter(b"frame", 0.0, Orders(blocked="ab"))
    assert (ab.due(1.0), ba.due(1.0)) == ([], [b"frame"])


def test_so_many_frames_are_lost_or_late() -> None:
    chances = iter([0.05, 0.5, 0.0])
    direction = Direction("ab", lambda: next(chances))
    direction.enter(b"lost", 0.0, Orders(loss=0.1))
    direction.enter(b"late", 0.0, Orders(reorder=0.6))
    direction.enter(b"later sent", 0.001, Orders())
    assert direction.due(1.0) == [b"later sent", b"late"]


def test_a_forgotten_connection_passes_no_frame_until_it_begins_again() -> None:
    flows = Flows()
    assert flows.passes(_tcp(1000, 80, begins=True))
    assert flows.passes(_tcp(80, 1000))
    flows.flush()
    assert not flows.passes(_tcp(1000, 80))
    assert not flows.passes(_tcp(80, 1000))
    assert flows.passes(_tcp(1001, 80, begins=True))
    assert flows.passes(b"\xff" * 12 + b"\x08\x06" + bytes(28))
    assert flows.passes(_tcp(1000, 80, begins=True))
    assert flows.passes(_tcp(80, 1000))
