"""The memory of the tensors that batches are assembled in, used again from run to run."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

Tensor = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

#: Buffers that wait to be used again: one on the device, one that is assembled, one for the golden photo.
_MAX_SPARE = 3


#: Fewer bytes than this are copied without letting other threads run meanwhile. NumPy lets them, and getting
#: the interpreter back from a busy event loop takes much longer than copying a small image.
MAX_BYTES_AT_ONCE = 200_000


def fill_row(row: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
    """Copy an image into the top left of a row of a tensor, and clear what is left of the row.

    Args:
        row: uint8[height, width, 3]; holds anything before.
        pixels: uint8[h, w, 3], not larger than the row.
    """
    height, width = pixels.shape[:2]
    is_whole = width == row.shape[1] and row.flags.c_contiguous and pixels.flags.c_contiguous
    if is_whole and row.nbytes <= MAX_BYTES_AT_ONCE:
        flat = row.data.cast("B")
        flat[: pixels.nbytes] = pixels.data.cast("B")
        if pixels.nbytes < row.nbytes:
            flat[pixels.nbytes :] = bytes(row.nbytes - pixels.nbytes)
        return
    row[:height, :width] = pixels
    if height < row.shape[0]:
        row[height:] = 0
    if width < row.shape[1]:
        row[:height, width:] = 0


def copied(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of pixels, uint8[h, w, 3]; it may be read-only."""
    if pixels.nbytes > MAX_BYTES_AT_ONCE:
        return np.array(pixels)
    return np.frombuffer(bytes(pixels.data), np.uint8).reshape(pixels.shape)


class Buffers:
    """Memory for tensors. The system clears fresh pages for each run, which takes longer than filling them.

    Any thread may use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: list[Tensor] = []

    def lend(self, num_slots: int, shape: tuple[int, int]) -> Tensor:
        """A tensor uint8[num_slots, height, width, 3] that holds anything; give it back after the run."""
        num_bytes = num_slots * shape[0] * shape[1] * 3
        with self._lock:
            fitting = [at for at, each in enumerate(self._spare) if each.size >= num_bytes]
            smallest = min(fitting, key=lambda at: self._spare[at].size, default=None)
            flat = None if smallest is None else self._spare.pop(smallest)
        if flat is None:
            flat = np.empty(num_bytes, dtype=np.uint8)
        return flat[:num_bytes].reshape(num_slots, *shape, 3)

    def give_back(self, tensor: Tensor) -> None:
        """Let the memory of a lent tensor be used again; nothing may read the tensor any more."""
        flat = tensor
        while isinstance(flat.base, np.ndarray):
            flat = flat.base
        with self._lock:
            self._spare.append(flat)
            # The largest are kept: they have room for the others too.
            self._spare.sort(key=lambda each: -each.size)
            del self._spare[_MAX_SPARE:]
