"""Chooses how photos travel to a detector: as pixels, or as JPEGs where the link is slow.

Pixels of 640 x 480 are 0.92 MB. A JPEG of them has a fifth of the bytes, and costs a few milliseconds of
processor time here and as many beside the detector. So it pays on a slow link, where neither the cores of
this machine nor those of the detector's are what photos wait for. Nothing here keeps time: times are handed
in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from actors.encoded_image import EncodedImage, SentImage
from actors.faces import Detected, Outcome
from actors.images import PreparedImage

Encoding = Literal["pixels", "jpeg"]

#: With fewer calls than this, the speed of a link is unknown.
_MIN_CALLS = 3
_MAX_CALLS = 15
#: Calls of fewer bytes tell of the detector's price of a call, and not of the link.
_MIN_BYTES = 30_000
#: A shorter time cannot be told from the noise of the clocks.
_MIN_S = 0.0005
#: A choice is changed only if the other one is better by this factor.
_CLEARLY = 1.2
#: A thread gets a part of a core on a busy machine too.
_LEAST_SPARE_CORES = 0.1
#: Until photos were encoded: bytes of a JPEG as a share of those of the pixels, and seconds for a byte of
#: pixels (`tests/benchmarks/wire_agreement.py`).
_USUAL_SHARE, _USUAL_ENCODE_S = 0.19, 3.5e-9


def num_bytes(images: Sequence[SentImage]) -> int:
    """Bytes of photos on the way."""
    return sum(
        len(each.data) if isinstance(each, EncodedImage) else int(each.pixels.nbytes) for each in images
    )


@dataclass(frozen=True, slots=True)
class Journey:
    """A call that is under way.

    Attributes:
        begun: when it was sent, in seconds on the caller's clock.
        num_bytes: of its photos.
        num_delivered: bytes that the link had delivered when the call was sent.
    """

    begun: float
    num_bytes: int
    num_delivered: int


class Link:
    """The link to one detector, measured by the client's own calls.

    Two figures of a call say how fast the link is at least: all bytes that were delivered while the call was
    under way, because several calls share the link; and the call's own bytes in the time without what the
    detector needed, because photos may wait for the device and not for the link. The greater one is taken.
    From both times, we take the shortest time in which the detector answered a question without photos. Of
    the last calls' speeds, the upper quartile is taken: a busy processor makes a call slower, and nothing
    makes it faster than the link.

    Attributes:
        encoding: how photos travel now.
    """

    def __init__(self) -> None:
        self.encoding: Encoding = "pixels"
        self._num_delivered = 0
        self._speeds: deque[float] = deque(maxlen=_MAX_CALLS)
        self._empty_s: deque[float] = deque(maxlen=_MAX_CALLS)

    @property
    def bytes_per_s(self) -> float | None:
        """The speed for photos, in bytes a second; None while it is unknown."""
        if len(self._speeds) < _MIN_CALLS:
            return None
        return sorted(self._speeds)[len(self._speeds) * 3 // 4]

    def answered_without_photos(self, took_s: float) -> None:
        """Take in how long the detector took for a question without photos."""
        self._empty_s.append(took_s)

    def begin(self, now: float, size: int) -> Journey:
        """A call with that many bytes of photos is sent."""
        return Journey(now, size, self._num_delivered)

    def end(self, journey: Journey, now: float, outcomes: Sequence[Outcome]) -> None:
        """The answer is here; a call without a detected image only counts its bytes."""
        self._num_delivered += journey.num_bytes
        device_ms = [
            each.times.queue_ms + each.times.run_ms for each in outcomes if isinstance(each, Detected)
        ]
        if not device_ms or journey.num_bytes < _MIN_BYTES:
            return
        took_s = now - journey.begun
        own_s = took_s - max(device_ms) / 1000
        all_bytes = self._num_delivered - journey.num_delivered
        # The link is at least as fast as each of the two says.
        self._speeds.append(
            max(all_bytes / self._travelled(took_s), journey.num_bytes / self._travelled(own_s))
        )

    def _travelled(self, took_s: float) -> float:
        """Seconds without those that a call without photos takes.

        Where a link is full, a question without photos waits behind photos too. So it never explains more
        than half of the time.
        """
        took_s = max(_MIN_S, took_s)
        return took_s - min(took_s / 2, min(self._empty_s, default=0.0))


@dataclass(frozen=True, slots=True)
class Costs:
    """What one photo costs.

    Attributes:
        pixel_bytes: bytes of its pixels.
        jpeg_bytes: bytes of its JPEG.
        prepare_s: seconds of one core of this machine to prepare it.
        encode_s: seconds of one core to encode it; decoding takes as long.
    """

    pixel_bytes: float
    jpeg_bytes: float
    prepare_s: float
    encode_s: float


def better(
    costs: Costs, bytes_per_s: float, num_cores: int, now: Encoding, spare_cores: float | None = None
) -> Encoding:
    """Choose how photos travel over a link.

    JPEGs are chosen if one photo alone arrives sooner by them, and a stream of photos is not slowed down: the
    link or the cores of this machine limit it. The detector's cores need no look of their own there, because
    decoding that delays one photo less than the link does keeps up with the link too.

    Args:
        costs: of a usual photo.
        bytes_per_s: the link's speed.
        num_cores: cores of this machine that prepare photos.
        now: how they travel now; kept unless the other way is clearly better.
        spare_cores: cores of the detector's machine that could decode; None, if it does not say, counts as
            one.
    """
    spare_cores = 1.0 if spare_cores is None else max(_LEAST_SPARE_CORES, spare_cores)
    by_pixels, by_jpeg = costs.pixel_bytes / bytes_per_s, costs.jpeg_bytes / bytes_per_s
    # One photo is decoded by one thread, however many cores are idle.
    alone = (by_pixels, by_jpeg + costs.encode_s + costs.encode_s / min(1.0, spare_cores))
    stream = (
        max(by_pixels, costs.prepare_s / num_cores),
        max(by_jpeg, (costs.prepare_s + costs.encode_s) / num_cores),
    )
    factor = _CLEARLY if now == "pixels" else 1 / _CLEARLY
    pays = alone[1] * factor <= alone[0]
    # A stream that waits for the cores in both cases must not wait clearly longer.
    slows = stream[1] > stream[0] * (1.0 if now == "pixels" else _CLEARLY)
    return "jpeg" if pays and not slows else "pixels"


class WireChoice:
    """Chooses for each call how its photos travel; one for a client.

    Args:
        wire: the setting `client.wire`.
        num_cores: cores that prepare photos.
        host: the name of this machine.
    """

    def __init__(self, wire: Literal["pixels", "jpeg", "auto"], num_cores: int, host: str) -> None:
        self._wire = wire
        self._num_cores = num_cores
        self._host = host
        self._shares: deque[float] = deque([_USUAL_SHARE], maxlen=_MAX_CALLS)
        self._encode_s: deque[float] = deque([_USUAL_ENCODE_S], maxlen=_MAX_CALLS)

    def choose(
        self, link: Link, host: str, photos: Sequence[PreparedImage], spare_cores: float | None = None
    ) -> Encoding:
        """How these photos travel; the link remembers it.

        Args:
            link: to the detector.
            host: the name of the detector's machine; empty if it is unknown.
            photos: prepared, at least one.
            spare_cores: cores of the detector's machine that could decode; None if it does not say.
        """
        if self._wire != "auto":
            link.encoding = self._wire
        elif host == self._host:
            # A machine reaches itself faster than it encodes.
            link.encoding = "pixels"
        elif (speed := link.bytes_per_s) is not None:
            pixel_bytes = num_bytes(photos) / len(photos)
            costs = Costs(
                pixel_bytes,
                pixel_bytes * median(self._shares),
                median(each.prepare_ms for each in photos) / 1000,
                pixel_bytes * median(self._encode_s),
            )
            link.encoding = better(costs, speed, self._num_cores, link.encoding, spare_cores)
        return link.encoding

    def encoded(self, photos: Sequence[PreparedImage], made: Sequence[SentImage], took_s: float) -> None:
        """Take in what encoding photos cost.

        Args:
            photos: before.
            made: the same, encoded.
            took_s: seconds of one core for all of them together.
        """
        pixel_bytes = num_bytes(photos)
        self._shares.append(num_bytes(made) / pixel_bytes)
        self._encode_s.append(took_s / pixel_bytes)
