"""The table of named faults says of each what its run found."""

from __future__ import annotations

from contextlib import nullcontext

from tests.chaos.by_name import Finding
from tests.chaos.faults import FAULTS
from tests.chaos.faults.kind import FaultKind
from tests.chaos.report import Fault, report
from tests.chaos.table import as_text


def _row(
    number: int, status: str = "detected", *, at: float, reason: str = "", fallback: str = ""
) -> dict[str, object]:
    return {
        "number": number,
        "priority": "bulk",
        "asked": at,
        "answered": at + 0.5,
        "status": status,
        "reason": reason,
        "detail": "why" if reason else "",
        "num_faces": 1 if status == "detected" else None,
        "right": status == "detected",
        "fallback": fallback,
        "incarnation": "one",
    }


def _finding(rows: list[dict[str, object]], mended_at: list[float]) -> Finding:
    kind = FaultKind("cut", "the cable is cut", lambda load: nullcontext())
    faults = [Fault("cut", at) for at in mended_at]
    return Finding(kind, report(rows, faults, [], 60.0, {}))


def test_the_table_counts_photos_and_says_when_the_detector_was_back() -> None:
    rows = [
        _row(1, at=1.0),
        _row(2, "failed", at=2.0, reason="detector_lost"),
        _row(3, at=11.0, fallback="after 7 s"),
        _row(4, at=12.0),
    ]
    text = as_text([_finding(rows, [10.0])])
    assert text.splitlines()[-1] == "| the cable is cut | 4 | 3 | 1 | 1 detector_lost | 0 | 2.5 s |"


def test_a_detector_that_is_not_back_after_each_fault_is_not_back() -> None:
    rows = [_row(1, at=1.0), _row(2, at=11.0)]
    assert _finding(rows, [10.0]).back_after_s == 1.5
    assert _finding(rows, [10.0, 20.0]).back_after_s is None


def test_a_doubled_a_wrong_and_an_empty_answer_are_problems() -> None:
    wrong = {**_row(2, at=2.0), "right": False}
    empty = {**_row(3, at=3.0), "right": False, "num_faces": 0}
    found = _finding([_row(1, at=1.0), _row(1, at=1.5), wrong, empty], [])
    assert len(found.report.problems) == 3


def test_each_fault_has_a_name_of_its_own_and_words() -> None:
    assert all(kind.name == name and kind.words for name, kind in FAULTS.items())
    assert len({kind.words for kind in FAULTS.values()}) == len(FAULTS)
