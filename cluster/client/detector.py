"""One detector as a client sees it: its health, its load, and what its answers mean for its circuit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actors.faces import Detected, Failed, Failure, Health, Outcome, Stamp, State
from cluster.client.circuit_breaker import CircuitBreaker
from cluster.client.status import DetectorStatus
from cluster.client.wire import Link
from cluster.errors import COUNTS_OF, Counts, Fault
from cluster.settings import CircuitSettings

#: A detector that was heard within this time is alive; a call that it does not answer counts against it.
_IS_HEARD_S = 6.0
#: On a slow link, photos that are under way hold up a report for some seconds.
_IS_UNHEARD_S = 10.0


class Detector:
    """One detector with its circuit.

    Args:
        name: the detector's name.
        settings: the settings of its circuit.
        now: the present, in seconds on the clock that every later call uses.
        on_open: called with the cause when its circuit was closed and opens.

    Attributes:
        circuit: its circuit breaker.
        link: the way to it, as this client measures it.
        health: what it last reported; None if it never answered.
        is_away: whether it left the last question unanswered.
        not_now: why it may not be asked now although it is well, as while the head is silent; else None.
        num_in_flight: images that this client has sent and that are not answered yet.
        num_of_others: images of other clients that it had at its last report.
        epoch: the newest epoch that was heard; answers of earlier epochs are refused.
        heard_at: when it answered last, on the caller's clock.
        last_error: the newest error, in words.
        misfit: why it must not be asked with this client's settings; None while it fits.
    """

    def __init__(
        self,
        name: str,
        settings: CircuitSettings,
        now: float,
        on_open: Callable[[Fault], None] = lambda cause: None,
    ) -> None:
        self.name = name
        self._settings = settings
        self.circuit = CircuitBreaker(settings, now, on_open=on_open)
        self.link = Link()
        self.health: Health | None = None
        self.is_away = False
        self.not_now: Fault | None = None
        self.num_in_flight = 0
        self.num_of_others = 0
        self.epoch = 0
        self.heard_at = now
        self.last_error = ""
        self.misfit: Fault | None = None
        self._ready_at = now
        #: Since when it may take `grace_s` to be ready: a new process begins anew, once.
        self._grace_from = now
        self._has_new_process = False
        self._was_ready = True

    @property
    def is_ready(self) -> bool:
        """Whether it would answer a call now, by its last report."""
        is_well = self.health is not None and self.health.state is State.READY
        return is_well and not self.is_away and self.not_now is None

    def is_unheard(self, now: float) -> bool:
        """Whether it is away, and has not answered anything for longer than a busy link explains."""
        return self.is_away and now - self.heard_at > _IS_UNHEARD_S

    @property
    def expected_ms(self) -> float:
        """How long it needs for the images that it has, and one more, by its own measurements."""
        buckets = self.health.buckets if self.health else ()
        per_image = min((each.run_ms / each.num_images for each in buckets), default=1.0)
        return (self.num_in_flight + self.num_of_others + 1) * per_image

    def status(self, now: float) -> DetectorStatus:
        """This detector as plain values."""
        view = self.circuit.view(now)
        state = "unknown" if self.health is None else str(self.health.state)
        speed = self.link.bytes_per_s
        return DetectorStatus(
            name=self.name,
            state="away" if self.is_away else str(State.WAITING) if self.not_now else state,
            circuit=str(view.state),
            reason=str(view.cause.failure) if view.cause else "",
            detail=view.cause.detail if view.cause else self.not_now.detail if self.not_now else "",
            since_s=round(view.since_s, 1),
            retry_after_s=round(view.retry_after_s, 1),
            num_calls=view.num_calls,
            num_failed=view.num_failed,
            num_slow=view.num_slow,
            num_opened=view.num_opened,
            num_in_flight=self.num_in_flight,
            last_error=self.last_error,
            wire=self.link.encoding,
            link_mbit_s=None if speed is None else round(speed * 8 / 1e6, 1),
        )

    def hear(self, now: float, health: Health, misfit: Fault | None = None) -> None:
        """Take in what the detector reports of itself; a report of an earlier owner is ignored.

        Args:
            now: the present.
            health: the report.
            misfit: why it must not be asked with this client's settings; None if it fits.
        """
        if health.stamp.epoch < self.epoch:
            return
        is_new = self.health is not None and self.health.stamp.incarnation != health.stamp.incarnation
        if is_new and not self._has_new_process:
            self._has_new_process, self._grace_from = True, now
        self.misfit = misfit
        self.health, self.is_away, self.epoch, self.heard_at = health, False, health.stamp.epoch, now
        self.not_now = None
        self.num_of_others = max(0, health.num_queued + health.num_running - self.num_in_flight)
        if health.state is State.READY:
            self._ready_at = self._grace_from = now
            self._has_new_process = False
        if misfit is not None:
            self._trip(now, misfit)
        elif health.state is State.READY:
            if not self._was_ready:
                # Only a detector that passed its self-test is READY, so the next probe need not wait.
                self.circuit.probe_soon(now)
        elif health.failure is not None and COUNTS_OF[health.failure] is Counts.TRIP:
            self._trip(now, Fault.of(health.failure, health.detail))
        elif health.state is State.WAITING:
            # It is well: no circuit opens, however long the head is silent.
            self.not_now = Fault.of(Failure.HEAD_SILENT, health.detail)
        elif now - self._grace_from > self._settings.grace_s:
            self._trip(now, Fault.of(health.failure or Failure.NOT_READY, self._not_ready(now, health)))
        self._was_ready = health.state is State.READY and misfit is None

    def _not_ready(self, now: float, health: Health) -> str:
        """For how long it has not been ready, in words; the present process may be a few seconds old."""
        waited_s = now - self._ready_at
        if health.uptime_s >= waited_s:
            return f"It has been {health.state} for {waited_s:.0f} s: {health.detail}."
        return (
            f"It has not been ready for {waited_s:.0f} s. Its process is {health.uptime_s:.0f} s old and "
            f"{health.state}: {health.detail}."
        )

    def silent(self, now: float, cause: Fault) -> None:
        """Take in that the detector did not report. After `grace_s` of silence its circuit opens."""
        self.is_away = True
        self._was_ready = False
        if self.not_now is not None:
            # After six times the lease its process ends: who waits for it goes on waiting for the next one.
            self.not_now = Fault.of(Failure.HEAD_SILENT, f"The head was silent for long. {cause.detail}")
        self.last_error = cause.detail
        if cause.counts is Counts.TRIP:
            # It has answered, and what it said does not pass by itself.
            return self._trip(now, cause)
        silent_s = now - self.heard_at
        if silent_s > self._settings.grace_s:
            detail = f"It has not been heard for {silent_s:.0f} s. {cause.detail}"
            self._trip(now, no_answer(Fault.of(cause.failure, detail)))
        return None

    def answered(self, now: float, outcomes: Sequence[Outcome], num_asked: int) -> list[Outcome]:
        """Judge an answer. Returns its outcomes; those of an earlier owner are replaced by failures."""
        if len(outcomes) != num_asked:
            detail = f"The detector gave {len(outcomes)} outcomes for {num_asked} images. Please report it."
            self.missed(now, Fault.of(Failure.INTERNAL, detail))
            stamp = outcomes[0].stamp if outcomes else Stamp(self.name)
            return [Failed(stamp=stamp, reason=Failure.INTERNAL, detail=detail)] * num_asked
        self.heard_at = now
        self._judge(now, outcomes)
        return self._refuse_late(outcomes)

    def missed(self, now: float, fault: Fault) -> None:
        """Judge a call that got no answer."""
        self.last_error = fault.detail
        counts = fault.counts
        if fault.failure is Failure.DEADLINE:
            # A detector that answers other questions is at fault here; a silent one is judged by `silent`.
            counts = Counts.CALL if now - self.heard_at < _IS_HEARD_S else Counts.NOTHING
        if counts is Counts.TRIP:
            self._trip(now, Fault.of(fault.failure, fault.detail))
        elif counts is Counts.CALL:
            self.circuit.record(now, Fault.of(fault.failure, fault.detail))

    def _judge(self, now: float, outcomes: Sequence[Outcome]) -> None:
        """Judge one call by most of its images; outcomes that say nothing about the device do not count."""
        answered = [each for each in outcomes if isinstance(each, Detected)]
        failed = [each for each in outcomes if isinstance(each, Failed)]
        if silent := [each for each in failed if each.reason is Failure.HEAD_SILENT]:
            self.not_now = Fault.of(Failure.HEAD_SILENT, silent[-1].detail)
            self._was_ready = False
        counted = [each for each in failed if COUNTS_OF[each.reason] is not Counts.NOTHING]
        if counted:
            self.last_error = counted[-1].detail
        for each in counted:
            if COUNTS_OF[each.reason] is Counts.TRIP:
                return self._trip(now, Fault.of(each.reason, each.detail))
        if counted and len(counted) >= len(answered):
            return self.circuit.record(now, Fault.of(counted[-1].reason, counted[-1].detail))
        if answered:
            self.not_now = None
            slowest_ms = max(each.times.run_ms for each in answered)
            self.circuit.record(now, slow=slowest_ms > self._settings.slow_run_s * 1000)
        return None

    def _refuse_late(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        self.epoch = max([self.epoch, *(outcome.stamp.epoch for outcome in outcomes)])
        return [
            outcome
            if outcome.stamp.epoch == self.epoch or not outcome.stamp.epoch
            else Failed(
                stamp=outcome.stamp,
                reason=Failure.DETECTOR_LOST,
                detail=f"{self.name} had a newer owner when this answer came; it was refused. Ask again.",
            )
            for outcome in outcomes
        ]

    def _trip(self, now: float, cause: Fault) -> None:
        self.last_error = cause.detail
        self.circuit.trip(now, cause)


def no_answer(cause: Fault) -> Fault:
    """DEADLINE becomes DETECTOR_LOST: that deadline was ours, not the caller's."""
    return Fault.of(Failure.DETECTOR_LOST, cause.detail) if cause.failure is Failure.DEADLINE else cause
