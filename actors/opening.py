"""Opens an encoded photo with Pillow, and says what is wrong with one that cannot be opened or decoded.

Pillow's own limit of pixels is lower than ours and differs by format, so only ours counts here. What Pillow
warns of concerns metadata, which nobody asked for, so its warnings are not shown.
"""

from __future__ import annotations

import importlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, Any

from actors import codecs, holes, iso_items, jpeg, jpeg_damage, tiff_damage
from actors.decode_memory import check_memory
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

_GIANT_PIXELS = 50_000_000
# Two photos of 150 megapixels, decoded at once, would need a gigabyte: giant photos take turns.
_one_giant_at_a_time = threading.Lock()

#: The module and the class that open a format. `Image.open` would check Pillow's own limit of pixels, and
#: look into every JPEG for further pictures.
_OPENERS = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "DIB": ("PIL.BmpImagePlugin", "DibImageFile"),
    "HEIF": ("pillow_heif.as_plugin", "HeifImageFile"),
    "TIFF": ("actors.pillow_tiff", "UprightTiff"),
}
#: The same picture with fewer metadata, for a file that cannot be opened.
_TIDIED: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": lambda data: jpeg_damage.parse(data).written(),
    "AVIF": iso_items.without_exif,
}
_CUT_SHORT = ("truncat", "end of file", "unexpected end", "not enough data", "eof")
_PILLOWS_MODULES = r"PIL\."


@contextmanager
def opened(data: bytes, limits: Limits) -> Iterator[Image]:
    """Open an encoded photo and check its header; any error inside the block is the photo's fault.

    Yields:
        The image, not decoded yet.

    Raises:
        ImageFault: the photo cannot be used; says why.
    """
    name = codecs.identify(data)
    if name == "HEIF":
        codecs.need_heif()
    if name == "PNG":
        data = holes.tidy_png(data)
    if name == "WEBP":
        data = holes.tidy_webp(data)
    limit = nullcontext() if name == "JPEG" else _pillows_limit_off
    is_open = False
    try:
        with limit, _open(data, name) as image:
            is_open = True
            limits.check_size(*image.size)
            check_memory(image.format or "", image.mode, image.size, limits.max_decode_bytes)
            giant = image.size[0] * image.size[1] > _GIANT_PIXELS
            with _one_giant_at_a_time if giant else nullcontext():
                holes.check_holes(name, data)
                if name == "TIFF":
                    tiff_damage.check_pieces(image, data)
                yield image
                if name == "WEBP":
                    holes.check_webp(data, _decodes_webp)
    except ImageFault:
        raise
    except jpeg.DamagedJpeg as error:
        if error.is_cut_short:
            raise ImageFault(Rejection.TRUNCATED, f"The image is cut short: {error}.") from error
        raise ImageFault(Rejection.DAMAGED, f"A part of the image is damaged: {error}.") from error
    except MemoryError as error:
        raise ImageFault(
            Rejection.TOO_COSTLY, "There is not enough memory to decode the image; send a smaller one."
        ) from error
    except Exception as error:
        # Pillow's plug-ins raise OSError, SyntaxError, EOFError, ValueError, struct.error and others for
        # damaged files. Each of them was raised while this one photo was read.
        raise _fault(data, name, is_open, error) from error


def _decodes_webp(data: bytes) -> bool:
    try:
        with _open(data, "WEBP") as image:
            image.load()
    except Exception:
        # What Pillow raises for a file that is cut short; its kind does not matter.
        return False
    return True


def _open(data: bytes, name: str) -> Image:
    module, kind = _OPENERS[name]
    if not any(each[0] == "ignore" and _pattern(each) == _PILLOWS_MODULES for each in warnings.filters):
        # `catch_warnings` would change what other threads of the caller see, and not be safe in threads.
        warnings.filterwarnings("ignore", module=_PILLOWS_MODULES)
    opener: Callable[[IO[bytes], str], Image] = getattr(importlib.import_module(module), kind)
    try:
        return opener(io.BytesIO(data), "")
    except Exception:
        if name not in _TIDIED:
            raise
        # Pillow and libavif read all metadata, and refuse a photo for some that no pixel needs.
        return opener(io.BytesIO(_TIDIED[name](data)), "")


def _pattern(entry: Any) -> str:
    """The pattern of modules in an entry of the list of filters."""
    return getattr(entry[3], "pattern", entry[3]) or ""


def _fault(data: bytes, name: str, is_open: bool, error: Exception) -> ImageFault:
    if name == "JPEG" and (fault := codecs.unread_jpeg(data)) is not None:
        return fault
    if name == "TIFF":
        if (fault := codecs.missing_tiff_codec(data)) is not None:
            return fault
        if not is_open and tiff_damage.has_size(data):
            return ImageFault(
                Rejection.UNSUPPORTED, "It is a TIFF of a kind that cannot be read; send a JPEG or PNG."
            )
    if not is_open:
        return ImageFault(
            Rejection.TRUNCATED, "The image is cut short or damaged: its header cannot be read."
        )
    said = f"{error}".lower()
    if _is_cut_short(data, name) or any(words in said for words in _CUT_SHORT):
        return ImageFault(Rejection.TRUNCATED, f"The image is cut short: {error}.")
    return ImageFault(Rejection.DAMAGED, f"A part of the image is damaged: {error}.")


def _is_cut_short(data: bytes, name: str) -> bool:
    """Whether the file is shorter than it says itself, in the formats that say it."""
    if name == "WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    if name == "PNG":
        return b"IEND" not in data[-64:] and b"IEND" not in data
    if name == "BMP":
        return len(data) < int.from_bytes(data[2:6], "little")
    return False


class _PillowsLimitOff:
    """While any thread is within it, Pillow has no limit of pixels; afterwards it has the one from before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_within = 0
        self._before: int | None = None

    def __enter__(self) -> None:
        from PIL import Image

        with self._lock:
            if not self._num_within:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._num_within += 1

    def __exit__(self, *_: object) -> None:
        from PIL import Image

        with self._lock:
            self._num_within -= 1
            if not self._num_within:
                Image.MAX_IMAGE_PIXELS = self._before


_pillows_limit_off = _PillowsLimitOff()
