"""What callers may pass as a photo, and reading it: never more than the limits allow."""

from __future__ import annotations

import sys
from os import PathLike, fspath
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from actors.errors import ImageFault
from actors.faces import Rejection
from actors.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels: TypeAlias = NDArray[np.uint8]
#: An encoded photo, its path, a binary file that holds it, or its pixels.
ImageSource: TypeAlias = (
    "bytes | bytearray | memoryview | str | PathLike[str] | IO[bytes] | NDArray[np.generic] | Image"
)
WHAT_TO_PASS = (
    "pass an encoded photo as bytes, the path of one, a binary file, a PIL image, or its pixels as a "
    "uint8[height, width, 3] array in BGR order"
)
_STEP_BYTES = 1 << 20
#: What Pillow calls the formats that are read here; it knows more, and decodes those itself.
_READ_FROM_FILE = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF")


def pil_image(source: object) -> Image | None:
    """The source, if it is a PIL image; PIL is not loaded for the question."""
    # Another thread may be loading it at this moment: then it is listed, and has no such class yet.
    kind = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return source if kind is not None and isinstance(source, kind) else None


def unread_file(source: ImageSource) -> ImageSource:
    """The file of a PIL image that is opened and not decoded yet; any other source as it is.

    Pillow would decode it without a word on damage.
    """
    image = pil_image(source)
    is_drafted = bool(getattr(image, "decoderconfig", None))
    if image is None or is_drafted or not getattr(image, "tile", None):
        return source
    if image.format not in _READ_FROM_FILE:
        return source
    file: IO[bytes] | None = getattr(image, "fp", None)
    return source if file is None or image.tell() else file


def is_pixels(source: object) -> bool:
    """Whether a source holds its pixels already: an array, or a PIL image that is decoded."""
    return isinstance(source, np.ndarray) or pil_image(unread_file(cast(ImageSource, source))) is not None


def is_file(source: object) -> TypeGuard[IO[bytes]]:
    """Whether a source is an object that can be read like a file."""
    return callable(getattr(source, "read", None))


def encoded_bytes(source: object, limits: Limits) -> bytes:
    """Read an encoded photo.

    Args:
        source: bytes, a path, or a binary file. A file is read from its beginning, where it has one, and
            stands afterwards where it stood before.
        limits: no more is read than they allow.

    Raises:
        ImageFault: it cannot be read, or is no photo by its type; says what to pass.
    """
    source = unread_file(cast(ImageSource, source))
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            limits.check_bytes(memoryview(source).nbytes)
            return bytes(source)
        if isinstance(source, str | PathLike) and isinstance(fspath(source), str):
            return _read_path(Path(source), limits)
        if is_file(source):
            return _read_file(source, limits)
    except (ImageFault, MemoryError):
        raise
    except Exception as error:
        # A file object is the caller's: one in an archive raises errors of its own.
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageFault(Rejection.UNREADABLE, f"The file cannot be read: {why}.") from error
    raise ImageFault(Rejection.UNSUPPORTED, f"It is a {type(source).__name__}; {WHAT_TO_PASS}.")


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
    limits.check_size(pixels.shape[1], pixels.shape[0])
    return pixels.astype(np.uint8, copy=False)


def _read_path(path: Path, limits: Limits) -> bytes:
    num_bytes = path.stat().st_size
    # Reading a FIFO or a device may block or never end; only regular files are read.
    if path.exists() and not path.is_file():
        raise ImageFault(Rejection.UNREADABLE, "It is not a file; give the path of an image.")
    limits.check_bytes(num_bytes)
    data = path.read_bytes()
    # It may have changed meanwhile.
    limits.check_bytes(len(data))
    return data


def _read_file(file: IO[bytes], limits: Limits) -> bytes:
    seek, tell = getattr(file, "seek", None), getattr(file, "tell", None)
    before: int | None = None
    if seek and tell and getattr(file, "seekable", lambda: True)():
        before = tell()
        seek(0)
    try:
        parts, num_bytes = [], 0
        # A socket gives less than it is asked for.
        while part := file.read(min(_STEP_BYTES, limits.max_bytes + 1 - num_bytes)):
            if not isinstance(part, bytes | bytearray | memoryview):
                raise ImageFault(
                    Rejection.UNSUPPORTED,
                    f"Reading the file gives {type(part).__name__} and not bytes; open it in binary mode "
                    '(open(path, "rb")).',
                )
            parts.append(bytes(part))
            num_bytes += len(part)
            if num_bytes > limits.max_bytes:
                break
    finally:
        if before is not None and seek:
            seek(before)
    if num_bytes > limits.max_bytes:
        raise ImageFault(
            Rejection.TOO_LARGE,
            f"The file has more than {limits.max_bytes:,} bytes (max_image_bytes). Send a smaller one.",
        )
    limits.check_bytes(num_bytes)
    return b"".join(parts)
