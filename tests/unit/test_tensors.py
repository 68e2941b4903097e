"""The memory of tensors: what was in it before must never be seen by another photo."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.tensors import BatchTensor, Buffers, fill_row


def ones(height: int, width: int, value: int = 5) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_a_row_holds_the_image_and_nothing_of_the_one_before() -> None:
    row = ones(4, 6, 9)
    fill_row(row, ones(2, 3), (4, 6))
    assert (row[:2, :3] == 5).all()
    row[:2, :3] = 0
    assert not row.any()


def test_only_what_the_last_image_left_is_cleared() -> None:
    row = ones(8, 8, 9)
    fill_row(row, ones(2, 3), (3, 4))
    wanted = ones(8, 8, 9)
    wanted[:3, :4] = 0
    wanted[:2, :3] = 5
    assert np.array_equal(row, wanted)


@pytest.mark.parametrize("side", [32, 320], ids=["copied at once", "copied by NumPy"])
def test_a_tensor_holds_its_images_whatever_was_in_it(side: int) -> None:
    random = np.random.default_rng(1)
    tensor = BatchTensor(random.integers(0, 255, 4 * side * side * 3, dtype=np.uint8), (side, side))
    for _ in range(60):
        num_slots = int(random.integers(1, 5))
        sizes = random.choice([1, 5, side // 2, side], (random.integers(0, num_slots + 1), 2))
        images = [random.integers(1, 255, (height, width, 3), dtype=np.uint8) for height, width in sizes]
        images = [each[:, ::-1] if random.random() < 0.3 else each for each in images]
        wanted = np.zeros((num_slots, side, side, 3), dtype=np.uint8)
        for row, image in zip(wanted, images, strict=False):
            row[: image.shape[0], : image.shape[1]] = image
        assert np.array_equal(tensor.assemble(images, num_slots), wanted)


def test_an_image_that_cannot_be_copied_leaves_nothing_behind() -> None:
    tensor = BatchTensor(np.zeros(8 * 8 * 3, dtype=np.uint8), (8, 8))
    tensor.assemble([ones(2, 2)], 1)
    with pytest.raises(ValueError, match="broadcast"):
        tensor.assemble([ones(9, 9)], 1)
    tensor.assemble([ones(8, 8)], 1)
    with pytest.raises(ValueError, match="broadcast"):
        tensor.assemble([ones(9, 9)], 1)
    assert not tensor.assemble([], 1).any()


def test_memory_is_used_again_and_lent_once_at_a_time() -> None:
    buffers = Buffers()
    first = buffers.lend(4, (8, 8))
    second = buffers.lend(4, (8, 8))
    assert first.assemble([], 4).shape == second.assemble([], 4).shape == (4, 8, 8, 3)
    assert not np.shares_memory(first.memory, second.memory)
    buffers.give_back(first)
    assert buffers.lend(3, (8, 8)) is first
    buffers.give_back(first)
    smaller = buffers.lend(2, (8, 4))
    assert smaller.assemble([], 2).shape == (2, 8, 4, 3)
    assert np.shares_memory(smaller.memory, first.memory)
    buffers.give_back(smaller)
    assert np.shares_memory(buffers.lend(4, (8, 8)).memory, first.memory), "the whole memory came back"


def test_memory_of_another_shape_is_cleared_too() -> None:
    buffers = Buffers()
    first = buffers.lend(1, (8, 8))
    first.assemble([ones(8, 8)], 1)
    buffers.give_back(first)
    other = buffers.lend(2, (4, 8))
    assert not other.assemble([], 2).any()
    other.assemble([ones(4, 8)], 2)
    buffers.give_back(other)
    assert not buffers.lend(1, (8, 8)).assemble([], 1).any()


def test_the_tensor_of_the_same_shape_is_lent_first() -> None:
    buffers = Buffers()
    large, small = buffers.lend(4, (8, 8)), buffers.lend(8, (4, 4))
    buffers.give_back(large)
    buffers.give_back(small)
    assert buffers.lend(1, (8, 8)) is large
    assert buffers.lend(1, (4, 4)) is small


def test_only_a_few_and_the_largest_are_kept() -> None:
    """Memory is bounded, however many sizes were asked for."""
    buffers = Buffers()
    lent = [buffers.lend(number, (8, 8)) for number in range(1, 8)]
    for each in lent:
        buffers.give_back(each)
    again = [buffers.lend(1, (8, 8)) for _ in range(4)]
    assert [number for number, each in enumerate(lent, 1) if each in again] == [5, 6, 7]
