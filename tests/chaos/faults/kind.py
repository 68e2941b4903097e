"""What a fault by name is: how it is planted and mended, how long it lasts, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.site import Needs, Site


@dataclass
class Load:
    """The backends that ask while a fault is planted, and those that the fault itself adds.

    Attributes:
        site: the machines.
        files: the files of those that ask properly; the run judges every photo in them.
        seconds: how long they ask.
        problems: what a fault saw that must never happen.
        first: a number that no other photo has, nor the 899,999 after it, for the callers that a fault adds.
    """

    site: Site
    files: list[Path]
    seconds: float
    first: int
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FaultKind:
    """One fault that the suite can plant.

    Attributes:
        name: as a person names it with `--fault`.
        words: what is planted, for the table.
        plant: plants it; mended when the block ends.
        lasts_s: seconds between planting and mending.
        needs: what it needs of the machines.
    """

    name: str
    words: str
    plant: Callable[[Load], AbstractContextManager[None]]
    lasts_s: float = 15.0
    needs: Needs = field(default_factory=Needs)
