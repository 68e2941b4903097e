"""What `rayface detect` prints about each photo: rows of a table and a summary, or JSON lines."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from actors.faces import Detected, Failed, Outcome, Rejected
from cluster.cli.folder_walk import NotLookedAt, Photo
from cluster.cli.printable import json_line, name_as_json, printable
from cluster.errors import ConfigurationError

_STYLES = {"detected": "green", "rejected": "yellow", "failed": "red"}


@contextmanager
def _saying_why() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"The results cannot be written: {error.strerror}. Send them to a place that has room."
        ) from error


class Output:
    """Prints outcomes as they come, and counts them.

    Args:
        as_json: whether to print JSON lines in place of a table. They never pass through the library that
            lays out text for people.

    Attributes:
        counts: how many names were `detected`, `rejected` and `failed`, how many of the detected ones are
            `damaged`, and how many `faces` were found; `other` counts those rejected ones that are no photos,
            but folders, links and patterns; `not_drawn` counts annotated copies that were not written.
        is_json: whether JSON lines are printed.
        messages: where sentences for people go.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.is_json = as_json
        # While a bar is shown, sys.stdout is replaced by one that lays out text for people.
        self._stream = sys.stdout
        self._out = Console(highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self.messages = self._out if self._out.is_terminal and not as_json else self._errors
        self._not_detected: list[tuple[str, Rejected | Failed]] = []
        self._served_by: set[str] = set()

    @property
    def has_bar(self) -> bool:
        """Whether a person sees a progress bar: on a terminal, unless JSON lines are printed there."""
        return self.messages.is_terminal and not (self.is_json and self._stream.isatty())

    @property
    def num_shown(self) -> int:
        """Outcomes so far."""
        return sum(self.counts[status] for status in _STYLES)

    @_saying_why()
    def show(self, asked: Photo | NotLookedAt, outcome: Outcome) -> None:
        """Print and count one outcome.

        Raises:
            ConfigurationError: it cannot be written where it should go; says why.
            BrokenPipeError: the program that read it has ended.
        """
        self._print(asked, outcome)
        self.counts[outcome.status] += 1
        self.counts["other"] += isinstance(asked, NotLookedAt)
        if isinstance(outcome, Rejected | Failed) and not self.is_json:
            self._not_detected.append((asked.path, outcome))
        if isinstance(outcome, Detected):
            self.counts["faces"] += len(outcome.faces)
            self.counts["damaged"] += outcome.damaged is not None
            self._served_by.add(outcome.stamp.served_by)

    def _print(self, asked: Photo | NotLookedAt, outcome: Outcome) -> None:
        if self.is_json:
            self._stream.write(json_line(name_as_json(asked.path) | outcome.as_dict()) + "\n")
            self._stream.flush()
            return
        if not self.counts:
            self._out.print(Text(f"{'status':<9} {'faces':>5} {'score':>6} {'ms':>7}  image", style="bold"))
        self._out.print(_row(asked.path, outcome))

    def tell_of_no_copy(self, sentence: str) -> None:
        """Say why there is no annotated copy of a photo, and count that."""
        self.counts["not_drawn"] += 1
        self.tell(sentence)

    def tell(self, sentence: str, style: str = "yellow") -> None:
        """Print a sentence for people."""
        self.messages.print(Text(printable(sentence, keep_lines=True), style=style))

    @_saying_why()
    def end(self, seconds: float) -> None:
        """Print what was not detected, with the reasons, and a summary; nothing after JSON lines."""
        if self.is_json or not self.counts:
            return
        for path, outcome in self._not_detected:
            status = (f"{outcome.status} ({outcome.reason})", _STYLES[outcome.status])
            self._out.print(Text.assemble(status, f" {printable(path)}"))
            self._out.print(Text(f"    {printable(outcome.detail)}"))
        counts = self.counts
        num_photos = self.num_shown - counts["other"]
        other = f" and {counts['other']} other names" if counts["other"] else ""
        damaged = f"; {counts['damaged']} damaged" if counts["damaged"] else ""
        by = f"; by {', '.join(sorted(self._served_by))}" if self._served_by else ""
        summary = (
            f"{num_photos} photos{other} in {seconds:.1f} s: {counts['detected']} detected "
            f"({counts['faces']} faces{damaged}), {counts['rejected']} rejected, "
            f"{counts['failed']} failed{by}"
        )
        self._out.print(Text(printable(summary), style="bold"))


def _row(path: str, outcome: Outcome) -> Text:
    faces, score = "-", "-"
    if isinstance(outcome, Detected):
        faces = str(len(outcome.faces))
        score = f"{outcome.faces[0].score:.3f}" if outcome.faces else "-"
    spent = outcome.times.prepare_ms + outcome.times.queue_ms + outcome.times.run_ms
    rest = f" {faces:>5} {score:>6} {spent:>7.1f}  {printable(path)}"
    row = Text.assemble((f"{outcome.status:<9}", _STYLES[outcome.status]), rest)
    if isinstance(outcome, Detected) and outcome.damaged:
        # Rounded down: 99.9 % is not all of it.
        row.append(
            f"  (damaged: {int(outcome.damaged.decoded_share * 100)} % of it searched)", style="yellow"
        )
    return row
