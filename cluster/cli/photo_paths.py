"""Finds the photos that a person names: files, folders, patterns, and `-` for a list on standard input."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from actors.faces import Rejection
from actors.images import IMAGE_SUFFIXES
from cluster.cli.folder_walk import FolderWalk, LeftOut, NotLookedAt, Photo, Rules
from cluster.cli.path_pattern import PathPattern


class PhotoFinder:
    """Finds the photos that arguments name, in their order.

    A file that is named itself is taken whatever its suffix, hidden or not, and even if it is missing, so
    that it gets an outcome. A folder or a pattern without any photo, and a folder that cannot be read, are
    given as `NotLookedAt`.

    Args:
        rules: which names are left out. `exclude` is also for names that are arguments or in a list.

    Attributes:
        left_out: what was left out on purpose so far.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self.left_out = LeftOut()

    def find(self, arguments: Iterable[str], stdin: Iterable[str]) -> Iterator[Photo | NotLookedAt]:
        """Yield the photos one by one, and what cannot be looked at.

        Args:
            arguments: files, folders, patterns, or "-".
            stdin: lines with one path each, read for "-".
        """
        for argument in arguments:
            if argument == "-":
                for line in stdin:
                    if name := line.strip("\r\n"):
                        yield from self._file(name)
            elif os.path.isdir(argument):
                if not self._is_excluded(argument):
                    yield from self._folder(argument)
            elif glob.has_magic(argument) and not os.path.lexists(argument):
                # The shells of Linux have done this already; those of Windows have not.
                yield from self._pattern(argument)
            else:
                yield from self._file(argument)

    def _file(self, path: str) -> Iterator[Photo]:
        if not self._is_excluded(path):
            yield Photo(path, Path(path).name)

    def _folder(self, folder: str) -> Iterator[Photo | NotLookedAt]:
        is_empty = True
        for found in FolderWalk(folder, self._rules, self.left_out):
            is_empty = False
            yield found
        if is_empty:
            endings = " ".join(sorted(IMAGE_SUFFIXES))
            yield NotLookedAt.because(
                folder,
                Rejection.NO_PHOTOS,
                f"The folder holds no photos ({endings}), or only such as are left out.",
            )

    def _pattern(self, pattern: str) -> Iterator[Photo | NotLookedAt]:
        parts = Path(pattern).parts
        plain = tuple(takewhile(lambda part: not glob.has_magic(part), parts))
        base = str(Path(*plain)) if plain else os.curdir
        is_empty = True
        if os.path.isdir(base):
            for found in FolderWalk(base, self._rules, self.left_out, PathPattern(parts[len(plain) :])):
                is_empty = False
                # As it was typed: without "./" before it.
                yield found if plain else replace(found, path=os.path.normpath(found.path))
        if is_empty:
            yield NotLookedAt.because(
                pattern, Rejection.NO_PHOTOS, "No file matches this pattern. Look how it is written."
            )

    def _is_excluded(self, path: str) -> bool:
        is_excluded = self._rules.excludes(os.path.basename(os.path.normpath(path)), path, path)
        self.left_out.num_excluded += is_excluded
        return is_excluded


def why_unreadable(path: str) -> NotLookedAt | None:
    """Why a file cannot be read, or None if it can be. A pipe or a device is never waited for."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            os.close(os.open(path, os.O_RDONLY))
            return None
        detail = "It is not a file; give the path of an image."
    except OSError as error:
        detail = f"The file cannot be read: {error.strerror}."
    except ValueError:
        # Python refuses such a name before any file system is asked, in other words with each version.
        detail = "No file can have this name: there is a zero byte in it."
    return NotLookedAt.because(path, Rejection.UNREADABLE, detail)
