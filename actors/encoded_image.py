"""A prepared photo as a JPEG: what travels over a slow link in place of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from actors import jpeg
from actors.errors import DetectorFault
from actors.images import PreparedImage
from actors.named_state import by_names

#: The lowest quality at which every face of the sample photos agrees with that of the pixels at an IoU of
#: 0.98 or better, for CenterFace and YuNet (`tests/benchmarks/wire_agreement.py`).
QUALITY = 98


@by_names
@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A `PreparedImage` whose pixels are encoded as a JPEG of high quality.

    Attributes:
        data: the JPEG.
        small_width: width of the picture in it, in pixels.
        small_height: height of the picture in it, in pixels.
        width: width of the upright original, in pixels.
        height: height of the upright original, in pixels.
        shape: (height, width) of the tensor that it was prepared for, in pixels.
        prepare_ms: milliseconds that preparing took, without encoding.
        digest: of the pixels before they were encoded; see `PreparedImage`.
        decoded_share: see `PreparedImage`.
    """

    data: bytes
    small_width: int
    small_height: int
    width: int
    height: int
    shape: tuple[int, int]
    prepare_ms: float
    digest: str
    decoded_share: float = 1.0

    @classmethod
    def of(cls, photo: PreparedImage, quality: int = QUALITY) -> Self:
        """Encode a photo; takes milliseconds of processor time.

        Args:
            photo: prepared.
            quality: libjpeg's, 1..100.
        """
        height, width = photo.pixels.shape[:2]
        data = jpeg.encode(photo.pixels, quality)
        return cls(
            data,
            width,
            height,
            photo.width,
            photo.height,
            photo.shape,
            photo.prepare_ms,
            photo.digest,
            photo.decoded_share,
        )

    def decoded(self) -> PreparedImage:
        """The photo, with pixels as they come out of the JPEG; takes milliseconds of processor time.

        Raises:
            DetectorFault: the JPEG is not what `of` made. The photo was good, so the fault is ours.
        """
        try:
            pixels = jpeg.decode_ours(self.data, self.small_height, self.small_width)
        except jpeg.DamagedJpeg as error:
            raise DetectorFault(
                f"The photo arrived damaged: its JPEG cannot be decoded ({error}). Please report it, and set "
                'client.wire = "pixels" meanwhile.'
            ) from error
        return PreparedImage(
            pixels, self.width, self.height, self.shape, self.prepare_ms, self.digest, self.decoded_share
        )


#: What a client sends to a detector.
SentImage = PreparedImage | EncodedImage
