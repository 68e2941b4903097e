"""Whether an outcome is right for a case, and the table of the whole corpus in docs/pictures.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from actors.faces import Detected, Outcome, Rejected
from actors.golden import iou
from tests.corpus.maker import Case

#: Where not every outcome is right yet: the kind and the group. The live test fails for every other wrong
#: outcome, and also when all of one of these have become right.
STILL_WRONG = frozenset(
    [
        # Some hundred bytes were overwritten, and what came out is a legal picture too.
        ("WebP lossless", "hole"),
        # Noise in place of data: these formats have no checksum, and their decoders say nothing.
        ("AVIF", "hole"),
        ("HEIC", "hole"),
    ]
)

#: The face of the picture, drawn by eye (tests/photos/SOURCES.md), in its 256 x 300 pixels.
_FACE = (80.0, 65.0, 185.0, 160.0)
_GROUPS = ("whole", "untidy", "cut", "hole")


def problem(case: Case, outcome: Outcome) -> str:
    """What is wrong with the outcome of a case, or ""."""
    expected = case.expected
    if isinstance(outcome, Rejected):
        if expected.is_whole:
            return f"rejected ({outcome.reason}): {outcome.detail}"
        if expected.reasons and outcome.reason not in expected.reasons:
            return f"rejected as {outcome.reason}, and not as {', '.join(expected.reasons)}"
        return ""
    if not isinstance(outcome, Detected):
        return f"{outcome.status}: {outcome.as_dict()['detail']}"
    if not expected.is_whole:
        return "" if outcome.damaged else f"detected without a mark, {len(outcome.faces)} faces"
    if outcome.damaged:
        return f"marked as damaged ({outcome.damaged.decoded_share:.3f} decoded)"
    if (outcome.width, outcome.height) != expected.size:
        return f"{outcome.width} x {outcome.height} pixels"
    if len(outcome.faces) != 1 or iou(outcome.faces[0].box, _FACE) < 0.4:
        return f"the face is not found at its place: {[face.box for face in outcome.faces]}"
    return ""


def summary(cases: Iterable[Case]) -> str:
    """A table in Markdown: how many files of each kind there are, and where they are not all right yet."""
    counts = Counter((case.kind, case.group) for case in cases)
    lines = [
        "| kind | whole | untidy, but whole | cut short | with a hole |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in dict.fromkeys(kind for kind, group in counts if group in _GROUPS):
        cells = [_cell(counts[kind, group], (kind, group) in STILL_WRONG) for group in _GROUPS]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(number: int, is_wrong: bool) -> str:
    return f"{number or '-'}{' (not all right yet)' if is_wrong else ''}"
