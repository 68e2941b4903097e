"""One call of a client: its images, each with what is known of it so far."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Self

from actors.call_settings import OF_FAMILY, CallSettings
from actors.encoded_image import EncodedImage
from actors.faces import Health, Outcome, Priority, Stamp
from actors.images import ImageSource, PreparedImage
from actors.sources import is_file, pil_image

#: The photos of one question to a detector, in bytes. Ray sends larger arguments through its object store,
#: which needs further ports (see `node.contract.COMMON`); this leaves room for the rest of the question.
MAX_QUESTION_BYTES = 10_000_000


@dataclass(slots=True, eq=False)
class CallImage:
    """One image of a call, from what the caller gave to its outcome.

    Every stage of a call gets these same objects and writes into them. So no stage has to find out to which
    image an answer belongs.

    Attributes:
        source: what the caller gave: an encoded photo, a path, or pixels.
        photo: the source made small; None until then, and for an image that cannot be searched.
        encoded: the photo as a JPEG; None until it is to travel so.
        outcome: the newest answer; None before the first. The CPU's answer may replace a detector's failure.
    """

    source: ImageSource
    photo: PreparedImage | None = None
    encoded: EncodedImage | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Images that travel together.

    Attributes:
        images: in the caller's order.
        priority: of all of them.
        deadline: when the caller stops waiting, in seconds on the event loop's clock.
        begun: when the call began, on the same clock; infinity for a call that begins only now.
        settings: of the call.
        is_held: whether time in which no detector may be asked is no part of the deadline.
    """

    images: Sequence[CallImage]
    priority: Priority
    deadline: float
    begun: float = math.inf
    settings: CallSettings = OF_FAMILY
    is_held: bool = False

    @classmethod
    def of(
        cls,
        sources: Sequence[ImageSource],
        priority: Priority,
        deadline: float,
        begun: float = math.inf,
        settings: CallSettings = OF_FAMILY,
        *,
        is_held: bool = False,
    ) -> Self:
        """A call that has just begun."""
        return cls([CallImage(source) for source in sources], priority, deadline, begun, settings, is_held)

    @property
    def prepared(self) -> list[CallImage]:
        """The images that are ready to travel."""
        return [image for image in self.images if image.photo is not None]

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes so far, in the caller's order; at the end of the call, one for each image."""
        return [image.outcome for image in self.images if image.outcome is not None]

    def settle(self, outcome: Outcome) -> None:
        """Give every image the same outcome."""
        for image in self.images:
            image.outcome = outcome


def in_questions(images: Sequence[CallImage]) -> list[list[CallImage]]:
    """Divide prepared images into questions of at most `MAX_QUESTION_BYTES` each, in order.

    With the default settings a call is one question: 8 photos of 640 x 640 pixels are 9.8 MB. A larger
    `client.images_per_call` or `detector.input_size` needs several. One photo alone may be larger than the
    limit; it is a question of its own.
    """
    questions: list[list[CallImage]] = []
    num_bytes = 0
    for image in images:
        assert image.photo is not None
        size = image.photo.pixels.nbytes
        if not questions or num_bytes + size > MAX_QUESTION_BYTES:
            questions.append([])
            num_bytes = 0
        questions[-1].append(image)
        num_bytes += size
    return questions


def client_stamp(health: Health | None) -> Stamp:
    """The stamp of an outcome that the client itself gives.

    Args:
        health: of any detector, for the name of the model; None if no detector was heard yet.
    """
    return Stamp("client", health.stamp.model if health else "")


def refuse_one(images: object) -> None:
    """Refuse one image in place of several: its letters, rows or lines would be taken for images.

    Raises:
        TypeError: says what to pass.
    """
    is_one = isinstance(images, bytes | bytearray | memoryview | str | PathLike) or hasattr(images, "dtype")
    if is_one or is_file(images) or pil_image(images) is not None:
        raise TypeError("Pass a list of images, even for one: [image].")
    if not isinstance(images, Iterable | AsyncIterable):
        kind = type(images).__name__
        raise TypeError(f"This is a {kind} and no list of images; pass a list, even for one image: [image].")
