"""What kind of image a file is, by its content, and which codec it needs."""

from __future__ import annotations

import io
from functools import cache

from actors.errors import ImageFault
from actors.faces import Rejection
from actors.tiff_tags import BEGINNINGS as TIFF_BEGINNINGS
from actors.tiff_tags import directories

_NO_IMAGE_FORMAT = {
    b"8BPS": "a Photoshop document",
    b"%PDF": "a PDF document",
    b"\x00\x00\x01\x00": "an icon",
    b"\xff\x0a": "a JPEG XL image",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL image",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 image",
    b"<svg": "an SVG drawing",
    b"%!PS": "a PostScript document",
    b"\xffO\xffQ": "a JPEG 2000 image",
    b"II\xbc\x01": "a JPEG XR image",
    b"FOVb": "a raw photo of Sigma",
    b"\0MRM": "a raw photo of Minolta",
    b"II\x1a\0\0\0HEAPCCDR": "a raw photo of an old Canon",
    b"v/1\x01": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance image",
    b"DDS ": "a texture",
    b"qoif": "a QOI image",
    **{b"P%d%c" % (kind, space): "a portable anymap" for kind in range(1, 8) for space in b" \n\r\t"},
}
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
}
#: The size of its header is what a bitmap without a file header begins with.
_DIB_HEADERS = tuple(bytes([size, 0, 0, 0]) for size in (12, 40, 52, 56, 64, 108, 124))
#: What a picture in an ISO container is encoded with. https://mp4ra.org/registered-types/codecs
_ITEM_CODECS = {
    b"hvc1": "HEIF",
    b"hev1": "HEIF",
    b"av01": "AVIF",
    b"avc1": "H.264",
    b"vvc1": "H.266",
    b"j2k1": "JPEG 2000",
    b"jpeg": "JPEG",
    b"unci": "uncompressed HEIF",
}
_BRANDS = {
    **dict.fromkeys([b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"], "HEIF"),
    **dict.fromkeys([b"avif", b"avis"], "AVIF"),
}
#: Frames of a JPEG (ITU-T T.81, table B.1); those without a name are read. 0xF7 is ITU-T T.87's.
_JPEG_FRAMES = {
    **dict.fromkeys([0xC0, 0xC1, 0xC2], ""),
    # Decoders fill up with zeros what is missing in it, and say nothing.
    **dict.fromkeys([0xC9, 0xCA], "a JPEG in arithmetic code, in which damage cannot be noticed"),
    **dict.fromkeys([0xC3, 0xCB], "a lossless JPEG"),
    **dict.fromkeys([0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE], "a JPEG of several sizes in layers"),
    0xF7: "a JPEG-LS image",
}
_JPEG_SCAN = 0xDA
#: Before the first scan of a JPEG; a photo has some dozens.
_MAX_MARKERS = 1000
#: Brands of films. https://mp4ra.org/registered-types/brands
_FILMS = (
    b"isom",
    b"iso2",
    b"iso4",
    b"iso5",
    b"iso6",
    b"mp41",
    b"mp42",
    b"qt  ",
    b"avc1",
    b"M4V ",
    b"dash",
    b"3gp4",
    b"3gp5",
)
_PLAIN = "send a JPEG or PNG"
_PILLOWS_OWN = "this installation of Pillow has none; `pip install --force-reinstall pillow` brings it"
#: TIFF's tag 259. https://www.awaresystems.be/imaging/tiff/tifftags/compression.html
_COMPRESSION_TAG = 259
_TIFF_CODECS = {
    6: ("old-style JPEG", "jpeg"),
    34661: ("JBIG", ""),
    34712: ("JPEG 2000", ""),
    34887: ("LERC", ""),
    34925: ("LZMA", "lzma"),
    50000: ("Zstandard", "zstd"),
    50001: ("WebP", "webp"),
    52546: ("JPEG XL", ""),
}


def identify(data: bytes) -> str:
    """Name the format of a file: JPEG, PNG, WEBP, AVIF, HEIF, GIF, BMP, DIB or TIFF.

    Raises:
        ImageFault: it is no image, or one of a kind that is not read; says which, and what to send.
    """
    for beginning, name in _BEGINNINGS.items():
        if data.startswith(beginning):
            if data[12:16] == b"CgBI":
                raise ImageFault(
                    Rejection.UNSUPPORTED,
                    "It is a PNG as it is written into programs for iPhones; send the original one.",
                )
            return name
    if data.startswith(TIFF_BEGINNINGS):
        return "TIFF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _supported("WEBP", "webp")
    if data[4:8] == b"ftyp" and (codec := _iso_codec(data)):
        if codec in ("HEIF", "AVIF"):
            return _supported(codec, "avif") if codec == "AVIF" else codec
        raise ImageFault(
            Rejection.UNSUPPORTED, f"It is a HEIF container whose picture is encoded as {codec}; {_PLAIN}."
        )
    if data[4:8] == b"ftyp" and data[8:12] in _FILMS:
        raise ImageFault(Rejection.UNSUPPORTED, "It is a film; send one of its pictures as a JPEG.")
    for beginning, what in _NO_IMAGE_FORMAT.items():
        if data.startswith(beginning):
            raise ImageFault(
                Rejection.UNSUPPORTED, f"It is {what}; send a JPEG, PNG, WebP, AVIF, BMP, TIFF or GIF."
            )
    if data.startswith(_DIB_HEADERS):
        return "DIB"
    raise ImageFault(Rejection.NOT_AN_IMAGE, "It is not an image (its content has no known image format).")


def unread_jpeg(data: bytes) -> ImageFault | None:
    """The refusal of a JPEG of a kind that is not read here, told from its header; None for any other."""
    at = 2
    for _ in range(_MAX_MARKERS):
        if data[at : at + 1] != b"\xff" or at + 10 > len(data):
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        depth, num_channels = data[at + 4], data[at + 9]
        if marker in _JPEG_FRAMES:
            what = _JPEG_FRAMES[marker]
            if not what and depth != 8:
                what = f"a JPEG of {depth} bits"
            if not what and num_channels not in (1, 3, 4):
                what = f"a JPEG of {num_channels} channels"
            return (
                ImageFault(Rejection.UNSUPPORTED, f"It is {what}; send an ordinary JPEG.") if what else None
            )
        if marker == _JPEG_SCAN:
            return None
        at += 1 if marker == 0xFF else 2 + length
    return None


def missing_tiff_codec(data: bytes) -> ImageFault | None:
    """The refusal of a TIFF that needs a codec that is not here; None if its codec is here.

    Asked after decoding has failed: only then is a missing codec told from damage.
    """
    compression = next((each.number(_COMPRESSION_TAG, 1) for each in directories(data)), 1)
    name, pillows_name = _TIFF_CODECS.get(compression, ("", ""))
    if not name or (pillows_name and _tiff_encodes(pillows_name)):
        return None
    how = f"libtiff in this installation of Pillow has no codec for it; {_PLAIN}"
    return ImageFault(Rejection.UNSUPPORTED, f"It is a TIFF whose picture is encoded as {name}, and {how}.")


def need_heif() -> None:
    """Let Pillow read HEIC.

    Raises:
        ImageFault: the extra for it is not installed; says how to get it.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageFault(
            Rejection.UNSUPPORTED, "It is a HEIC photo; install the extra: pip install 'rayface[heic]'."
        ) from error
    pillow_heif.register_heif_opener()


def _iso_codec(data: bytes) -> str:
    """The codec of the first picture in an ISO container (HEIF), by its items, or else by its brands."""
    size = int.from_bytes(data[:4], "big")
    major, brands = data[8:12], {data[at : at + 4] for at in range(16, min(size, 256), 4)}
    if major not in _BRANDS and not brands & _BRANDS.keys():
        return ""
    head = data[: data.find(b"mdat") if b"mdat" in data else len(data)]
    # The picture's item comes before those of its thumbnails and its depth.
    items = [(at, codec) for kind, codec in _ITEM_CODECS.items() if (at := head.find(b"infe")) >= 0]
    named = [(at, codec) for kind, codec in _ITEM_CODECS.items() if (at := _item_at(head, kind)) >= 0]
    if items and named:
        return min(named)[1]
    if b"avif" in brands:
        return "AVIF"
    return _BRANDS.get(major, "HEIF")


def _item_at(head: bytes, kind: bytes) -> int:
    """Where an item of a kind is declared first (ISO/IEC 14496-12, 8.11.6); -1 if none is."""
    at = head.find(b"infe")
    while at >= 0:
        # After the name of the box: its version and flags (4), the item's number (2 or 4), protection (2).
        if kind in (head[at + 12 : at + 16], head[at + 14 : at + 18]):
            return at
        at = head.find(b"infe", at + 4)
    return -1


def _supported(name: str, feature: str) -> str:
    from PIL import features

    if not features.check(feature):
        what = {"WEBP": "a WebP", "AVIF": "an AVIF"}[name]
        raise ImageFault(Rejection.UNSUPPORTED, f"It is {what} picture, which needs a codec: {_PILLOWS_OWN}.")
    return name


@cache
def _tiff_encodes(compression: str) -> bool:
    """Whether libtiff has a codec; nothing but an attempt tells."""
    from PIL import Image

    try:
        Image.new("RGB", (16, 16)).save(io.BytesIO(), "TIFF", compression=compression)
    except Exception:
        return False
    return True
