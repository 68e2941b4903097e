"""Each way in which an answer for the golden photo can be wrong is noticed by itself (I4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors import golden
from actors.faces import Box, Face, Point

RIGHT = Face(golden.BOX, 0.9, golden.LANDMARKS)  # type: ignore[arg-type]  # five points, as a longer type


def moved(box: Box, by: float) -> Box:
    return (box[0] + by, box[1] + by, box[2] + by, box[3] + by)


def test_the_right_answer_has_no_problem() -> None:
    """Small differences between devices and families are none."""
    assert golden.problem([RIGHT]) == ""
    assert golden.problem([replace(RIGHT, box=moved(golden.BOX, 5), score=0.6)]) == ""


@pytest.mark.parametrize(
    ("faces", "said"),
    [
        ([], "0 faces"),
        ([RIGHT, RIGHT], "2 faces"),
        ([replace(RIGHT, score=0.4)], "score"),
        ([replace(RIGHT, score=1.2)], "score"),
        ([replace(RIGHT, score=float("nan"))], "score"),
        ([replace(RIGHT, box=moved(golden.BOX, 60))], "wrong place"),
        ([replace(RIGHT, box=(0.0, 0.0, 320.0, 320.0))], "wrong place"),
        ([replace(RIGHT, box=(float("nan"), 0.0, 1.0, 1.0))], "finite"),
    ],
)
def test_each_fault_is_named(faces: list[Face], said: str) -> None:
    """One fault at a time, everything else right."""
    assert said in golden.problem(faces)


@pytest.mark.parametrize("place", range(5))
def test_a_landmark_in_the_wrong_place_is_noticed(place: int) -> None:
    """Boxes alone would not tell the five points' order."""
    points: list[Point] = list(golden.LANDMARKS)
    points[place] = (points[place][0] + 40, points[place][1])
    assert "landmark" in golden.problem([replace(RIGHT, landmarks=tuple(points))])  # type: ignore[arg-type]
