"""Finds the photos that a person names: files, folders, patterns, and `-` for a list on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.images import IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo to look at.

    Attributes:
        path: the path as it is shown.
        inside: its path below the folder that was named, or its bare name if no folder was named.
    """

    path: str
    inside: str


def find_photos(
    arguments: Iterable[str], stdin: Iterable[str], warn: Callable[[str], None]
) -> Iterator[Photo]:
    """Yield the photos that the arguments name, in order; those of a folder sorted, with photo suffixes only.

    Args:
        arguments: files, folders, patterns, or "-".
        stdin: lines with one path each, read for "-".
        warn: is called with a sentence about each folder or pattern without photos.

    A file that is named itself is taken whatever its suffix, and even if it is missing, so that it gets an
    outcome.
    """
    for argument in arguments:
        if argument == "-":
            for line in stdin:
                if name := line.strip("\r\n"):
                    yield Photo(name, Path(name).name)
        elif os.path.isdir(argument):
            yield from _in_folder(argument, warn)
        elif glob.has_magic(argument) and not os.path.exists(argument):
            # The shells of Linux have done this already; those of Windows have not.
            yield from _matching(argument, warn)
        else:
            yield Photo(argument, Path(argument).name)


def shown(path: str) -> str:
    """A file name as text; bytes that are not UTF-8 become replacement characters."""
    return path.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8", "replace")


def _in_folder(folder: str, warn: Callable[[str], None]) -> Iterator[Photo]:
    num_found = 0

    def unreadable(error: OSError) -> None:
        warn(f"The folder {error.filename} cannot be read: {error.strerror}. Its photos are left out.")

    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                num_found += 1
                path = os.path.join(root, name)
                yield Photo(path, os.path.relpath(path, folder))
    if not num_found:
        warn(f"The folder {folder} holds no photos ({' '.join(sorted(IMAGE_SUFFIXES))}).")


def _matching(pattern: str, warn: Callable[[str], None]) -> Iterator[Photo]:
    found = sorted(glob.glob(pattern, recursive=True))
    for path in found:
        if os.path.isdir(path):
            yield from _in_folder(path, warn)
        else:
            yield Photo(path, Path(path).name)
    if not found:
        warn(f"No file matches {pattern}.")
