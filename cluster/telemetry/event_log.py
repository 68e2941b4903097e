"""The detector's log: one line for each event, for `ray logs` and the dashboard, with facts as name=value.

It holds no secrets, and of photos only their number: no content, no file names.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from actors.faces import Failed, Health, Outcome, Priority, Rejected
from actors.observer import Observer
from cluster.telemetry.rate_limit import RateLimitFilter

_SUMMARY_EVERY_S = 60.0


class DetectorLog(Observer):
    """Writes to standard error, which Ray keeps as the actor's own file in its logs.

    Args:
        name: name of the detector.
        incarnation: name of this life of the process; both names are in every line.
        clock: returns seconds, for durations.
        log: where lines go; None takes `process_log()`.
    """

    def __init__(
        self,
        name: str,
        incarnation: str,
        clock: Callable[[], float],
        log: logging.Logger | None = None,
    ) -> None:
        self._who = {"detector": name, "incarnation": incarnation}
        self._clock = clock
        self._log = log or process_log()
        self._outcomes: Counter[str] = Counter()
        self._summed_at = clock()
        self._busy_s = 0.0

    def images(self, outcomes: Sequence[Outcome], priority: Priority) -> None:
        for outcome in outcomes:
            reason = f"_{outcome.reason}" if isinstance(outcome, Rejected | Failed) else ""
            self._outcomes[f"{outcome.status}{reason}"] += 1

    def event(self, name: str, **facts: object) -> None:
        self._write(logging.INFO, name, facts)

    def trouble(self, name: str, **facts: object) -> None:
        self._write(logging.WARNING, name, facts)

    def report(self, health: Health) -> None:
        """Write what was done, at most once a minute, and only if something was."""
        now = self._clock()
        if now - self._summed_at < _SUMMARY_EVERY_S:
            return
        seconds, self._summed_at = now - self._summed_at, now
        outcomes, self._outcomes = self._outcomes, Counter()
        busy, self._busy_s = health.busy_s - self._busy_s, health.busy_s
        if outcomes:
            facts = {
                "num_images": outcomes.total(),
                **outcomes,
                "busy": f"{busy / seconds / health.num_lanes:.2f}",
                "num_queued": health.num_queued,
                "seconds": f"{seconds:.0f}",
            }
            self._write(logging.INFO, "answered", facts)

    def _write(self, level: int, name: str, facts: dict[str, object]) -> None:
        # Events of the same name and reason are rate-limited together.
        about = {"about": (name, str(facts.get("reason", "")))}
        self._log.log(level, "%s", line(name, {**self._who, **facts}), extra=about)


def line(event: str, facts: dict[str, object]) -> str:
    """A line such as "event=ready detector=FaceDetector"; a value with blanks or quotes is a JSON string."""
    return " ".join(f"{name}={_value(value)}" for name, value in {"event": event, **facts}.items())


def _value(value: object) -> str:
    text = str(value)
    plain = text and not any(character.isspace() or character in '"=' for character in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def process_log() -> logging.Logger:
    """The rate-limited log of a detector's process; it writes to standard error."""
    log = logging.getLogger("rayface.detector")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.addFilter(RateLimitFilter())
        log.setLevel(logging.INFO)
        log.propagate = False
    return log
