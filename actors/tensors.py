"""The memory of the tensors that batches are assembled in, used again from run to run."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]

#: Tensors that wait to be used again: one on the device, one that is assembled, one for the golden photo.
_MAX_SPARE = 3


#: Fewer bytes than this are copied without letting other threads run meanwhile. NumPy lets them, and getting
#: the interpreter back from a busy event loop takes much longer than copying a small image.
MAX_BYTES_AT_ONCE = 200_000


def fill_row(row: NDArray[np.uint8], pixels: NDArray[np.uint8], before: Size) -> None:
    """Copy an image into the top left of a row of a tensor, and clear what the last image left beside it.

    Args:
        row: uint8[height, width, 3].
        pixels: uint8[h, w, 3], not larger than the row.
        before: (height, width) in pixels of what the row holds at its top left; the rest of it is clear.
    """
    height, width = pixels.shape[:2]
    is_whole = width == row.shape[1] and row.flags.c_contiguous and pixels.flags.c_contiguous
    if is_whole and pixels.nbytes <= MAX_BYTES_AT_ONCE:
        row.data.cast("B")[: pixels.nbytes] = pixels.data.cast("B")
    else:
        row[:height, :width] = pixels
    if height < before[0]:
        row[height : before[0], : before[1]] = 0
    if width < before[1]:
        row[: min(height, before[0]), width : before[1]] = 0


class BatchTensor:
    """Memory for tensors of one shape, which remembers how much of each row is filled.

    So a small photo in a large row costs its own copy, and not the clearing of the row.

    Args:
        memory: uint8[any]; holds anything.
        shape: (height, width) of the tensors, in pixels.
    """

    def __init__(self, memory: NDArray[np.uint8], shape: Size) -> None:
        num_rows = memory.size // (shape[0] * shape[1] * 3)
        self.memory = memory
        self.shape = shape
        self._rows = memory[: num_rows * shape[0] * shape[1] * 3].reshape(num_rows, *shape, 3)
        self._filled: list[Size] = [shape] * num_rows

    @property
    def num_rows(self) -> int:
        """Images that it has room for."""
        return len(self._filled)

    def assemble(self, images: Sequence[NDArray[np.uint8]], num_slots: int) -> NDArray[np.uint8]:
        """Make the tensor of a batch.

        Args:
            images: uint8[h, w, 3] each, not larger than the shape.
            num_slots: images of the tensor; empty slots are clear. Not more than `num_rows`.

        Returns:
            uint8[num_slots, height, width, 3]; a view, which the next batch changes.
        """
        for slot in range(num_slots):
            before = self._filled[slot]
            if slot < len(images):
                # Should copying fail half way, the whole row counts as filled.
                self._filled[slot] = self.shape
                fill_row(self._rows[slot], images[slot], before)
                self._filled[slot] = images[slot].shape[0], images[slot].shape[1]
            elif before != (0, 0):
                self._rows[slot, : before[0], : before[1]] = 0
                self._filled[slot] = 0, 0
        return self._rows[:num_slots]


class Buffers:
    """Tensors that are used again. The system clears fresh pages, which takes longer than filling them.

    Any thread may use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: list[BatchTensor] = []

    def lend(self, num_slots: int, shape: Size) -> BatchTensor:
        """A tensor with room for so many images of (height, width) pixels; give it back after the run."""
        num_bytes = num_slots * shape[0] * shape[1] * 3
        with self._lock:
            fitting = [each for each in self._spare if each.memory.size >= num_bytes]
            # One of the same shape knows what it has to clear.
            found = min(fitting, key=lambda each: (each.shape != shape, each.memory.size), default=None)
            if found is not None:
                self._spare.remove(found)
        if found is None:
            return BatchTensor(np.empty(num_bytes, dtype=np.uint8), shape)
        return found if found.shape == shape else BatchTensor(found.memory, shape)

    def give_back(self, tensor: BatchTensor) -> None:
        """Let a lent tensor be used again; nothing may read it any more."""
        with self._lock:
            self._spare.append(tensor)
            # The largest are kept: they have room for the others too.
            self._spare.sort(key=lambda each: -each.memory.size)
            del self._spare[_MAX_SPARE:]
