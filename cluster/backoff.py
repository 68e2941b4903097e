"""Growing pauses between attempts. The backend's process uses it too, so it loads nothing of a node's."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Pauses between starts: doubled each time up to a limit, with jitter, forgotten after a good life.

    Attributes:
        first_s: the first pause.
        most_s: the longest one.
        good_life_s: a node that lived this long begins again with the first; one that cannot live, or finds
            no head, ends sooner.
        jitter: 0..1, so that machines that lost their head together do not all come back at once.
    """

    first_s: float = 1.0
    most_s: float = 30.0
    good_life_s: float = 20.0
    jitter: Callable[[], float] = random.random
    _next_s: float = field(default=0.0, init=False)

    def pause_s(self, lived_s: float) -> float:
        """How long to wait after a life of `lived_s` seconds: half of the step, and up to as much again."""
        if self._next_s == 0.0 or lived_s >= self.good_life_s:
            self._next_s = self.first_s
        step, self._next_s = self._next_s, min(self.most_s, self._next_s * 2)
        return step / 2 + self.jitter() * step / 2
