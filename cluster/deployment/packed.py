"""How a call's photos travel from a driver process to a detector, and their outcomes back: packed once.

Ray would pickle a list of objects with its own, slower pickler, and does nothing to bytes. So a call is a
head, which is bytes, and the pixels of the photos that do not lie in shared memory. Ray sends these as they
are. The outcomes are bytes too, which nobody unpacks before the backend does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from actors.faces import Outcome
from actors.images import Pixels, PreparedImage
from cluster.slabs import Slab, SlabAddress, Slabs

#: What a `PreparedImage` holds beside its pixels, in the order of its fields.
_Facts = tuple[int, int, tuple[int, int], float, str]


@dataclass(frozen=True, slots=True)
class PackedCall:
    """A call as it travels.

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
        rows.append((slab, (image.width, image.height, image.shape, image.prepare_ms, image.digest)))
    address = slabs.address if slabs is not None else None
    return PackedCall(pickle.dumps((address, rows), protocol=5), pixels)


class CannotShare(Exception):
    """The memory that a call names cannot be read here, or not any more."""


def unpack_call(
    head: bytes, pixels: Sequence[Pixels], open_slabs: Callable[[SlabAddress], Slabs | None]
) -> list[Any]:
    """The photos of a packed call, as they were before.

    Pixels in shared memory are copied, because the backend may free them before they are run.

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
        images.append(PreparedImage(next(sent) if slab is None else _copied(slabs, slab), *facts))
    return images


def pack_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """The outcomes of a call as bytes."""
    return pickle.dumps(outcomes, protocol=5)


def unpack_outcomes(packed: bytes) -> list[Outcome]:
    """The outcomes that `pack_outcomes` packed."""
    return cast(list[Outcome], pickle.loads(packed))


def _copied(slabs: Slabs | None, slab: Slab) -> Pixels:
    if slabs is None or not slabs.fits(slab):
        raise CannotShare
    pixels = np.array(slabs.pixels_in(slab))
    if not slabs.holds(slab):
        raise CannotShare
    return pixels
