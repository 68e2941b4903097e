"""What libjpeg's warnings say of a JPEG: damage, or mere untidiness after which all pixels are there.

libjpeg tells of the first warning only. So a harmless one could hide a damage behind it: then the file is
tidied, and decoded again. Markers and segments: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

#: Warnings after which a part of the picture is made up.
_DAMAGE = ("premature end of data segment", "bad Huffman code", "bad progression parameters")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_RESTART_TROUBLE = re.compile(r"found marker 0x[0-9a-f]{2} instead of RST|before marker 0xd[0-7]\b")
#: libjpeg has read this many bytes ahead at most when it counts what is left over.
_READ_AHEAD = 16
#: Markers that are looked at; a photo has some dozens beside restart markers. And end markers.
_MAX_MARKERS = 10_000
_MAX_ENDS = 100
#: Restart markers of a JPEG that are put in order; a photo of 50 megapixels with one each 16 x 16 pixels.
_MAX_RESTARTS = 200_000
#: As many zeros in a row cannot come from the AC scans of a progressive JPEG: blocks without values are
#: counted in one code there.
_MAX_ZEROS_IN_SCAN = 256

#: As many zeros in a row cannot come from another JPEG, unless its code for "no more values" is all zeros.
_MAX_ZEROS = 128
_ZEROS = "a scan has zeros in place of its data"
_HOLE = re.compile(rb"(.)\1{63}", re.DOTALL)
_SOI, _EOI, _END = b"\xff\xd8", b"\xff\xd9", 0xD9
_ADOBE_BYTES = 14
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_NEEDED = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xDA})
#: A frame's header of 8 bits and 1, 3 or 4 components: its length, its depth, its height and width.
_FRAME_HEAD = re.compile(rb"\xff[\xc0-\xc2]\0[\x0b\x11\x14]\x08(.{4})", re.DOTALL)
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a JPEG, with the data of a scan behind it.

    Attributes:
        marker: the second byte of its marker.
        head: its length and its content.
        scan: entropy-coded data, restart markers included; of a scan only.
    """

    marker: int
    head: bytes
    scan: bytes = b""


@dataclass(slots=True)
class Parsed:
    """The segments that decoding needs, in order.

    Attributes:
        segments: without junk between them, application data and comments.
        adobe: the segment APP14 that tells how colours are stored; empty if there is none.
        exif: the first EXIF block; empty if there is none.
        has_junk: whether bytes that belong to no segment were found before the first scan.
        end: where the picture ends in the file.
    """

    segments: list[Segment] = field(default_factory=list)
    adobe: bytes = b""
    exif: bytes = b""
    has_junk: bool = False
    end: int = 0

    @property
    def frame(self) -> Segment | None:
        """The segment that declares the picture."""
        return next((each for each in self.segments if each.marker in _FRAMES), None)

    def written(self) -> bytes:
        """The segments as a tidy file."""
        parts = [_SOI]
        if self.adobe:
            parts += [b"\xff\xee", self.adobe]
        if self.exif:
            parts += [b"\xff\xe1", self.exif]
        for each in self.segments:
            parts += [bytes([0xFF, each.marker]), each.head, each.scan]
        return b"".join([*parts, _EOI])


def is_damage(warning: str, data: bytes) -> bool:
    """Whether a warning of libjpeg tells of damage by itself, so that no tidying helps."""
    if any(words in warning for words in _DAMAGE) and not has_restart_markers(data):
        return True
    found = _EXTRANEOUS.search(warning)
    if found is None or int(found[2], 16) != _END or is_padding(warning, data):
        return False
    return not has_restart_markers(data)


def is_made_up(warning: str) -> bool:
    """Whether a warning, or an error, says that pixels are missing."""
    return any(words in warning for words in _DAMAGE) or not warning.startswith("Corrupt JPEG data")


def is_padding(warning: str, data: bytes) -> bool:
    """Whether libjpeg warns only of bytes left over before the end marker, and they are all the same.

    Other bytes there are a part of the picture that came out of step.
    """
    found = _EXTRANEOUS.search(warning)
    if found is None or int(found[2], 16) != _END:
        return False
    num_bytes, at = int(found[1]), 0
    # The end of the picture comes behind those of small pictures in its metadata, and before all others.
    for _ in range(_MAX_ENDS):
        at = data.find(_EOI, at) + 2
        if at < 2:
            break
        left = data[max(0, at - 2 - num_bytes) : at - 2]
        # One byte is always like itself, so only a zero is taken for padding then.
        if left == b"\0" or (len(left) > 1 and left.count(left[:1]) == len(left)):
            return True
    return False


def without_padding(data: bytes) -> bytes:
    """A file without the equal bytes before its end marker: what is left must be a whole picture."""
    at = data.rfind(bytes([0xFF, _END]))
    kept = data[:at].rstrip(data[at - 1 : at])
    # A zero behind 0xFF belongs to the data.
    return kept + (b"\0" if kept.endswith(b"\xff") and data[at - 1] == 0 else b"") + data[at:]


def has_restart_markers(data: bytes) -> bool:
    """Whether a file has restart markers in its scans, or says that it has."""
    return any(each.marker == 0xDD or _RESTART.search(each.scan) for each in parse(data).segments)


def is_ordinary(data: bytes) -> bool:
    """Whether a JPEG is of a kind that libjpeg-turbo decodes: Huffman-coded, of 8 bits."""
    frame = parse(data).frame
    return frame is not None and frame.head[2:3] == b"\x08"


def may_have_hole(data: bytes) -> bool:
    """Whether a file has so many zeros in a row that its scans must be looked at; most files have not."""
    return bytes(_MAX_ZEROS) in data


def is_in_one_scan(data: bytes) -> bool:
    """Whether the first scan has all components, so that no other can be missing. Only the header is read."""
    at, num_components = 2, b""
    for _ in range(_MAX_MARKERS):
        if data[at : at + 1] != b"\xff":
            break
        marker = data[at + 1 : at + 2]
        if marker == b"\xda":
            return data[at + 4 : at + 5] == num_components
        if marker and marker[0] in _FRAMES:
            num_components = data[at + 9 : at + 10]
        # A fill byte has no length.
        at += 1 if marker == b"\xff" else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def is_preview(data: bytes) -> bool:
    """Whether what looks like the picture is its preview, because the segment around it is damaged.

    Then junk comes before it, and a larger picture behind it.
    """
    parsed = parse(data)
    if parsed.frame is None or not parsed.has_junk:
        return False
    own = _num_pixels(parsed.frame.head[3:7])
    return any(_num_pixels(each[1]) > own for each in _FRAME_HEAD.finditer(data, parsed.end))


def is_incomplete(data: bytes) -> str:
    """What is missing in a JPEG that libjpeg decodes without a word; empty if nothing is.

    The scans of a progressive one refine the picture step by step, and it may end between two of them.
    """
    parsed = parse(data)
    frame = parsed.frame
    if frame is None:
        return ""
    scans = [each for each in parsed.segments if each.marker == 0xDA]
    if frame.marker != 0xC2:
        if not set(frame.head[8:-2:3]) <= {id_ for each in scans for id_ in _components(each)}:
            return "a scan is missing"
        has_zeros = any(bytes(_MAX_ZEROS) in each.scan.rstrip(b"\0") for each in scans)
        return _ZEROS if has_zeros and not _zeros_end_blocks(parsed) else ""
    if any(each.head[-3] != 0 and bytes(_MAX_ZEROS_IN_SCAN) in each.scan.rstrip(b"\0") for each in scans):
        return _ZEROS
    done = _completed(parsed, scans)
    if all(len(each) == 64 for each in done.values()):
        return ""
    return "its last scans are missing"


def _zeros_end_blocks(parsed: Parsed) -> bool:
    """Whether zeros stand for blocks without values, in every table of Huffman codes for them.

    The first value of a table has its shortest code, which is all zeros (ITU-T T.81, annex C).
    """
    for each in parsed.segments:
        at = 2
        while each.marker == 0xC4 and at + 17 < len(each.head):
            is_ac, num_values = each.head[at] >> 4, sum(each.head[at + 1 : at + 17])
            if is_ac and each.head[at + 17] != 0:
                return False
            at += 17 + num_values
    return True


def parse(data: bytes) -> Parsed:
    """The segments of a JPEG that decoding needs, up to its end marker or the end of the file."""
    parsed = Parsed()
    at = 2
    has_scan = False
    for _ in range(_MAX_MARKERS):
        found = _MARKER.search(data, at)
        if found is None:
            break
        parsed.has_junk |= not has_scan and bool(data[at : found.start()].rstrip(b"\xff"))
        marker, at = found[1][0], found.end()
        has_scan |= marker == 0xDA
        parsed.end = at
        # Another picture begins before this one's pixels: a preview, whose segment is damaged.
        if marker in (0xD8, _END):
            break
        if marker == 0x01:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            break
        head, at = data[at : at + length], at + length
        if marker == 0xEE and head[2:7] == b"Adobe" and len(head) >= _ADOBE_BYTES:
            parsed.adobe = head
        if marker == 0xE1 and head[2:8] == b"Exif\0\0" and not parsed.exif:
            parsed.exif = head
        if marker in _NEEDED:
            end = at
            if marker == 0xDA:
                after = _MARKER.search(data, at)
                end = after.start() if after else len(data)
            parsed.segments.append(Segment(marker, head, data[at:end]))
            at = end
    return parsed


def tidied(data: bytes) -> Iterator[bytes]:
    """The same picture in tidy files, the likeliest first.

    Without junk between segments; with restart markers in order; without restart markers, where they do not
    belong.
    """
    parsed = parse(data)
    yield parsed.written()
    if has_restart_markers(data) and not _has_absurd_restarts(data):
        numbered = [replace(each, scan=_numbered(each.scan)) for each in parsed.segments]
        yield Parsed(numbered, parsed.adobe).written()
        others = [each for each in parsed.segments if each.marker != 0xDD]
        plain = [replace(each, scan=_RESTART.sub(b"", each.scan)) for each in others]
        yield Parsed(plain, parsed.adobe).written()


def with_restart_marker(data: bytes, warning: str) -> Iterator[bytes]:
    """A file in which one restart marker is missing, with that marker at each place where it may belong.

    Args:
        data: tidy.
        warning: that libjpeg gave: it found the next marker too late.
    """
    found = _EXTRANEOUS.search(warning)
    if found is None or not _RESTART_TROUBLE.search(warning) or _has_absurd_restarts(data):
        return
    num_bytes, marker = int(found[1]), int(found[2], 16)
    missing = bytes([0xFF, 0xD0 + (marker - 1) % 8])
    numbers = [(each.start(), each[1][0]) for each in _RESTART.finditer(data, data.find(b"\xff\xda"))]
    for (_, before), (at, number) in pairwise(numbers):
        if number == marker and (number - before) % 8 == 2:
            for place in range(at - num_bytes - _READ_AHEAD, at - num_bytes + 2):
                yield data[:place] + missing + data[place:]
            return


def _has_absurd_restarts(data: bytes) -> bool:
    """Whether a file has so many restart markers that to number them would take minutes and gigabytes."""
    return sum(data.count(bytes([0xFF, marker])) for marker in range(0xD0, 0xD8)) > _MAX_RESTARTS


def share_above_damage(data: bytes, is_bad: Callable[[bytes], bool]) -> float:
    """The share of a JPEG's rows above the first damage, 0..1; of a progressive one, the share of its values.

    Args:
        data: the file.
        is_bad: whether decoding a file finds damage.
    """
    parsed = parse(data)
    frame = parsed.frame
    if frame is None:
        return 0.0
    if frame.marker == 0xC2:
        return _share_of_values(parsed, is_bad)
    height = int.from_bytes(frame.head[3:5], "big")
    cut = Parsed([replace(each, scan=_before_hole(each.scan)) for each in parsed.segments], parsed.adobe)

    def is_bad_within(num_rows: int) -> bool:
        head = frame.head[:3] + num_rows.to_bytes(2, "big") + frame.head[5:]
        segments = [replace(each, head=head) if each.marker in _FRAMES else each for each in cut.segments]
        return is_bad(Parsed(segments, parsed.adobe).written())

    good, bad = 0, height
    while bad - good > max(1, height // 256):
        middle = (good + bad) // 2
        good, bad = (good, middle) if is_bad_within(middle) else (middle, bad)
    return good / height


def _share_of_values(parsed: Parsed, is_bad: Callable[[bytes], bool]) -> float:
    """Of a progressive JPEG: the share of its values that the scans before the first bad one complete."""
    scans = [at for at, each in enumerate(parsed.segments) if each.marker == 0xDA]
    good = 0
    for num, at in enumerate(scans, 1):
        if is_bad(Parsed(parsed.segments[: at + 1], parsed.adobe).written()):
            break
        good = num
    done = _completed(parsed, parsed.segments[: scans[good - 1] + 1] if good else [])
    return sum(map(len, done.values())) / (64 * len(done)) if done else 0.0


def _completed(parsed: Parsed, segments: Sequence[Segment]) -> dict[int, set[int]]:
    """Of each component of a progressive JPEG, which of its 64 values are given to the last bit."""
    frame = parsed.frame
    if frame is None or len(frame.head) < 8:
        return {}
    done: dict[int, set[int]] = {frame.head[at]: set() for at in range(8, len(frame.head) - 2, 3)}
    for each in segments:
        if each.marker == 0xDA and len(each.head) >= 8 and each.head[-1] & 0x0F == 0:
            for component in _components(each):
                done.get(component, set()).update(range(each.head[-3], each.head[-2] + 1))
    return done


def _components(scan: Segment) -> bytes:
    """The numbers of the components that a scan has."""
    return scan.head[3 : 3 + 2 * scan.head[2] : 2] if len(scan.head) > 2 else b""


def _num_pixels(size: bytes) -> int:
    """Height times width, as a frame's header has them: two bytes each."""
    return int.from_bytes(size[:2], "big") * int.from_bytes(size[2:4], "big")


def _before_hole(scan: bytes) -> bytes:
    """A scan's data before the first long run of equal bytes: what follows such a hole is out of step."""
    hole = _HOLE.search(scan)
    return scan[: hole.start()] if hole else scan


def _numbered(scan: bytes) -> bytes:
    number = -1

    def next_marker(_: re.Match[bytes]) -> bytes:
        nonlocal number
        number += 1
        return bytes([0xFF, 0xD0 + number % 8])

    return _RESTART.sub(next_marker, scan)
