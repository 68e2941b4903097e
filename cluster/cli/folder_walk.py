"""Looks through a folder for photos. Links are followed, and what cannot be looked at is given too."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from actors.faces import Rejected, Rejection, Stamp
from actors.images import IMAGE_SUFFIXES
from cluster.cli.path_pattern import PathPattern
from cluster.cli.printable import printable

#: Hidden files and folders, and folders in which programs keep thumbnails or deleted files. The name decides.
_HIDDEN = (".*", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN")


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo to look at.

    Attributes:
        path: the exact path; bytes that are no Unicode are lone surrogates, as Python reads them.
        inside: its path below the folder that was named, or its bare name if no folder was named.
    """

    path: str
    inside: str


@dataclass(frozen=True, slots=True)
class NotLookedAt:
    """A folder, a pattern or a file that was asked for and that nobody can look at.

    Attributes:
        path: the folder, the pattern or the file.
        outcome: why, as the outcome of its own row.
    """

    path: str
    outcome: Rejected

    @classmethod
    def because(cls, path: str, reason: Rejection, detail: str) -> NotLookedAt:
        """With an outcome that was decided here, without any detector."""
        return cls(path, Rejected(stamp=Stamp("client"), reason=reason, detail=detail))


@dataclass(frozen=True, slots=True)
class Rules:
    """Which names are left out on purpose.

    Attributes:
        exclude: patterns for a name, or for a path below the folder that was named.
        include_hidden: whether hidden files and folders are looked at too.
    """

    exclude: tuple[str, ...] = ()
    include_hidden: bool = False

    def excludes(self, name: str, inside: str) -> bool:
        """Whether a person excluded this name, or this path below the folder that was named."""
        return any(
            fnmatch(name, pattern) or fnmatch(inside, pattern)
            for pattern in (each.rstrip("/") for each in self.exclude)
        )

    def hides(self, name: str) -> bool:
        """Whether it is the name of something hidden, and hidden things are left out."""
        return not self.include_hidden and any(fnmatch(name, each) for each in _HIDDEN)


@dataclass(slots=True)
class LeftOut:
    """What was left out on purpose; it is said, but has no outcome.

    Attributes:
        num_hidden: hidden photos and folders. What is in such a folder is not counted.
        first_hidden: the path of the first of them.
        num_excluded: files and folders that `--exclude` matches.
        num_not_pictures: files whose names do not end as a photo's.
        num_again: folders that a link led to and that were looked through already.
        first_again: the path of the first of them.
    """

    num_hidden: int = 0
    first_hidden: str = ""
    num_excluded: int = 0
    num_not_pictures: int = 0
    num_again: int = 0
    first_again: str = ""

    def sentences(self) -> Iterator[str]:
        """What a person should know, in sentences."""
        if self.num_hidden:
            yield (
                f"{_counted(self.num_hidden, 'hidden file or folder was', 'hidden files and folders were')} "
                f"left out (first: {printable(self.first_hidden)}). --include-hidden takes hidden ones too."
            )
        if self.num_excluded:
            yield (
                f"{_counted(self.num_excluded, 'file or folder was', 'files and folders were')} left out "
                "by --exclude."
            )
        if self.num_not_pictures:
            yield (
                f"{self.num_not_pictures:,} files were not pictures by their names."
                if self.num_not_pictures != 1
                else "1 file was not a picture by its name."
            )
        if self.num_again:
            yield (
                f"{_counted(self.num_again, 'link leads', 'links lead')} to a folder that is looked through "
                f"already (first: {printable(self.first_again)}). Each folder is looked through once."
            )


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to look through.

    Attributes:
        path: its path.
        inside: its path below the folder that was named, with "/" between the names; "" for that one.
        root: `Photo.inside` is the path below this folder.
        states: how far the pattern has matched; None where every photo is wanted.
    """

    path: str
    inside: str
    root: str
    states: frozenset[int] | None


def walk(
    folder: str, rules: Rules, left_out: LeftOut, pattern: PathPattern | None = None
) -> Iterator[Photo | NotLookedAt]:
    """Yield the photos of a folder and of the folders below it: a folder's own photos first, sorted by name.

    Folders behind links come last, so that a photo has its name without links where there is one. A folder is
    looked through once, whatever leads to it.

    Args:
        folder: where to begin.
        rules: which names are left out.
        left_out: is told what is left out.
        pattern: what must match below the folder. A file that matches is taken whatever its suffix, and of a
            folder that matches, every photo. None takes every photo.
    """
    states = pattern.start if pattern and not pattern.is_whole(pattern.start) else None
    todo, links = [_Folder(folder, "", folder, states)], deque[_Folder]()
    seen: set[tuple[object, ...]] = set()
    is_behind_link = False
    while todo or links:
        if not todo:
            todo.append(links.popleft())
            is_behind_link = True
        here = todo.pop()
        try:
            identity = _identity(here)
            if is_behind_link and identity in seen:
                left_out.num_again += 1
                left_out.first_again = left_out.first_again or here.path
                continue
            seen.add(identity)
            with os.scandir(here.path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield NotLookedAt.because(
                here.path,
                Rejection.UNREADABLE,
                f"The folder cannot be read: {error.strerror}. Nobody looked for photos in it.",
            )
            continue
        below: list[_Folder] = []
        for entry in entries:
            inside = f"{here.inside}/{entry.name}" if here.inside else entry.name
            step = pattern.step(here.states, entry.name) if pattern and here.states is not None else None
            if step is not None and not step.states:
                continue
            if rules.excludes(entry.name, inside):
                left_out.num_excluded += 1
                continue
            is_hidden = rules.hides(entry.name) and not (step is not None and step.is_spelled)
            try:
                is_folder = entry.is_dir()
                leads_nowhere = entry.is_symlink() and not is_folder and not os.path.exists(entry.path)
            except OSError:
                # For example a link to itself, or to a place that this user may not enter.
                is_folder, leads_nowhere = False, True
            is_named = step is not None and step.takes_file
            is_picture = _is_picture(entry.name) if step is None else is_named
            if not is_folder and not is_picture and not leads_nowhere:
                left_out.num_not_pictures += step is None
            elif is_hidden:
                left_out.num_hidden += 1
                left_out.first_hidden = left_out.first_hidden or entry.path
            elif is_folder:
                whole = step is not None and pattern is not None and pattern.is_whole(step.states)
                child = _Folder(
                    entry.path,
                    inside,
                    entry.path if whole else here.root,
                    None if step is None or whole else step.states,
                )
                (links if entry.is_symlink() else below).append(child)
            elif is_picture:
                yield Photo(entry.path, entry.name if is_named else os.path.relpath(entry.path, here.root))
            else:
                yield NotLookedAt.because(
                    entry.path,
                    Rejection.UNREADABLE,
                    "The link leads nowhere. Perhaps it leads to a folder of a drive that is not connected.",
                )
        todo.extend(reversed(below))


def _identity(folder: _Folder) -> tuple[object, ...]:
    """The same for two ways to one folder, as far as the same of it is wanted.

    Raises:
        OSError: the folder cannot be asked.
    """
    found = os.stat(folder.path)
    # Some file systems number nothing.
    place = (found.st_dev, found.st_ino) if found.st_ino else (os.path.realpath(folder.path),)
    return (*place, folder.states)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _counted(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
