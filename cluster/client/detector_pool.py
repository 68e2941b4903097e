"""The detectors of a cluster, one for each lent device: finds, watches and judges them, and chooses one.

When a machine leaves, its detector waits in Ray until a device comes back. Meanwhile the pool does not choose
it; afterwards it does again, and nobody has to do anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial

from actors.call_settings import CallSettings
from actors.encoded_image import SentImage
from actors.faces import Failure, Health, Outcome, Priority, State
from cluster.background import repeat_async
from cluster.client.circuit_breaker import CircuitState
from cluster.client.detector import Detector, no_answer
from cluster.client.first_report import first_report
from cluster.client.fitting import Fitting, as_known_now, has_other_settings
from cluster.client.patience import Patience
from cluster.connection.cluster_api import ClusterApi
from cluster.errors import Counts, DetectorNotReady, Fault, NotAnswered, Refused
from cluster.settings import CircuitSettings
from cluster.telemetry.rate_limit import rate_limited_log

#: How often each detector is asked how it is, and new devices are looked for.
_LOOK_EVERY_S = 2.0
#: How long a report may take; a detector that takes longer is not chosen while there are others.
_ANSWER_WITHIN_S = 5.0
#: A detector that is away, or waits for the head, is looked at as often as this: it goes on at any moment.
_LOOK_AGAIN_EVERY_S = 0.5
_LOOK_AGAIN_WITHIN_S = 2.0
#: An answer that the detector gives just in time still has to travel.
_GRACE_S = 0.5


class DetectorPool:
    """All detectors of the cluster.

    Args:
        cluster: asked for its detectors.
        settings: the settings of every detector's circuit.
        log: told of every circuit that opens or closes.
        clock: seconds; None takes the event loop's.
        only_look: whether to list the detectors only, and to place none where one is missing.
        fitting: judges detectors by the settings that they were placed with; None takes any.
        on_circuit_open: called with the detector's name and the cause when a circuit opens.

    Attributes:
        detectors: the detectors by name.
        refused_since: since when no detector may be asked, on the pool's clock; None while one may. Noted at
            the end of each call, look and probe.
    """

    def __init__(
        self,
        cluster: ClusterApi,
        settings: CircuitSettings,
        log: logging.Logger | None = None,
        clock: Callable[[], float] | None = None,
        *,
        only_look: bool = False,
        fitting: Fitting | None = None,
        on_circuit_open: Callable[[str, Fault], None] = lambda detector, cause: None,
    ) -> None:
        self._cluster = cluster
        self._find = cluster.list_detectors if only_look else cluster.place_detectors
        self._settings = settings
        self._fitting = fitting
        self._on_circuit_open = on_circuit_open
        self._log = log or rate_limited_log("rayface.client")
        self._clock = clock or asyncio.get_running_loop().time
        self._begun = self._clock()
        self._no_detector: Fault | None = None
        self._changed = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._shown: dict[str, CircuitState] = {}
        self.detectors: dict[str, Detector] = {}
        self.refused_since: float | None = None

    async def start(self, timeout_s: float) -> None:
        """Find the detectors, and wait until one is ready.

        Args:
            timeout_s: how long that may take; a detector fetches its model at its first start.

        Raises:
            DetectorNotReady: no detector is ready; says why.
        """
        try:
            await self._update(timeout_s)
        except NotAnswered as error:
            raise DetectorNotReady(str(error), error.fault.failure) from error
        asking = {
            asyncio.create_task(first_report(self, each, timeout_s)) for each in self.detectors.values()
        }
        try:
            faults: list[DetectorNotReady] = []
            for answer in asyncio.as_completed(asking):
                try:
                    await answer
                except DetectorNotReady as fault:
                    faults.append(fault)
                    continue
                break
            else:
                raise faults[0]
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    def watch(self) -> None:
        """Look after the detectors from now on, every few seconds."""
        watches = (
            (self.look, "Watching the detectors", _LOOK_EVERY_S),
            (self.look_again, "Waiting for a detector to go on", _LOOK_AGAIN_EVERY_S),
        )
        for step, name, every_s in watches:
            watch = repeat_async(
                step,
                name=name,
                log=self._log,
                every_s=every_s,
                # A cluster that is away is no news: the watch waits until it is back.
                expected=(NotAnswered, DetectorNotReady),
            )
            self._watching.append(asyncio.create_task(watch))

    async def close(self) -> None:
        """End the watch and every probe."""
        tasks = [*self._probes.values(), *self._watching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def known_health(self) -> Health | None:
        """The health of any detector that has reported and fits; all of these take the same tensors."""
        return next(
            (each.health for each in self.detectors.values() if each.health and each.misfit is None), None
        )

    async def changed(self, timeout_s: float) -> None:
        """Wait until a circuit opens or closes, a detector is found, or the time is up."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)

    def refusal(self) -> Refused | None:
        """Why no detector may be asked now; None if one may, or if it is too early to say."""
        now = self._clock()
        if closed := self._closed(now):
            causes = [each.not_now for each in closed]
            cause = causes[0]
            return None if cause is None or None in causes else Refused(cause, _LOOK_AGAIN_EVERY_S)
        if self.detectors:
            views = [each.circuit.view(now) for each in self.detectors.values()]
            first = min(views, key=lambda view: view.retry_after_s)
            if first.cause is not None:
                return Refused(first.cause, max(1.0, first.retry_after_s))
        cause = self._why_nobody()
        is_early = now - self._begun < self._settings.grace_s and cause.counts is not Counts.TRIP
        return None if is_early else Refused(cause, 10.0)

    def _why_nobody(self) -> Fault:
        """Why there is no detector to ask; what does not pass by itself keeps its own name."""
        found = self._no_detector or Fault.of(Failure.NO_CLUSTER, self._cluster.why_not)
        return found if found.counts is Counts.TRIP else Fault.of(Failure.NO_CLUSTER, found.detail)

    def absence(self) -> Refused | None:
        """Why it is better to wait than to ask now: no detector may be asked, or none was heard for a while.

        A call to a detector that is away would use up its deadline on the way. None if one may be asked.
        """
        now = self._clock()
        open_to_calls = [each for each in self._closed(now) if each.not_now is None]
        if not open_to_calls or not all(each.is_unheard(now) for each in open_to_calls):
            return self.refusal()
        detail = f"{open_to_calls[0].name} is not heard. {open_to_calls[0].last_error}"
        return Refused(no_answer(Fault.of(Failure.DETECTOR_LOST, detail)), _LOOK_EVERY_S)

    async def choose(self, until: float, patience: Patience, begun: float = math.inf) -> Detector:
        """Choose the detector that would answer soonest, of those that may be asked.

        Args:
            until: when to give up, on the pool's clock.
            patience: what to wait for until then, instead of raising `Refused` at once.
            begun: when the call began, on the pool's clock; infinity for now. Who waits already when the last
                detector is given up for its silence goes on waiting; who comes later is refused, as
                `patience` says.

        Raises:
            Refused: no detector may be asked; says why.
        """
        while True:
            now = self._clock()
            closed = [each for each in self._closed(now) if each.not_now is None]
            if closed:
                best = [each for each in closed if each.is_ready] or closed
                return best[0] if len(best) == 1 else min(best, key=lambda each: each.expected_ms)
            refusal = self.refusal()
            if refusal is not None and not self._waits_for(refusal.fault, patience, begun):
                raise refusal
            if now >= until:
                raise refusal or Refused(self._why_nobody(), 5.0)
            await self.changed(min(1.0, until - now))

    async def ask(
        self,
        detector: Detector,
        images: Sequence[SentImage],
        priority: Priority,
        until: float,
        trace: str = "",
        settings: CallSettings | None = None,
    ) -> Sequence[Outcome]:
        """Ask a detector for the outcomes of images, and judge the detector by its answer.

        Args:
            detector: the detector to ask.
            images: prepared images.
            priority: the call's priority.
            until: when an answer is of no use any more, on the pool's clock.
            trace: the caller's span in OpenTelemetry; empty where nobody traces the call.
            settings: of the call; None takes those of the detector.

        Raises:
            NotAnswered: the detector gave no answer; says why.
        """
        left_s = max(0.0, until - self._clock())
        detector.num_in_flight += len(images)
        try:
            outcomes = await self._cluster.detect(
                detector.name, images, priority, left_s, trace, settings, timeout_s=left_s + _GRACE_S
            )
        except NotAnswered as error:
            detector.missed(self._clock(), error.fault)
            raise
        else:
            if has_other_settings(outcomes):
                # It was placed anew since it was heard last.
                await self._look_at(detector)
                outcomes = as_known_now(outcomes, detector.misfit)
            return detector.answered(self._clock(), outcomes, len(images))
        finally:
            detector.num_in_flight -= len(images)
            self._note_changes()

    async def look(self) -> None:
        """Look after the detectors once: find new ones, ask each for its health, send what probes are due.

        Raises:
            Exception: an unforeseen error, after everything else was done.
        """
        try:
            await self._update(_ANSWER_WITHIN_S)
            self._no_detector = None
        except NotAnswered as error:
            self._no_detector = error.fault
        looks = [self._look_at(each) for each in self.detectors.values()]
        ended = await asyncio.gather(*looks, return_exceptions=True)
        self._send_probes()
        self._note_changes()
        if unforeseen := next((each for each in ended if each is not None), None):
            # Raised at the end, so that an error with one detector costs the others no probe.
            raise unforeseen

    async def look_again(self) -> None:
        """Look once after the detectors that may be asked again at any moment; send what probes are due."""
        waiting = [each for each in self.detectors.values() if each.is_away or each.not_now is not None]
        await asyncio.gather(*(self._look_at(each, _LOOK_AGAIN_WITHIN_S) for each in waiting))
        self._send_probes()
        self._note_changes()

    def reset(self, name: str | None = None) -> None:
        """Close every circuit, or the one of a detector, because a person says so."""
        for each in self.detectors.values():
            if name in (None, each.name):
                each.circuit.reset(self._clock())
        self._note_changes()

    async def health(self, name: str, wait_s: float, timeout_s: float) -> Health:
        """Ask a detector for its health.

        Args:
            name: the detector.
            wait_s: how long the detector may wait for its own start to end, before it answers.
            timeout_s: how long the answer may take.

        Raises:
            DetectorNotReady: it did not answer in time.
        """
        try:
            return await self._cluster.health(name, wait_s, timeout_s=timeout_s)
        except NotAnswered as error:
            fault = error.fault
            said = "" if fault.failure is Failure.VERSION_SKEW else "The detector does not answer. "
            raise DetectorNotReady(said + fault.detail, fault.failure) from error

    async def _update(self, timeout_s: float) -> None:
        names = await self._find(timeout_s=timeout_s)
        for name in names:
            if name not in self.detectors:
                self.detectors[name] = Detector(
                    name, self._settings, self._clock(), partial(self._on_circuit_open, name)
                )
                self._changed.set()
        for name in set(self.detectors) - set(names):
            # It belonged to the cluster that was here before, or was removed.
            del self.detectors[name]

    def _waits_for(self, fault: Fault, patience: Patience, begun: float) -> bool:
        """Whether a call of that patience waits while no detector may be asked, for this reason."""
        if patience is not Patience.NOT_NOW:
            return patience is Patience.ANYTHING
        is_new = self.refused_since is not None and self.refused_since > begun
        return fault.failure is Failure.HEAD_SILENT or (is_new and fault.counts is not Counts.TRIP)

    def _send_probes(self) -> None:
        """Send each detector the probe that is due."""
        for each in self.detectors.values():
            if each.circuit.take_probe(self._clock()):
                if (given_up := self._probes.get(each.name)) is not None:
                    given_up.cancel()
                task = asyncio.create_task(self._probe(each))
                self._probes[each.name] = task
                task.add_done_callback(partial(self._probed, each.name))

    def _closed(self, now: float) -> list[Detector]:
        """The detectors whose circuit is closed."""
        return [each for each in self.detectors.values() if each.circuit.state(now) is CircuitState.CLOSED]

    async def _look_at(self, detector: Detector, within_s: float = _ANSWER_WITHIN_S) -> None:
        asked = self._clock()
        try:
            health = await self.health(detector.name, 0.0, within_s)
        except DetectorNotReady as error:
            detector.silent(self._clock(), Fault.of(error.failure, str(error)))
        else:
            detector.link.answered_without_photos(self._clock() - asked)
            self.hear(detector, health)

    async def _probe(self, detector: Detector) -> None:
        """Let the detector detect the golden photo; a person's photo is no probe."""
        wait_s = self._settings.probe_timeout_s
        cause: Fault | None = None
        try:
            health = await self._cluster.self_test(detector.name, wait_s - 1.0, timeout_s=wait_s)
        except NotAnswered as error:
            cause = no_answer(
                Fault.of(error.fault.failure, f"The detector does not answer. {error.fault.detail}")
            )
        except Exception as error:
            self._log.exception("A probe of %s failed with an error that was not foreseen.", detector.name)
            cause = Fault.of(Failure.INTERNAL, f"The probe failed in an unforeseen way: {error!r}.")
        else:
            self.hear(detector, health)
            if detector.misfit is not None:
                cause = detector.misfit
            elif health.state is not State.READY:
                cause = Fault.of(health.failure or Failure.NOT_READY, health.detail)
        detector.circuit.probed(self._clock(), cause)
        self._note_changes()

    def _probed(self, name: str, task: asyncio.Task[None]) -> None:
        if self._probes.get(name) is task:
            del self._probes[name]

    def hear(self, detector: Detector, health: Health) -> None:
        """Take in what a detector reports, and whether it fits this client."""
        others = [each.health for each in self.detectors.values() if each.health and each is not detector]
        misfit = self._fitting.judged(health, others) if self._fitting is not None else None
        detector.hear(self._clock(), health, misfit)

    def _note_changes(self) -> None:
        """Log every circuit that has changed, and note since when no detector may be asked."""
        now = self._clock()
        since = None if self.refusal() is None else now if self.refused_since is None else self.refused_since
        if (since is None) is not (self.refused_since is None):
            self._changed.set()
        self.refused_since = since
        for each in self.detectors.values():
            state = each.circuit.state(now)
            before, self._shown[each.name] = self._shown.get(each.name, CircuitState.CLOSED), state
            if before is state:
                continue
            view = each.circuit.view(now)
            self._changed.set()
            about = {"about": each.name}
            if view.state is CircuitState.CLOSED:
                self._log.info("The circuit of %s is closed again.", each.name, extra=about)
            elif before is CircuitState.CLOSED and view.cause is not None:
                why = (view.cause.failure, view.cause.detail)
                self._log.warning("The circuit of %s is open (%s): %s", each.name, *why, extra=about)
