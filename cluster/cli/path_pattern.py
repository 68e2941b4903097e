"""`PathPattern`: a pattern like `*/raw/**/*.jpg`, matched name by name while folders are looked through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch

_ANY_FOLDERS = "**"


@dataclass(frozen=True, slots=True)
class Step:
    """What a pattern says of one name in a folder.

    Attributes:
        states: how many parts of the pattern are matched afterwards, in each possible way; empty if neither
            the name nor anything below it can match.
        takes_file: whether a file of this name matches the pattern.
        is_spelled: whether a part of the pattern spells the beginning of the name, as `.hidden*` does. Such a
            name is wanted although it is hidden.
    """

    states: frozenset[int]
    takes_file: bool
    is_spelled: bool


class PathPattern:
    """Matches paths below a folder, part by part.

    `glob` of the standard library follows links in circles, and is silent about folders that it cannot read.

    Args:
        parts: the parts between the separators. `**` stands for any number of folders; the others are as for
            `fnmatch`.
    """

    def __init__(self, parts: Iterable[str]) -> None:
        self._parts = tuple(parts)
        self.start = self._with_no_folders({0})

    def is_whole(self, states: frozenset[int]) -> bool:
        """Whether a folder with these states matches the whole pattern."""
        return len(self._parts) in states

    def step(self, states: frozenset[int], name: str) -> Step:
        """Match one name in a folder that has these states."""
        parts = self._parts
        open_ = [number for number in states if number < len(parts)]
        stay = {number for number in open_ if parts[number] == _ANY_FOLDERS}
        matched = {number for number in open_ if number not in stay and fnmatch(name, parts[number])}
        return Step(
            self._with_no_folders(stay | {number + 1 for number in matched}),
            takes_file=len(parts) - 1 in matched,
            is_spelled=any(parts[number][0] not in "*?[" for number in matched),
        )

    def _with_no_folders(self, states: set[int]) -> frozenset[int]:
        """Add the states in which a `**` stands for no folder at all."""
        for number, part in enumerate(self._parts):
            if number in states and part == _ANY_FOLDERS:
                states.add(number + 1)
        return frozenset(states)
