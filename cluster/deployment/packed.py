"""How a call's photos travel from a backend to a detector, and their outcomes back: packed once.

The backend packs, the detector unpacks, and the driver process between them hands bytes on. Ray would pickle
objects by the position of their fields, which another version may have elsewhere; and it does nothing to
bytes. So everything is bytes, in the encoding of `cluster.protocol`, but the pixels of the photos that do not
lie in shared memory: those are arrays of uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, NamedTuple, Self, TypeVar

import msgspec
import numpy as np

from actors.encoded_image import EncodedImage, SentImage
from actors.faces import Health, Outcome
from actors.images import Pixels, PreparedImage
from cluster.protocol.identity import framed, unframed
from cluster.protocol.rows import (
    CallRows,
    OutcomeRow,
    PhotoFacts,
    PhotoRow,
    PreparedRow,
    PrepareOrder,
    Terms,
    Unusable,
    WorkOrder,
)
from cluster.slabs import Slab, SlabAddress, Slabs

Value = TypeVar("Value")

_FACTS = [each.name for each in fields(PreparedImage) if each.name != "pixels"]
_facts_of = attrgetter(*_FACTS)

_encode = msgspec.msgpack.Encoder().encode
_terms = msgspec.msgpack.Decoder(Terms)
_call = msgspec.msgpack.Decoder(CallRows)
_outcomes = msgspec.msgpack.Decoder(list[OutcomeRow])
_health = msgspec.msgpack.Decoder(Health)
_prepare_order = msgspec.msgpack.Decoder(PrepareOrder)
_prepared = msgspec.msgpack.Decoder(PreparedRow)
_work = msgspec.msgpack.Decoder(WorkOrder)


class PackedCall(NamedTuple):
    """A call's photos as they travel.

    Attributes:
        head: everything but the pixels in `pixels`, as bytes.
        pixels: uint8[h, w, 3] each, in order, of the photos that are in no shared memory.
    """

    head: bytes
    pixels: list[Pixels]


def pack_call(images: Sequence[SentImage], slabs: Slabs | None) -> PackedCall:
    """Pack the photos of a call.

    Args:
        images: prepared.
        slabs: the memory that the detector can read too; None sends all pixels.
    """
    pixels: list[Pixels] = []
    rows: list[PhotoRow] = []
    for image in images:
        if isinstance(image, EncodedImage):
            rows.append(PhotoRow(encoded=image))
            continue
        slab = slabs.slab_of(image.pixels) if slabs is not None else None
        if slab is None:
            pixels.append(image.pixels)
        rows.append(PhotoRow(_row_of(image), slab))
    address = slabs.address if slabs is not None else None
    return PackedCall(framed(_encode(CallRows(address, rows))), pixels)


def pack_terms(terms: Terms) -> bytes:
    """The terms of a call as bytes: Ray takes one argument sooner than three."""
    return framed(_encode(terms))


def unpack_terms(packed: bytes) -> Terms:
    """The terms that `pack_terms` packed.

    Raises:
        VersionSkew: another version packed them.
    """
    return _terms.decode(unframed(packed))


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
    def of(cls, slabs: Slabs | None, slab: Slab, facts: Mapping[str, Any]) -> Self:
        """The photo in a slab.

        Raises:
            CannotShare: there is none, or the slab holds another photo by now.
        """
        if slabs is None or not slabs.fits(slab) or not slabs.holds(slab):
            raise CannotShare
        return cls(pixels=slabs.pixels_in(slab), **facts, slabs=slabs, slab=slab)

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
        return PreparedImage(pixels=pixels, **_values_of(self))


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
        VersionSkew: another version packed them.
    """
    call = _call.decode(unframed(head))
    slabs = None
    if call.address is not None and (slabs := open_slabs(call.address)) is None:
        raise CannotShare
    sent = iter(pixels)
    images: list[Any] = []
    for row in call.photos:
        if row.encoded is not None:
            images.append(row.encoded)
        elif row.slab is None:
            images.append(PreparedImage(pixels=next(sent), **_values_of(row.facts)))
        else:
            images.append(SharedImage.of(slabs, row.slab, _values_of(row.facts)))
    return images


def pack_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """The outcomes of a call as bytes.

    Raises:
        TypeError: one of them is of none of the three kinds, or has a value that cannot travel.
    """
    return framed(_encode([OutcomeRow.of(each) for each in outcomes]))


def unpack_outcomes(packed: bytes) -> list[Outcome]:
    """The outcomes that `pack_outcomes` packed.

    Raises:
        VersionSkew: another version packed them.
    """
    return [row.outcome for row in _outcomes.decode(unframed(packed))]


def pack_health(health: Health) -> bytes:
    """How a detector is, as bytes."""
    return framed(_encode(health))


def unpack_health(packed: object) -> Health:
    """What `pack_health` packed.

    Raises:
        VersionSkew: another version packed it.
    """
    return _health.decode(unframed(packed))


def pack_prepare_order(order: PrepareOrder) -> bytes:
    """How a photo is made small, as bytes."""
    return framed(_encode(order))


def unpack_prepare_order(packed: bytes) -> PrepareOrder:
    """What `pack_prepare_order` packed.

    Raises:
        VersionSkew: another version packed it.
    """
    return _prepare_order.decode(unframed(packed))


def pack_prepared(made: PreparedImage | Unusable) -> PackedCall:
    """What became of one photo, as bytes and its pixels."""
    if isinstance(made, Unusable):
        return PackedCall(framed(_encode(PreparedRow(unusable=made))), [])
    return PackedCall(framed(_encode(PreparedRow(facts=_row_of(made)))), [made.pixels])


def unpack_prepared(head: object, pixels: Sequence[Pixels]) -> PreparedImage | Unusable:
    """What `pack_prepared` packed.

    Raises:
        VersionSkew: another version packed it.
    """
    row = _prepared.decode(unframed(head))
    if row.unusable is not None:
        return row.unusable
    return PreparedImage(pixels=pixels[0], **_values_of(row.facts))


def pack_work(order: WorkOrder) -> bytes:
    """A function's name and arguments as bytes."""
    return framed(_encode(order))


def unpack_work(packed: bytes) -> WorkOrder:
    """What `pack_work` packed.

    Raises:
        VersionSkew: another version packed it.
    """
    return _work.decode(unframed(packed))


def pack_value(value: object) -> bytes:
    """A plain value (numbers, texts, lists, mappings) as bytes.

    Raises:
        TypeError: it is none.
    """
    return framed(_encode(value))


def unpack_value(packed: object) -> Any:
    """What `pack_value` packed; a tuple comes out as a list.

    Raises:
        VersionSkew: another version packed it.
    """
    return msgspec.msgpack.decode(unframed(packed), strict=True)


def _row_of(image: PreparedImage) -> Any:
    return PhotoFacts(*_facts_of(image))


def _values_of(facts: Any) -> dict[str, Any]:
    """The facts of a photo by their names."""
    return dict(zip(_FACTS, _facts_of(facts), strict=True))
