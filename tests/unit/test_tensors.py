"""The memory of tensors: what was in it before must never be seen by another photo."""

from __future__ import annotations

import numpy as np
import pytest

from actors.tensors import Buffers, copied, fill_row


def test_a_row_holds_the_image_and_nothing_of_the_one_before() -> None:
    row = np.full((4, 6, 3), 9, dtype=np.uint8)
    fill_row(row, np.full((2, 3, 3), 5, dtype=np.uint8))
    assert (row[:2, :3] == 5).all()
    row[:2, :3] = 0
    assert not row.any()


def test_an_image_that_fills_the_row_is_copied_whole() -> None:
    row, image = np.zeros((4, 6, 3), np.uint8), np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    fill_row(row, image)
    assert np.array_equal(row, image)


@pytest.mark.parametrize("side", [32, 320], ids=["copied at once", "copied by NumPy"])
@pytest.mark.parametrize(("height", "width"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (0.5, 0.5)])
def test_rows_of_any_size_are_filled_and_cleared(side: int, height: float, width: float) -> None:
    random = np.random.default_rng(1)
    image = random.integers(1, 255, (int(side * height), int(side * width), 3), dtype=np.uint8)
    tensor = np.full((2, side, side, 3), 9, dtype=np.uint8)
    fill_row(tensor[1], image)
    wanted = np.zeros((side, side, 3), dtype=np.uint8)
    wanted[: image.shape[0], : image.shape[1]] = image
    assert np.array_equal(tensor[1], wanted)
    assert (tensor[0] == 9).all()
    mirrored = image[:, ::-1]
    fill_row(tensor[0], mirrored)
    assert np.array_equal(tensor[0, : image.shape[0], : image.shape[1]], mirrored)


@pytest.mark.parametrize("side", [32, 320], ids=["copied at once", "copied by NumPy"])
def test_a_copy_does_not_change_with_what_it_was_made_from(side: int) -> None:
    pixels = np.full((side, side, 3), 7, dtype=np.uint8)
    copy = copied(pixels)
    pixels[:] = 0
    assert (copy == 7).all()
    assert copy.shape == pixels.shape


def test_memory_is_used_again_and_lent_once_at_a_time() -> None:
    buffers = Buffers()
    first = buffers.lend(4, (8, 8))
    second = buffers.lend(4, (8, 8))
    assert first.shape == second.shape == (4, 8, 8, 3)
    assert not np.shares_memory(first, second)
    buffers.give_back(first)
    smaller = buffers.lend(2, (8, 4))
    assert smaller.shape == (2, 8, 4, 3)
    assert np.shares_memory(smaller, first)
    buffers.give_back(smaller)
    assert np.shares_memory(buffers.lend(4, (8, 8)), first), "the whole memory came back, not a part of it"


def test_only_a_few_and_the_largest_are_kept() -> None:
    """Memory is bounded, however many sizes were asked for."""
    buffers = Buffers()
    lent = [buffers.lend(number, (8, 8)) for number in range(1, 8)]
    for each in lent:
        buffers.give_back(each)
    again = [buffers.lend(1, (8, 8)) for _ in range(4)]
    kept = [number for number, each in enumerate(lent, 1) if any(np.shares_memory(each, a) for a in again)]
    assert kept == [5, 6, 7]
