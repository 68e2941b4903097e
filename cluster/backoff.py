"""Growing pauses between attempts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Pauses between attempts: each is twice the last one, up to a limit; a good life resets them.

    Attributes:
        first_s: seconds of the first pause.
        most_s: seconds of the longest pause.
        good_life_s: what lived for this many seconds begins again with the first pause.
        jitter: returns 0..1, so that machines which lost their head together do not come back all at once.
    """

    first_s: float = 1.0
    most_s: float = 30.0
    good_life_s: float = 20.0
    jitter: Callable[[], float] = random.random
    _next_s: float = field(default=0.0, init=False)

    def pause_s(self, lived_s: float) -> float:
        """Seconds to wait after a life of `lived_s` seconds: half of the step, and up to another half."""
        if self._next_s == 0.0 or lived_s >= self.good_life_s:
            self._next_s = self.first_s
        step, self._next_s = self._next_s, min(self.most_s, self._next_s * 2)
        return step / 2 + self.jitter() * step / 2
