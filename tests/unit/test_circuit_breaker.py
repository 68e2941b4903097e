"""The circuit breaker: by example, and as a state machine that hypothesis drives."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.faces import Failure
from cluster.client.circuit_breaker import CircuitBreaker, CircuitState
from cluster.errors import Fault
from cluster.settings import CircuitSettings

BROKEN = Fault.of(Failure.DEVICE_FAILED, "The device failed.")
LYING = Fault.of(Failure.DEVICE_LIES, "The device lies.")
CLOSED, OPEN, HALF_OPEN = CircuitState


def made(**changes: float) -> CircuitBreaker:
    """A circuit without jitter, closed at 0 s."""
    return CircuitBreaker(CircuitSettings(jitter=0.0, **changes), 0.0)  # type: ignore[arg-type]  # plain numbers


def failing(circuit: CircuitBreaker, num_calls: int, now: float = 0.0) -> None:
    """Record that many failed calls at once."""
    for _ in range(num_calls):
        circuit.record(now, BROKEN)


def test_few_failures_open_nothing() -> None:
    """Few failures do not open the circuit, even if every call failed."""
    circuit = made(min_calls=10)
    failing(circuit, 9)
    assert circuit.state(0.0) is CLOSED


def test_it_opens_by_rate_with_the_reason() -> None:
    """The reason says how many calls failed, and out of how many."""
    circuit = made(min_calls=10, max_failure_rate=0.5)
    for _ in range(5):
        circuit.record(0.0)
    failing(circuit, 5)
    view = circuit.view(0.0)
    assert view.state is OPEN
    assert view.cause == Fault.of(Failure.DEVICE_FAILED, "5 of the last 10 calls failed: The device failed.")
    assert view.num_opened == 1


def test_old_failures_are_forgotten() -> None:
    """Failures from before the window say nothing about the present."""
    circuit = made(min_calls=10, window_s=30)
    failing(circuit, 9, now=0.0)
    failing(circuit, 9, now=31.0)
    assert circuit.state(31.0) is CLOSED
    assert circuit.view(31.0).num_failed == 9


def test_slow_calls_open_it() -> None:
    """The device answers every call, but much too late."""
    circuit = made(min_calls=4, max_slow_rate=0.75)
    for slow in (False, True, True, True):
        circuit.record(0.0, slow=slow)
    view = circuit.view(0.0)
    assert view.state is OPEN
    assert view.cause is not None
    assert "3 of the last 4 calls took longer than 5 s" in view.cause.detail


def test_a_failed_call_is_not_slow_as_well() -> None:
    """Otherwise one call would count twice."""
    circuit = made(min_calls=4, max_slow_rate=0.75)
    circuit.record(0.0)
    circuit.record(0.0, BROKEN, slow=True)
    for _ in range(2):
        circuit.record(0.0, slow=True)
    assert circuit.state(0.0) is CLOSED
    assert (circuit.view(0.0).num_failed, circuit.view(0.0).num_slow) == (1, 2)


def test_a_lasting_cause_opens_it_at_once() -> None:
    """The circuit opens without a single call."""
    circuit = made(open_s=2)
    circuit.trip(0.0, LYING)
    assert circuit.view(0.5).cause == LYING
    assert circuit.view(0.5).retry_after_s == 1.5


def test_probes_close_it() -> None:
    """One probe goes at a time, and the circuit closes after as many good ones as the settings ask for."""
    circuit = made(open_s=2, num_probes=2)
    circuit.trip(0.0, LYING)
    assert not circuit.take_probe(1.9)
    assert circuit.take_probe(2.0)
    assert not circuit.take_probe(2.1), "one is under way"
    circuit.probed(2.5)
    assert circuit.state(2.5) is HALF_OPEN
    assert circuit.take_probe(2.5)
    circuit.probed(3.0)
    assert circuit.state(3.0) is CLOSED
    assert circuit.view(3.0).cause is None


def test_each_failed_probe_doubles_the_wait() -> None:
    """The wait grows up to the longest one that the settings allow."""
    circuit = made(open_s=2, max_open_s=7)
    circuit.trip(0.0, LYING)
    now, waits = 0.0, []
    for _ in range(4):
        waits.append(circuit.view(now).retry_after_s)
        now += waits[-1]
        assert circuit.take_probe(now)
        circuit.probed(now, BROKEN)
    assert waits == [2, 4, 7, 7]
    assert circuit.view(now).cause == BROKEN
    assert circuit.num_opened == 1, "it never closed in between"


@pytest.mark.parametrize(("well_s", "next_wait_s"), [(5.0, 4.0), (31.0, 2.0)])
def test_one_that_fails_again_soon_waits_longer(well_s: float, next_wait_s: float) -> None:
    """Only a circuit that stayed closed for a whole window begins with the shortest wait again."""
    circuit = made(open_s=2, num_probes=1, window_s=30)
    circuit.trip(0.0, LYING)
    assert circuit.take_probe(2.0)
    circuit.probed(2.0)
    circuit.trip(2.0 + well_s, LYING)
    assert circuit.view(2.0 + well_s).retry_after_s == next_wait_s


def test_a_probe_without_news_is_given_up() -> None:
    """The caller with the probe may have died; the circuit must not wait for ever."""
    circuit = made(open_s=2, probe_timeout_s=15)
    circuit.trip(0.0, LYING)
    assert circuit.take_probe(2.0)
    assert not circuit.take_probe(16.9)
    assert circuit.take_probe(17.0)


def test_late_answers_count_for_nothing() -> None:
    """Calls that began before the circuit opened and end afterwards neither open nor close it."""
    circuit = made(open_s=2, num_probes=1, min_calls=1)
    circuit.trip(0.0, LYING)
    failing(circuit, 50, now=1.0)
    circuit.record(2.5)
    assert circuit.state(2.5) is HALF_OPEN
    assert circuit.view(2.5).num_calls == 0


def test_reset_closes_it() -> None:
    """After a reset, the result of a probe that was under way is ignored."""
    circuit = made(open_s=2)
    circuit.trip(0.0, LYING)
    assert circuit.take_probe(2.0)
    circuit.reset(2.1)
    circuit.probed(2.2, BROKEN)
    assert circuit.state(2.2) is CLOSED
    circuit.trip(3.0, LYING)
    assert circuit.view(3.0).retry_after_s == 2, "the back-off is forgotten as well"


def test_a_reason_to_believe_shortens_the_wait_and_closes_nothing() -> None:
    """The detector reports itself well: a probe may go at once, and a closed circuit stays closed."""
    circuit = made(open_s=60)
    circuit.probe_soon(0.0)
    assert circuit.state(0.0) is CLOSED
    circuit.trip(0.0, LYING)
    circuit.probe_soon(1.0)
    assert circuit.state(1.0) is HALF_OPEN
    assert circuit.view(1.0).cause == LYING
    circuit.probe_soon(5.0)
    assert circuit.view(5.0).since_s == 4.0


def test_jitter_only_shortens() -> None:
    """Clients do not probe together, and no wait exceeds the longest."""
    circuit = CircuitBreaker(CircuitSettings(open_s=2, jitter=0.5), 0.0, chance=lambda: 0.5)
    circuit.trip(0.0, LYING)
    assert circuit.view(0.0).retry_after_s == 1.5


SETTINGS = CircuitSettings(
    window_s=10, min_calls=4, max_failure_rate=0.5, max_slow_rate=0.75,
    open_s=1, max_open_s=8, jitter=0.25, num_probes=2, probe_timeout_s=5,
)  # fmt: skip


class CircuitMachine(RuleBasedStateMachine):
    """Events come in any order; the model is a plain list of what was recorded since the last change."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.chance = 0.0
        self.circuit = CircuitBreaker(SETTINGS, 0.0, lambda: self.chance)
        self.calls: list[tuple[float, bool, bool]] = []
        self.opened_at = 0.0
        self.good_probes = 0
        self.probe_since: float | None = None

    def changed(self, before: CircuitState) -> None:
        """Check the state after an event that may have opened or closed the circuit."""
        after = self.circuit.state(self.now)
        if after is CircuitState.OPEN and before is not CircuitState.OPEN:
            self.opened_at, self.good_probes, self.probe_since, self.calls = self.now, 0, None, []

    @rule(seconds=st.floats(0, 20), chance=st.floats(0, 0.99))
    def time_passes(self, seconds: float, chance: float) -> None:
        """Time alone turns open into half-open, and changes nothing else."""
        before = self.circuit.state(self.now)
        self.now, self.chance = self.now + seconds, chance
        after = self.circuit.state(self.now)
        assert after is before or (before, after) == (OPEN, HALF_OPEN)

    @rule(failed=st.booleans(), slow=st.booleans(), times=st.integers(1, 6))
    def calls_end(self, failed: bool, slow: bool, times: int) -> None:
        """The circuit opens exactly when the list says so, and only from closed."""
        for _ in range(times):
            before = self.circuit.state(self.now)
            self.circuit.record(self.now, BROKEN if failed else None, slow=slow)
            if before is not CLOSED:
                assert self.circuit.state(self.now) is before
                continue
            self.calls.append((self.now, failed, slow and not failed))
            recent = [call for call in self.calls if call[0] > self.now - SETTINGS.window_s]
            num_failed, num_slow = sum(c[1] for c in recent), sum(c[2] for c in recent)
            due = len(recent) >= 4 and (num_failed >= len(recent) / 2 or num_slow >= len(recent) * 3 / 4)
            assert self.circuit.state(self.now) is (OPEN if due else CLOSED)
            self.changed(before)

    @rule()
    def lasting_cause(self) -> None:
        """A closed circuit opens; any other only takes the newer cause."""
        before = self.circuit.state(self.now)
        self.circuit.trip(self.now, LYING)
        assert self.circuit.state(self.now) is (OPEN if before is CLOSED else before)
        assert self.circuit.view(self.now).cause == LYING
        self.changed(before)

    @rule()
    def probe_is_taken(self) -> None:
        """A probe goes only in half-open, one at a time, and a lost one does not block the next for ever."""
        free = self.probe_since is None or self.now - self.probe_since >= SETTINGS.probe_timeout_s
        due = self.circuit.state(self.now) is HALF_OPEN and free
        # At the very moment of the time-out rounding may decide either way.
        edge = self.probe_since is not None and abs(self.now - self.probe_since - 5) < 1e-6
        taken = self.circuit.take_probe(self.now)
        assert edge or taken == due
        if taken:
            self.probe_since = self.now

    @precondition(lambda self: self.probe_since is not None)
    @rule(good=st.booleans())
    def probe_ends(self, good: bool) -> None:
        """Enough good probes in a row close the circuit; a bad one opens it."""
        before = self.circuit.state(self.now)
        self.circuit.probed(self.now, None if good else BROKEN)
        self.probe_since = None
        self.good_probes += good
        if not good:
            assert self.circuit.state(self.now) is OPEN
        else:
            closed = self.good_probes >= SETTINGS.num_probes
            assert self.circuit.state(self.now) is (CLOSED if closed else HALF_OPEN)
            if closed:
                self.calls, self.good_probes = [], 0
        self.changed(before)

    @rule()
    def reason_to_believe_in_it(self) -> None:
        """Open becomes half-open; this lets no call through."""
        before = self.circuit.state(self.now)
        self.circuit.probe_soon(self.now)
        assert self.circuit.state(self.now) is (CLOSED if before is CLOSED else HALF_OPEN)
        self.probe_since = None

    @rule()
    def reset(self) -> None:
        """The circuit is always closed afterwards."""
        self.circuit.reset(self.now)
        assert self.circuit.state(self.now) is CLOSED
        self.calls, self.good_probes, self.probe_since = [], 0, None

    @invariant()
    def says_why(self) -> None:
        """A circuit that is not closed has a cause; a closed one has none."""
        view = self.circuit.view(self.now)
        assert (view.cause is None) == (view.state is CLOSED)

    @invariant()
    def never_open_for_long(self) -> None:
        """An open circuit becomes half-open without help, within the longest time."""
        if self.circuit.state(self.now) is OPEN:
            assert self.now - self.opened_at < SETTINGS.max_open_s
        assert self.circuit.view(self.now).retry_after_s <= SETTINGS.max_open_s


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
