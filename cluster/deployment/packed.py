"""How a call's photos travel from a backend to a detector, and their outcomes back: packed once.

The backend packs, the detector unpacks, and the driver process between them hands bytes on. Ray would pickle
a list of objects with its own, slower pickler, and does nothing to bytes. So a call is a head, which is
bytes, and the pixels of the photos that do not lie in shared memory. The outcomes are bytes too.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from actors.faces import (
    Damage,
    Detected,
    Face,
    Failed,
    Failure,
    Outcome,
    Rejected,
    Rejection,
    Stamp,
    Times,
)
from actors.images import Pixels, PreparedImage
from cluster.slabs import Slab, SlabAddress, Slabs

#: What a `PreparedImage` holds beside its pixels, in the order of its fields.
_Facts = tuple[int, int, tuple[int, int], float, str, float]


class PackedCall(NamedTuple):
    """A call's photos as they travel.

    Attributes:
        head: everything but the pixels in `pixels`, as bytes.
        pixels: uint8[h, w, 3] each, in order, of the photos that are in no shared memory.
    """

    head: bytes
    pixels: list[Pixels]


def pack_call(images: Sequence[Any], slabs: Slabs | None) -> PackedCall:
    """Pack the photos of a call.

    Args:
        images: `PreparedImage`s; others are packed as they are.
        slabs: the memory that the detector can read too; None sends all pixels.
    """
    pixels: list[Pixels] = []
    rows: list[tuple[Slab | None, _Facts] | Any] = []
    for image in images:
        if not isinstance(image, PreparedImage):
            rows.append(image)
            continue
        slab = slabs.slab_of(image.pixels) if slabs is not None else None
        if slab is None:
            pixels.append(image.pixels)
        rows.append((slab, _facts(image)))
    address = slabs.address if slabs is not None else None
    return PackedCall(pickle.dumps((address, rows), protocol=5), pixels)


class Terms(NamedTuple):
    """What a detector is told of a call beside its photos.

    Attributes:
        priority: of all photos, as a word.
        deadline_s: seconds until the outcomes are of no use.
        trace: the caller's name for the call; empty if it has none.
    """

    priority: str
    deadline_s: float
    trace: str = ""

    def packed(self) -> bytes:
        """The terms as bytes: Ray takes one argument sooner than three."""
        return pickle.dumps(tuple(self), protocol=5)

    @classmethod
    def unpacked(cls, packed: bytes) -> Terms:
        """The terms that `packed` packed."""
        return cls(*pickle.loads(packed))


class CannotShare(Exception):
    """The memory that a call names cannot be read here, or not any more."""

    def __init__(self) -> None:
        super().__init__("The memory in which the backend has put its photos cannot be read here.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedImage(PreparedImage):
    """A photo whose pixels lie in memory that its backend may give to another photo when the call has ended.

    Attributes:
        slabs: the memory.
        slab: its place there.
    """

    slabs: Slabs
    slab: Slab

    @classmethod
    def of(cls, slabs: Slabs | None, slab: Slab, facts: _Facts) -> Self:
        """The photo in a slab.

        Raises:
            CannotShare: there is none, or the slab holds another photo by now.
        """
        if slabs is None or not slabs.fits(slab) or not slabs.holds(slab):
            raise CannotShare
        return cls(slabs.pixels_in(slab), *facts, slabs=slabs, slab=slab)

    @property
    def is_intact(self) -> bool:
        """Whether the pixels still belong to this photo."""
        return self.slabs.holds(self.slab)

    def copied(self) -> PreparedImage:
        """The same photo with pixels of its own.

        Raises:
            CannotShare: the slab holds another photo by now.
        """
        pixels = np.array(self.pixels)
        if not self.is_intact:
            raise CannotShare
        return PreparedImage(pixels, *_facts(self))


def unpack_call(
    head: bytes, pixels: Sequence[Pixels], open_slabs: Callable[[SlabAddress], Slabs | None]
) -> list[Any]:
    """The photos of a packed call, as they were before.

    Pixels in shared memory stay there. The backend may free them before they are run: see `SharedImage`.

    Args:
        head: of the packed call.
        pixels: of the packed call.
        open_slabs: opens the memory at an address.

    Raises:
        CannotShare: this process cannot read that memory, or it holds other photos by now. The second means
            that nobody waits for the outcomes any more.
    """
    address, rows = pickle.loads(head)
    slabs = None
    if address is not None and (slabs := open_slabs(address)) is None:
        raise CannotShare
    sent = iter(pixels)
    images: list[Any] = []
    for row in rows:
        if not isinstance(row, tuple):
            images.append(row)
            continue
        slab, facts = row
        images.append(
            PreparedImage(next(sent), *facts) if slab is None else SharedImage.of(slabs, slab, facts)
        )
    return images


def pack_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """The outcomes of a call as bytes. Plain tuples take a quarter of the time that the objects take."""
    stamps: dict[int, tuple[Any, ...]] = {}
    rows: list[tuple[Any, ...]] = []
    for each in outcomes:
        if (stamp := stamps.get(id(each.stamp))) is None:
            stamp = stamps[id(each.stamp)] = _fields_of_stamp(each.stamp)
        times = (each.times.prepare_ms, each.times.queue_ms, each.times.run_ms)
        if isinstance(each, Detected):
            faces = [(face.box, face.score, face.landmarks) for face in each.faces]
            share = each.damaged.decoded_share if each.damaged else None
            rows.append(("detected", stamp, times, faces, each.width, each.height, share))
        elif isinstance(each, Rejected):
            rows.append(("rejected", stamp, times, str(each.reason), each.detail))
        elif isinstance(each, Failed):
            rows.append(("failed", stamp, times, str(each.reason), each.detail, each.retry_after_s))
        else:
            raise TypeError(f"{type(each).__name__} is no kind of outcome.")
    return pickle.dumps(rows, protocol=5)


def unpack_outcomes(packed: bytes) -> list[Outcome]:
    """The outcomes that `pack_outcomes` packed."""
    stamps: dict[int, Stamp] = {}
    outcomes: list[Outcome] = []
    for kind, fields, times_ms, *rest in pickle.loads(packed):
        # Pickle gives equal stamps as one tuple again.
        if (stamp := stamps.get(id(fields))) is None:
            stamp = stamps[id(fields)] = Stamp(*fields)
        times = Times(*times_ms)
        if kind == "detected":
            faces, width, height, share = rest
            found = tuple([Face(*face) for face in faces])
            damaged = None if share is None else Damage(share)
            outcomes.append(
                Detected(stamp=stamp, times=times, faces=found, width=width, height=height, damaged=damaged)
            )
        elif kind == "rejected":
            reason, detail = rest
            outcomes.append(Rejected(stamp=stamp, times=times, reason=Rejection(reason), detail=detail))
        else:
            reason, detail, wait_s = rest
            failure = Failure(reason)
            outcomes.append(
                Failed(stamp=stamp, times=times, reason=failure, detail=detail, retry_after_s=wait_s)
            )
    return outcomes


def _facts(image: PreparedImage) -> _Facts:
    return (
        image.width,
        image.height,
        image.shape,
        image.prepare_ms,
        image.digest,
        image.decoded_share,
    )


def _fields_of_stamp(stamp: Stamp) -> tuple[Any, ...]:
    return (stamp.served_by, stamp.model, stamp.incarnation, stamp.epoch, stamp.fallback)
