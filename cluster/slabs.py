"""Pixels in memory that a backend shares with its driver process and with detectors of the same machine.

A photo's pixels are written once, into a slab of the pool. What travels then is the slab's number.

    backend          `SlabPool`: writes pixels into free slabs, and frees them when their call has ended
    driver process   `Slabs`: inherited from the backend
    detector         `Slabs`: opened by the address that came with the call, if machine and user are the same

The memory has no name in any folder. The system frees it when the last of these processes has ended or let
it go, also after kill -9. Each slab counts its uses. So whoever reads a slab too late finds that it belongs
to another photo by now.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import stat
import sys
from dataclasses import dataclass
from typing import Self

import numpy as np

from actors.images import Pixels

if sys.platform == "linux":
    import fcntl

    _SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

#: Bytes before the slabs, for the nonce; and bytes before each slab's pixels, for the number of its uses.
_HEAD_BYTES = 64
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SlabAddress:
    """Where processes of the same machine and user find a pool's memory.

    Attributes:
        nonce: random; stands at the beginning of the memory, so that no other memory is taken for it.
        pid: of the backend.
        descriptor: the number of the memory's file in the backend; -1 on Windows, where the nonce names it.
        num_slabs: photos that the pool has room for.
        slab_bytes: bytes from one slab to the next.
    """

    nonce: bytes
    pid: int
    descriptor: int
    num_slabs: int
    slab_bytes: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole memory."""
        return _HEAD_BYTES + self.num_slabs * self.slab_bytes


#: A photo in a pool: the slab's number, how often it was freed before, and height and width in pixels.
Slab = tuple[int, int, int, int]


class Slabs:
    """A pool's memory, as every process sees it.

    Args:
        memory: mapped.
        address: of the memory.
    """

    def __init__(self, memory: mmap.mmap, address: SlabAddress) -> None:
        self.address = address
        self._bytes = np.frombuffer(memory, np.uint8)
        self._first = int(self._bytes.__array_interface__["data"][0]) + _HEAD_BYTES
        self._uses = np.ndarray(
            (address.num_slabs,), np.uint64, memory, offset=_HEAD_BYTES, strides=(address.slab_bytes,)
        )

    @classmethod
    def inherited(cls, address: SlabAddress) -> Slabs | None:
        """The memory of the process that started this one; None if it cannot be read."""
        if address.descriptor < 0:
            return cls._of_name(address)
        with contextlib.suppress(OSError, ValueError):
            return cls._of_file(address.descriptor, address)
        return None

    @classmethod
    def opened(cls, address: SlabAddress) -> Slabs | None:
        """The memory of a process of this machine; None if it is not here, or belongs to another user."""
        if address.descriptor < 0:
            return cls._of_name(address)
        if sys.platform != "linux":
            # Only Linux has such an address, so the backend is on another machine.
            return None
        with contextlib.suppress(OSError, ValueError):
            descriptor = _opened(address)
            try:
                return cls._of_file(descriptor, address)
            finally:
                os.close(descriptor)
        return None

    @property
    def is_abandoned(self) -> bool:
        """Whether the backend is gone, or has closed the pool."""
        if self.address.descriptor < 0:
            # Windows tells nobody how many processes hold a memory.
            return False
        try:
            descriptor = _opened(self.address)
        except (OSError, ValueError):
            return True
        try:
            return os.pread(descriptor, len(self.address.nonce), 0) != self.address.nonce
        except OSError:
            return True
        finally:
            os.close(descriptor)

    def slab_of(self, pixels: Pixels) -> Slab | None:
        """The slab in which an array lies; None for an array elsewhere."""
        offset = int(pixels.__array_interface__["data"][0]) - self._first
        if not 0 <= offset < self.address.num_slabs * self.address.slab_bytes:
            return None
        number = offset // self.address.slab_bytes
        return number, int(self._uses[number]), pixels.shape[0], pixels.shape[1]

    def pixels_in(self, slab: Slab) -> Pixels:
        """The pixels in a slab, as uint8[height, width, 3]; not a copy."""
        return self._pixels_in(self._bytes, slab)

    def _pixels_in(self, memory: Pixels, slab: Slab) -> Pixels:
        number, _, height, width = slab
        begin = _HEAD_BYTES + number * self.address.slab_bytes + _HEAD_BYTES
        return memory[begin : begin + height * width * 3].reshape(height, width, 3)

    def holds(self, slab: Slab) -> bool:
        """Whether the slab still belongs to that photo; if so, what was read before is right."""
        return int(self._uses[slab[0]]) == slab[1]

    def fits(self, slab: Slab) -> bool:
        """Whether the pool has such a slab. Its numbers came with a call, so they may be wrong."""
        number, _, height, width = slab
        room = self.address.slab_bytes - _HEAD_BYTES
        return (
            0 <= number < self.address.num_slabs and height > 0 and width > 0 and height * width * 3 <= room
        )

    @classmethod
    def _of_file(cls, descriptor: int, address: SlabAddress) -> Slabs | None:
        if not _cannot_shrink(descriptor):
            return None
        memory = mmap.mmap(descriptor, address.num_bytes, access=mmap.ACCESS_READ)
        return cls(memory, address) if memory[: len(address.nonce)] == address.nonce else None

    @classmethod
    def _of_name(cls, address: SlabAddress) -> Slabs | None:
        if sys.platform != "win32":
            return None
        # Windows makes an empty memory if there is none of that name; it does not begin with the nonce.
        memory = mmap.mmap(-1, address.num_bytes, tagname=_tag(address.nonce), access=mmap.ACCESS_WRITE)
        return cls(memory, address) if memory[: len(address.nonce)] == address.nonce else None


class SlabPool(Slabs):
    """The backend's own memory; any thread may use it.

    The memory takes up room only where it was written, and the slab that was freed last is used first.
    """

    def __init__(self, memory: mmap.mmap, address: SlabAddress) -> None:
        super().__init__(memory, address)
        memory[: len(address.nonce)] = address.nonce
        self._free = list(range(address.num_slabs))[::-1]
        self._taken: set[int] = set()

    @classmethod
    def make(cls, max_pixels: int, max_bytes: int) -> Self | None:
        """Make a pool, or return None if this system has none, or it is to have no slab.

        Args:
            max_pixels: pixels of the largest photo; a larger one has no room in a slab.
            max_bytes: of the whole pool.
        """
        slab_bytes = -(-(_HEAD_BYTES + max_pixels * 3) // _PAGE_BYTES) * _PAGE_BYTES
        num_slabs = max_bytes // slab_bytes
        nonce = secrets.token_bytes(16)
        if num_slabs < 1:
            return None
        if sys.platform == "win32":
            address = SlabAddress(nonce, os.getpid(), -1, num_slabs, slab_bytes)
            return cls(mmap.mmap(-1, address.num_bytes, tagname=_tag(nonce)), address)
        if sys.platform != "linux":
            return None
        try:
            descriptor = os.memfd_create("rayface", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            # A sandbox may forbid it; the pixels then go through the pipe.
            return None
        address = SlabAddress(nonce, os.getpid(), descriptor, num_slabs, slab_bytes)
        try:
            os.ftruncate(descriptor, address.num_bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return cls(mmap.mmap(descriptor, address.num_bytes), address)
        except (OSError, ValueError):
            os.close(descriptor)
            return None

    @property
    def num_free(self) -> int:
        """Slabs without a photo."""
        return len(self._free)

    def place(self, pixels: Pixels) -> Pixels:
        """Copy a photo's pixels into a free slab.

        Returns:
            The copy; if there is no free slab, or the photo is too large, the same array.
        """
        # `close` takes the free slabs before the memory; so whoever has a slab has the memory too.
        memory, room = self._bytes, self.address.slab_bytes - _HEAD_BYTES
        if pixels.nbytes > room:
            return pixels
        try:
            number = self._free.pop()
        except IndexError:
            return pixels
        self._taken.add(number)
        placed = self._pixels_in(memory, (number, 0, pixels.shape[0], pixels.shape[1]))
        np.copyto(placed, pixels)
        return placed

    def free(self, pixels: Pixels) -> None:
        """Free the slab of an array that `place` returned; an array elsewhere is left alone."""
        slab = self.slab_of(pixels)
        if slab is not None and slab[0] in self._taken:
            self._taken.discard(slab[0])
            self._uses[slab[0]] += np.uint64(1)
            self._free.append(slab[0])

    def close(self) -> None:
        """Close the pool. Nobody can open the memory any more; the system frees it with its last array."""
        self._free.clear()
        self._taken.clear()
        # Python keeps a second descriptor as long as the memory is mapped; nothing else here keeps it mapped.
        # A client holds itself in a circle, so that would be until Python looks for garbage.
        self._bytes, self._uses = np.zeros(0, np.uint8), np.zeros(self.address.num_slabs, np.uint64)
        if self.address.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.address.descriptor)


class OpenSlabs:
    """The memories that a detector has opened.

    Args:
        max_open: the most memories at a time; beyond that, the one that was opened first is closed.
    """

    def __init__(self, max_open: int = 64) -> None:
        self._max_open = max_open
        self._open: dict[bytes, Slabs] = {}

    def get(self, address: SlabAddress) -> Slabs | None:
        """The memory at an address; None if this process cannot read it."""
        found = self._open.get(address.nonce)
        if found is None or found.address != address:
            found = Slabs.opened(address)
            if found is not None:
                self._open[address.nonce] = found
                while len(self._open) > self._max_open:
                    del self._open[next(iter(self._open))]
        return found

    def give_up_abandoned(self) -> None:
        """Close the memories whose backends are gone, so that the system can free them."""
        for nonce, slabs in list(self._open.items()):
            if slabs.is_abandoned:
                self._open.pop(nonce, None)


def _cannot_shrink(descriptor: int) -> bool:
    """Whether a file keeps its size. The system would end a process that reads memory of a file cut short."""
    return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS


def _opened(address: SlabAddress) -> int:
    """A descriptor of the memory's file, to be closed.

    Raises:
        OSError, ValueError: there is none. The backend may be gone, and its number another process's: what
            that has open, a pipe perhaps, is neither read nor waited for.
    """
    path = f"/proc/{address.pid}/fd/{address.descriptor}"
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is no memory")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _tag(nonce: bytes) -> str:
    return f"Local\\rayface-{nonce.hex()}"
