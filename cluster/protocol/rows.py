"""The messages between a client and a detector, as they are encoded: MessagePack, every field by its name.

The fields are those of the types in `actors`, taken from there: a field that is added there travels too.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints

import msgspec

from actors.call_settings import CallSettings
from actors.encoded_image import EncodedImage
from actors.faces import Detected, Failed, Health, Outcome, Rejected, Rejection
from actors.images import PreparedImage
from actors.limits import Limits
from actors.settings import DetectorSettings
from cluster.slabs import Slab, SlabAddress


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a detector is told of a call beside its photos.

    Attributes:
        priority: of all photos, as a word.
        deadline_s: seconds until the outcomes are of no use.
        trace: the caller's name for the call; empty if it has none.
        settings: of the call; None takes those of the detector.
    """

    priority: str
    deadline_s: float
    trace: str = ""
    settings: CallSettings | None = None


def _facts_of(kind: type) -> type[msgspec.Struct]:
    """A struct with every field of `PreparedImage` but its pixels."""
    hints = get_type_hints(kind)
    listed = [
        (each.name, hints[each.name])
        if each.default is MISSING
        else (each.name, hints[each.name], each.default)
        for each in fields(kind)
        if each.name != "pixels"
    ]
    return msgspec.defstruct("PhotoFacts", listed, module=__name__, frozen=True, forbid_unknown_fields=True)


#: A prepared photo without its pixels.
PhotoFacts: Any = _facts_of(PreparedImage)


class PhotoRow(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A photo of a call: either pixels, with their facts, or a JPEG.

    Attributes:
        facts: of the pixels; None for a JPEG.
        slab: where the pixels lie in shared memory; None if they are sent.
        encoded: the JPEG.
    """

    facts: PhotoFacts | None = None
    slab: Slab | None = None
    encoded: EncodedImage | None = None


class CallRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The photos of a call.

    Attributes:
        address: of the shared memory in which some of them lie; None if none does.
        photos: in the caller's order.
    """

    address: SlabAddress | None
    photos: list[PhotoRow]


class OutcomeRow(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One outcome, under the name of its kind."""

    detected: Detected | None = None
    rejected: Rejected | None = None
    failed: Failed | None = None

    @classmethod
    def of(cls, outcome: Outcome) -> OutcomeRow:
        """The row of an outcome.

        Raises:
            TypeError: it is of none of the three kinds.
        """
        if isinstance(outcome, Detected):
            return cls(detected=outcome)
        if isinstance(outcome, Rejected):
            return cls(rejected=outcome)
        if isinstance(outcome, Failed):
            return cls(failed=outcome)
        raise TypeError(f"{type(outcome).__name__} is no kind of outcome.")

    @property
    def outcome(self) -> Outcome:
        """The outcome.

        Raises:
            ValueError: the row has none.
        """
        found = self.detected or self.rejected or self.failed
        if found is None:
            raise ValueError("A row has no outcome.")
        return found


@dataclass(frozen=True, slots=True)
class PrepareOrder:
    """How a photo is made small.

    Attributes:
        shapes: tensor sizes (height, width) to choose from, in pixels.
        limits: larger photos are refused.
        max_enlargement: factor by which a small photo is enlarged at most.
    """

    shapes: tuple[tuple[int, int], ...]
    limits: Limits
    max_enlargement: float


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a photo cannot be used, and the milliseconds after which that was known."""

    reason: Rejection
    detail: str
    spent_ms: float


class PreparedRow(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What became of a photo that another machine was to make small: its facts, or why it is unusable."""

    facts: PhotoFacts | None = None
    unusable: Unusable | None = None


class WorkOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function of rayface that one machine is to run, with plain arguments.

    Attributes:
        function: "module:name".
        arguments: by position; numbers, texts, lists and mappings.
    """

    function: str
    arguments: list[Any]


#: All types that travel between installations.
ALL_TYPES: tuple[Any, ...] = (
    Terms,
    CallRows,
    OutcomeRow,
    Health,
    PrepareOrder,
    PreparedRow,
    DetectorSettings,
    WorkOrder,
)
