"""Looks through a folder for photos. Links are followed, and what cannot be looked at is given too."""

from __future__ import annotations

import os
import stat
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
        exclude: patterns for a name, for a path below the folder that was named, or for a whole path.
        include_hidden: whether hidden files and folders are looked at too.
    """

    exclude: tuple[str, ...] = ()
    include_hidden: bool = False

    def excludes(self, name: str, inside: str, path: str) -> bool:
        """Whether a person excluded this name, this path below the folder that was named, or this path."""
        if not self.exclude:
            return False
        whole = os.path.normpath(path)
        return any(
            fnmatch(name, pattern) or fnmatch(inside, pattern) or fnmatch(whole, os.path.normpath(pattern))
            for pattern in (each.rstrip("/") for each in self.exclude if each)
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
        is_link: whether it is a link to a folder.
    """

    path: str
    inside: str
    root: str
    states: frozenset[int] | None
    is_link: bool = False


class FolderWalk:
    """Yields the photos of a folder and of the folders below it: a folder's own photos first, sorted by name.

    Folders behind links come last, so that a photo has its name without links where there is one. A folder is
    looked through once, whatever leads to it.

    Args:
        folder: where to begin.
        rules: which names are left out.
        left_out: is told what is left out.
        pattern: what must match below the folder. A file that matches is taken whatever its suffix, and of a
            folder that matches, every photo. None takes every photo.
    """

    def __init__(
        self, folder: str, rules: Rules, left_out: LeftOut, pattern: PathPattern | None = None
    ) -> None:
        states = pattern.start if pattern and not pattern.is_whole(pattern.start) else None
        self._first = _Folder(folder, "", folder, states)
        self._rules = rules
        self._left_out = left_out
        self._pattern = pattern

    def __iter__(self) -> Iterator[Photo | NotLookedAt]:
        todo, links = [self._first], deque[_Folder]()
        seen: set[tuple[object, ...]] = set()
        is_behind_link = False
        while todo or links:
            if not todo:
                todo.append(links.popleft())
                is_behind_link = True
            here = todo.pop()
            try:
                identity = _identity(here)
                # Without a link on the way there is one way only to each folder, so none is met twice.
                if is_behind_link and identity in seen:
                    self._left_out.num_again += 1
                    self._left_out.first_again = self._left_out.first_again or here.path
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
                wanted = self._wanted(entry, here)
                if isinstance(wanted, _Folder):
                    (links if wanted.is_link else below).append(wanted)
                elif wanted is not None:
                    yield wanted
            todo.extend(reversed(below))

    def _wanted(self, entry: os.DirEntry[str], here: _Folder) -> Photo | NotLookedAt | _Folder | None:
        """What is to be done with an entry of a folder; None where nothing is, and then it is counted."""
        inside = f"{here.inside}/{entry.name}" if here.inside else entry.name
        step = None
        if self._pattern is not None and here.states is not None:
            step = self._pattern.step(here.states, entry.name)
            if not step.states:
                return None
        if self._rules.excludes(entry.name, inside, entry.path):
            self._left_out.num_excluded += 1
            return None
        try:
            is_folder = entry.is_dir()
            leads_nowhere = entry.is_symlink() and not is_folder and not os.path.exists(entry.path)
            is_link = is_folder and _is_link(entry)
        except OSError:
            # For example a link to itself, or to a place that this user may not enter.
            is_folder, leads_nowhere, is_link = False, True, True
        is_picture = _is_picture(entry.name) if step is None else step.takes_file
        if not (is_folder or is_picture or leads_nowhere):
            self._left_out.num_not_pictures += step is None
            return None
        if self._rules.hides(entry.name) and not (step is not None and step.is_spelled):
            self._left_out.num_hidden += 1
            self._left_out.first_hidden = self._left_out.first_hidden or entry.path
            return None
        if is_folder:
            if step is None:
                return _Folder(entry.path, inside, here.root, None, is_link)
            if self._pattern is not None and self._pattern.is_whole(step.states):
                return _Folder(entry.path, inside, entry.path, None, is_link)
            return _Folder(entry.path, inside, here.root, step.states, is_link)
        if is_picture:
            name = os.path.relpath(entry.path, here.root) if step is None else entry.name
            return Photo(entry.path, name)
        return NotLookedAt.because(
            entry.path,
            Rejection.UNREADABLE,
            "The link leads nowhere. Perhaps it leads to a folder of a drive that is not connected.",
        )


def _identity(folder: _Folder) -> tuple[object, ...]:
    """The same for two ways to one folder, as far as the same of it is wanted.

    Raises:
        OSError: the folder cannot be asked.
    """
    found = os.stat(folder.path)
    # Some file systems number nothing.
    place = (found.st_dev, found.st_ino) if found.st_ino else (os.path.realpath(folder.path),)
    return (*place, folder.states)


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is a link, or on Windows a junction, for which Python 3.11 has no function.

    Raises:
        OSError: the entry cannot be asked.
    """
    if entry.is_symlink():
        return True
    attributes: int = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    return bool(attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _counted(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
