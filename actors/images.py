"""Encoded photo → small upright pixels that fit a tensor.

Pillow reads the header without decoding. libjpeg-turbo decodes most JPEGs (`actors/jpeg.py`), and Pillow
everything else: both at a reduced size where the format can, and both notice a truncated file (cv2 would fill
the rest with grey and say nothing). cv2 shrinks. Only `drawing` uses cv2 beside this module.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from actors import jpeg
from actors.decode_memory import check_memory
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.shrinking import MIN_PIXELS, shrunk_by_strips

if TYPE_CHECKING:
    from PIL.Image import Image

    from actors.settings import DetectorSettings

Pixels = NDArray[np.uint8]
ImageSource = bytes | bytearray | memoryview | str | PathLike[str] | NDArray[np.generic]

#: Suffixes of the files that are taken for photos in a folder.
IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".gif",
        ".heic",
        ".heif",
        ".avif",
    ]
)

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_ORIENTATION_TAG = 0x0112
_UPRIGHT_SWAPPED = (5, 6, 7, 8)
_GIANT_PIXELS = 50_000_000

# Two photos of 150 megapixels, decoded at once, would need a gigabyte: giant photos take turns.
_one_giant_at_a_time = threading.Lock()

_NO_IMAGE_FORMAT = {
    b"8BPS": "a Photoshop document",
    b"%PDF": "a PDF document",
    b"\x00\x00\x01\x00": "an icon",
    b"\xff\x0a": "a JPEG XL image",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL image",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 image",
    b"<svg": "an SVG drawing",
    b"FUJIFILMCCD-RAW": "a raw photo",
    b"%!PS": "a PostScript document",
}
_IMAGE_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a photo may be; a larger one is refused before it is decoded.

    Attributes:
        max_pixels: width times height, as the header declares them.
        max_bytes: size of the encoded file.
        max_decode_bytes: bytes of memory that decoding may take.
        max_decode_s: seconds of processor time that decoding may take, where a process of its own does it.
    """

    max_pixels: int
    max_bytes: int
    max_decode_bytes: int = 600_000_000
    max_decode_s: float = 20.0

    @classmethod
    def of(cls, settings: DetectorSettings) -> Self:
        """The limits that the settings say."""
        return cls(
            settings.max_image_pixels,
            settings.max_image_bytes,
            settings.max_decode_bytes,
            settings.max_decode_s,
        )


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A small upright photo, as it travels to the detector.

    Attributes:
        pixels: uint8[h, w, 3], BGR, no padding; fits `shape`.
        width: width of the upright original, in pixels.
        height: height of the upright original, in pixels.
        shape: (height, width) of the tensor that it was prepared for, in pixels.
        prepare_ms: milliseconds that preparing took.
        digest: hash of the pixels (XXH3, 16 bytes in hex); a detector recognises by it a photo that ended
            its process. It is no protection against somebody who makes another photo of the same digest.
        decoded_share: share of the photo's pixels that could be decoded, 0..1; less than 1 if a part of it
            is damaged or missing.
    """

    pixels: Pixels
    width: int
    height: int
    shape: tuple[int, int]
    prepare_ms: float
    digest: str
    decoded_share: float = 1.0

    @property
    def is_intact(self) -> bool:
        """Whether `pixels` still belong to this photo; asked after they were read."""
        return True


def prepare(
    source: ImageSource,
    shapes: Sequence[tuple[int, int]],
    limits: Limits,
    max_enlargement: float,
    clock: Callable[[], float] = time.perf_counter,
) -> PreparedImage:
    """Shrink one photo so that it fits a tensor.

    Args:
        source: an encoded photo (bytes), the path of one, or its pixels: uint8[height, width, 3] in
            BGR order, upright, as `cv2.imread` gives them.
        shapes: tensor sizes (height, width) to choose from.
        limits: larger photos are refused.
        max_enlargement: factor by which a small photo is enlarged at most.
        clock: returns seconds; for `prepare_ms`.

    Raises:
        ImageFault: the photo cannot be used; says why.
    """
    begun = clock()
    if isinstance(source, np.ndarray):
        pixels, (width, height) = check_pixels(source, limits), source.shape[1::-1]
        shape, small = fit(width, height, shapes, max_enlargement)
        pixels = _resized(pixels, small)
    else:
        data = encoded_bytes(source, limits)
        with _opened(data, limits) as image:
            orientation = 1 if image.format == "TIFF" else _orientation(image)
            swapped = orientation in _UPRIGHT_SWAPPED
            width, height = image.size[::-1] if swapped else image.size
            shape, small = fit(width, height, shapes, max_enlargement)
            lying = small[::-1] if swapped else small
            decoded = _decoded_by_turbo(data, image, lying)
            if decoded is not None:
                # Turning fewer pixels costs less, and the result is the same but for rounding.
                pixels = _turned(_resized(decoded, lying), orientation)
            else:
                # At 1/2, 1/4 or 1/8 of the size where the format can, never below what the tensor needs.
                image.draft("RGB", lying)
                image.load()
                if image.width * image.height < MIN_PIXELS:
                    pixels = np.ascontiguousarray(_resized(_upright_rgb(image), small)[:, :, ::-1])
                else:
                    strips = shrunk_by_strips(image, lying, _converter(image))
                    pixels = _turned(np.ascontiguousarray(_resized(strips, lying)[:, :, ::-1]), orientation)
    digest = xxhash.xxh3_128_hexdigest(pixels.data)
    return PreparedImage(pixels, width, height, shape, (clock() - begun) * 1000, digest)


def read_upright(source: ImageSource, limits: Limits) -> Pixels:
    """Read the whole photo, upright, as uint8[height, width, 3] in BGR order; for drawing on it.

    Raises:
        ImageFault: the photo cannot be used.
    """
    if isinstance(source, np.ndarray):
        return check_pixels(source, limits)
    with _opened(encoded_bytes(source, limits), limits) as image:
        return np.ascontiguousarray(_upright_rgb(image)[:, :, ::-1])


def fit(
    width: int, height: int, shapes: Sequence[tuple[int, int]], max_enlargement: float
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Choose the tensor for a photo, and the photo's size in it.

    Letterbox: s = min(H / height, W / width), at most `max_enlargement`. Of the shapes that allow the largest
        s,
    the one with the least area is chosen: padding costs as much time as pixels.

    Returns:
        The shape (height, width), and the small size (width, height) in pixels, at least 1 each.
    """
    scale, _, shape = max(
        (
            min(tensor_h / height, tensor_w / width, max_enlargement),
            -tensor_h * tensor_w,
            (tensor_h, tensor_w),
        )
        for tensor_h, tensor_w in shapes
    )
    small_w = min(shape[1], max(1, round(width * scale)))
    small_h = min(shape[0], max(1, round(height * scale)))
    return shape, (small_w, small_h)


def check_pixels(pixels: NDArray[np.generic], limits: Limits) -> Pixels:
    """Check that an array can be a photo, and return it.

    Raises:
        ImageFault: the array is not uint8[height, width, 3], or it is empty or too large.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageFault(
            Rejection.UNSUPPORTED,
            f"The array is {pixels.dtype}{list(pixels.shape)}; pass uint8[height, width, 3] in BGR order.",
        )
    if 0 in pixels.shape:
        raise ImageFault(Rejection.ZERO_SIZED, f"The array is empty: its shape is {list(pixels.shape)}.")
    _check_size(pixels.shape[1], pixels.shape[0], limits)
    return pixels.astype(np.uint8, copy=False)


def encoded_bytes(source: object, limits: Limits) -> bytes:
    """Read an encoded photo.

    Args:
        source: the photo itself, or the path of one.
        limits: a larger file is refused.

    Raises:
        ImageFault: it is no such source, it cannot be read, or it is empty or too large.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        num_bytes, data = len(source), bytes(source)
    elif not isinstance(source, str | PathLike) or not isinstance(fspath(source), str):
        raise ImageFault(
            Rejection.UNSUPPORTED,
            f"It is a {type(source).__name__}; pass an encoded photo as bytes, the path of one, or its "
            "pixels as a uint8[height, width, 3] array in BGR order.",
        )
    else:
        path = Path(source)
        try:
            num_bytes = path.stat().st_size
            # Reading a FIFO or a device may block or never end; only regular files are read.
            if path.exists() and not path.is_file():
                raise ImageFault(Rejection.UNREADABLE, "It is not a file; give the path of an image.")
            data = path.read_bytes() if num_bytes <= limits.max_bytes else b""
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ImageFault(Rejection.UNREADABLE, f"The file cannot be read: {why}.") from error
    if num_bytes > limits.max_bytes:
        raise ImageFault(
            Rejection.TOO_LARGE,
            f"The file has {num_bytes:,} bytes; the limit is {limits.max_bytes:,} (max_image_bytes). "
            "Send a smaller one.",
        )
    if not data:
        raise ImageFault(Rejection.ZERO_SIZED, "The file is empty (0 bytes).")
    return data


@contextmanager
def _opened(data: bytes, limits: Limits) -> Iterator[Image]:
    """Open an encoded photo and check its header; any error inside the block is the photo's fault."""
    from PIL import Image as Pil
    from PIL import UnidentifiedImageError

    formats: tuple[str, ...] = _FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        _need_heif()
        formats = ("HEIF",)
    try:
        with Pil.open(io.BytesIO(data), formats=formats) as image:
            _check_size(*image.size, limits)
            check_memory(image.format or "", image.mode, image.size, limits.max_decode_bytes)
            giant = image.size[0] * image.size[1] > _GIANT_PIXELS
            with _one_giant_at_a_time if giant else nullcontext():
                yield image
    except ImageFault:
        raise
    except (Pil.DecompressionBombError, Pil.DecompressionBombWarning) as error:
        raise ImageFault(
            Rejection.TOO_LARGE, f"The header declares too many pixels: {error} Send a smaller image."
        ) from error
    except jpeg.DamagedJpeg as error:
        if error.is_cut_short:
            raise ImageFault(Rejection.TRUNCATED, f"The image is cut short: {error}.") from error
        raise ImageFault(Rejection.DAMAGED, f"A part of the image is damaged: {error}.") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except MemoryError as error:
        raise ImageFault(
            Rejection.TOO_COSTLY, "There is not enough memory to decode the image; send a smaller one."
        ) from error
    except Exception as error:
        # Pillow's plug-ins raise OSError, SyntaxError, EOFError, ValueError, struct.error and others for
        # damaged files. Each of them was raised while this one photo was read.
        raise ImageFault(Rejection.TRUNCATED, f"The image is cut short or damaged: {error}.") from error


def _unidentified(data: bytes) -> ImageFault:
    for beginning, what in _NO_IMAGE_FORMAT.items():
        if data.startswith(beginning):
            return ImageFault(
                Rejection.UNSUPPORTED, f"It is {what}; send a JPEG, PNG, WebP, BMP, TIFF or GIF."
            )
    if data.startswith(_IMAGE_BEGINNINGS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        if data.startswith((b"II*\x00", b"MM\x00*")):
            return ImageFault(
                Rejection.UNSUPPORTED,
                "It is a TIFF or raw photo of a kind that cannot be read; send a JPEG or PNG.",
            )
        return ImageFault(
            Rejection.TRUNCATED, "The image is cut short or damaged: its header cannot be read."
        )
    return ImageFault(Rejection.NOT_AN_IMAGE, "It is not an image (its content has no known image format).")


def _need_heif() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageFault(
            Rejection.UNSUPPORTED, "It is a HEIC photo; install the extra: pip install 'rayface[heic]'."
        ) from error
    pillow_heif.register_heif_opener()


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise ImageFault(Rejection.ZERO_SIZED, f"The image has no pixels: {width} x {height}.")
    if width * height > limits.max_pixels:
        raise ImageFault(
            Rejection.TOO_LARGE,
            f"The image declares {width:,} x {height:,} pixels; "
            f"the limit is {limits.max_pixels:,} in total (max_image_pixels). Send a smaller one.",
        )


def _orientation(image: Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        # A broken EXIF block is common and no reason to refuse the photo: it is not turned.
        return 1


def _decoded_by_turbo(data: bytes, image: Image, needed: tuple[int, int]) -> Pixels | None:
    """Decode a JPEG that is grey or in colours; of any other image, and of an unusual one, return None."""
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        return None
    return jpeg.decode_reduced(data, image.size, needed)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Turn upright, by EXIF's orientation; the result is contiguous. An unknown orientation turns nothing."""
    import cv2

    turns: dict[int, Callable[[Pixels], Any]] = {
        2: lambda lying: cv2.flip(lying, 1),
        3: lambda lying: cv2.rotate(lying, cv2.ROTATE_180),
        4: lambda lying: cv2.flip(lying, 0),
        5: cv2.transpose,
        6: lambda lying: cv2.rotate(lying, cv2.ROTATE_90_CLOCKWISE),
        7: lambda lying: cv2.rotate(cv2.transpose(lying), cv2.ROTATE_180),
        8: lambda lying: cv2.rotate(lying, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }
    return np.asarray(turns[orientation](pixels), dtype=np.uint8) if orientation in turns else pixels


def _upright_rgb(image: Image) -> Pixels:
    """Decode and turn upright: uint8[h, w, 3] in RGB order; of an animation, only the first frame."""
    from PIL import ImageOps

    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    return _converter(image)(image)


def _converter(image: Image) -> Callable[[Image], Pixels]:
    """What makes uint8[h, w, 3] in RGB order of a decoded picture, or of any part of it."""
    if image.mode == "F":
        raise ImageFault(
            Rejection.UNSUPPORTED,
            "The pixels are floating-point numbers without a known range; send 8-bit pixels.",
        )
    if not image.mode.startswith("I"):
        return _rgb
    is_deep = image.mode.startswith("I;16") or np.max(image.getextrema()) > 255
    return partial(_grey, shift=8 if is_deep else 0)


def _grey(image: Image, shift: int) -> Pixels:
    # Pillow's own conversion would make everything above 255 white.
    grey = np.clip(np.asarray(image) >> shift, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _rgb(image: Image) -> Pixels:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _resized(pixels: Pixels, small: tuple[int, int]) -> Pixels:
    import cv2

    if (pixels.shape[1], pixels.shape[0]) == small:
        return np.ascontiguousarray(pixels)
    shrinking = small[0] < pixels.shape[1] or small[1] < pixels.shape[0]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, small, interpolation=method), dtype=np.uint8)
