"""The photos of the chaos suite: their number can be read, and a wrong answer is told from a right one."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from actors.faces import Detected, Face, Stamp
from tests.chaos.photos import HEIGHT, WIDTH, box_of, is_right, landmarks_of, number_of, photo


def _right(number: int) -> Detected:
    right_eye, left_eye, nose, *mouth = ((x, y) for x, y in landmarks_of(number))
    face = Face(box=box_of(number), score=0.9, landmarks=(right_eye, left_eye, nose, mouth[0], mouth[1]))
    return Detected(stamp=Stamp("a device"), faces=(face,), width=WIDTH, height=HEIGHT)


@pytest.mark.parametrize("number", [0, 1, 14, 2**32 - 1])
def test_the_number_of_a_photo_is_read_from_its_slot(number: int) -> None:
    slot = np.zeros((256, WIDTH, 3), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(photo(number), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    slot[:HEIGHT] = decoded
    assert number_of(slot) == number


def test_swapped_sides_no_faces_and_the_answer_of_another_photo_are_wrong() -> None:
    assert is_right(7, _right(7))
    assert not is_right(7, replace(_right(7), width=HEIGHT, height=WIDTH))
    assert not is_right(7, replace(_right(7), faces=()))
    assert not any(is_right(7, _right(other)) for other in range(8, 22))
