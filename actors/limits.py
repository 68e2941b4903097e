"""`Limits`: how large a photo may be, what decoding it may cost, and whether a damaged one is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from actors.errors import ImageFault
from actors.faces import Rejection

if TYPE_CHECKING:
    from actors.settings import DetectorSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """What is accepted; a larger photo is refused before it is decoded.

    Attributes:
        max_pixels: width times height, as the header declares them.
        max_bytes: size of the encoded file.
        max_decode_bytes: bytes of memory that decoding may take.
        max_decode_s: seconds of processor time that decoding may take, where a process of its own does it.
        search_damaged: whether what is left of a damaged JPEG is accepted.
    """

    max_pixels: int
    max_bytes: int
    max_decode_bytes: int = 600_000_000
    max_decode_s: float = 20.0
    search_damaged: bool = False

    @classmethod
    def of(cls, settings: DetectorSettings) -> Self:
        """The limits that the settings say."""
        return cls(
            settings.max_image_pixels,
            settings.max_image_bytes,
            settings.max_decode_bytes,
            settings.max_decode_s,
            settings.search_damaged,
        )

    def check_size(self, width: int, height: int) -> None:
        """Refuse a photo of no pixels, or of too many.

        Raises:
            ImageFault: it is zero-sized or too large.
        """
        if width < 1 or height < 1:
            raise ImageFault(Rejection.ZERO_SIZED, f"The image has no pixels: {width} x {height}.")
        if width * height > self.max_pixels:
            raise ImageFault(
                Rejection.TOO_LARGE,
                f"The image declares {width:,} x {height:,} pixels; "
                f"the limit is {self.max_pixels:,} in total (max_image_pixels). Send a smaller one.",
            )

    def check_bytes(self, num_bytes: int) -> None:
        """Refuse an encoded photo of no bytes, or of too many.

        Raises:
            ImageFault: it is zero-sized or too large.
        """
        if num_bytes > self.max_bytes:
            raise ImageFault(
                Rejection.TOO_LARGE,
                f"The file has {num_bytes:,} bytes; the limit is {self.max_bytes:,} (max_image_bytes). "
                "Send a smaller one.",
            )
        if num_bytes == 0:
            raise ImageFault(Rejection.ZERO_SIZED, "The file is empty (0 bytes).")
