"""Who passes to the device, and in which order. Threads stop at named points; nothing sleeps."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from actors.priority_semaphore import PrioritySemaphore, _Turn

SOON_S = 10.0


class Crowd:
    """Threads at one gate; each stays on the device until it is told to leave."""

    def __init__(self, gate: PrioritySemaphore) -> None:
        self.gate = gate
        self.order: list[str] = []
        self._changed = threading.Condition()
        self._arrived: set[str] = set()
        self._leave: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def comes(self, name: str, *, first: bool = False, alone: bool = False) -> None:
        """A thread comes to the gate; returns when it waits there or has passed."""
        self._leave[name] = threading.Event()
        num_waiting = self._num_waiting()
        thread = threading.Thread(target=self._go, args=(name, first, alone), daemon=True)
        self._threads.append(thread)
        thread.start()
        self.until(lambda: name in self.order or self._num_waiting() > num_waiting)

    def leaves(self, name: str) -> None:
        """The thread gives its lane back."""
        self._leave[name].set()

    def until(self, so: Callable[[], bool]) -> None:
        """Wait for it."""
        with self._changed:
            assert self._changed.wait_for(so, 0.01) or any(
                self._changed.wait_for(so, 0.01) for _ in range(int(SOON_S / 0.01))
            )

    def end(self) -> None:
        """Everybody leaves."""
        for event in self._leave.values():
            event.set()
        for thread in self._threads:
            thread.join(SOON_S)
            assert not thread.is_alive(), "somebody waits for ever"

    def _num_waiting(self) -> int:
        # A thread that passes at once waits for a moment too, while it holds the lock.
        with self.gate._lock:
            return sum(map(len, self.gate._waiting))

    def _go(self, name: str, first: bool, alone: bool) -> None:
        with self.gate.taken(first=first, alone=alone):
            with self._changed:
                self.order.append(name)
                self._changed.notify_all()
            self._leave[name].wait(SOON_S)


@pytest.fixture
def crowd() -> Iterator[Callable[[int], Crowd]]:
    made: list[Crowd] = []

    def make(num_lanes: int) -> Crowd:
        made.append(Crowd(PrioritySemaphore(num_lanes)))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_a_person_passes_a_scan_that_waits(crowd: Callable[[int], Crowd]) -> None:
    """But not one that is on the device."""
    one = crowd(1)
    one.comes("bulk 1")
    one.comes("bulk 2")
    one.comes("person", first=True)
    assert one.order == ["bulk 1"]
    one.leaves("bulk 1")
    one.until(lambda: one.order[1:] == ["person"])
    one.leaves("person")
    one.until(lambda: one.order[2:] == ["bulk 2"])


def test_so_many_at_once(crowd: Callable[[int], Crowd]) -> None:
    """And no more."""
    two = crowd(2)
    for name in ("a", "b", "c"):
        two.comes(name)
    assert two.order == ["a", "b"]


def test_alone_waits_for_every_lane_and_keeps_them(crowd: Callable[[int], Crowd]) -> None:
    """Whoever comes after it waits, though a lane is free, or it would wait for ever."""
    two = crowd(2)
    two.comes("a")
    two.comes("suspect", alone=True)
    two.comes("b")
    assert two.order == ["a"]
    two.leaves("a")
    two.until(lambda: two.order[1:] == ["suspect"])
    two.leaves("suspect")
    two.until(lambda: two.order[2:] == ["b"])


def test_a_scan_does_not_pass_a_person_who_must_be_alone(crowd: Callable[[int], Crowd]) -> None:
    """Though one of the lanes is free."""
    two = crowd(2)
    two.comes("a")
    two.comes("person", first=True, alone=True)
    two.comes("bulk")
    assert two.order == ["a"]
    two.leaves("a")
    two.until(lambda: two.order[1:] == ["person"])


@pytest.mark.parametrize(("hand_over_s", "has_begun"), [(SOON_S, True), (0.0, False)])
def test_who_leaves_waits_for_the_begin_of_the_next_one(hand_over_s: float, has_begun: bool) -> None:
    """Decoding would keep the interpreter from it, and the device idle. It does not wait for ever."""
    gate = PrioritySemaphore(1, hand_over_s)
    on_device, may_leave = threading.Event(), threading.Event()
    found: list[bool] = []

    def leaves() -> None:
        with gate.taken():
            on_device.set()
            may_leave.wait(SOON_S)
        found.append(turn.begun.is_set())

    thread = threading.Thread(target=leaves, daemon=True)
    thread.start()
    assert on_device.wait(SOON_S)
    turn = _Turn(1)
    gate._waiting[1].append(turn)

    def begins() -> None:
        if turn.came.wait(SOON_S):
            turn.begun.set()

    if has_begun:
        threading.Thread(target=begins, daemon=True).start()
    may_leave.set()
    thread.join(SOON_S)
    assert found == [has_begun]


def test_a_run_that_fails_gives_its_lane_back() -> None:
    """However it ends; in a thread, because a lane that is not given back is waited for without end."""
    gate = PrioritySemaphore(2)
    passed: list[bool] = []

    def runs() -> None:
        for alone in (False, True, True):
            with contextlib.suppress(RuntimeError), gate.taken(alone=alone):
                passed.append(alone)
                raise RuntimeError

    thread = threading.Thread(target=runs, daemon=True)
    thread.start()
    thread.join(SOON_S)
    assert passed == [False, True, True]
