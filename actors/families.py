"""The families of face detectors that can be decoded here, and how an ONNX file shows its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from actors import decoding
from actors.decoding import Candidates
from actors.heads import Floats, Heads

#: A head as a file lists it: name and dimensions (each a number, a name, or None where unknown).
Output = tuple[str, tuple[int | str | None, ...]]


@dataclass(frozen=True, slots=True)
class Family:
    """What all files of one family have in common.

    Attributes:
        colour: order of the channels that the network was trained on.
        mean: value that is subtracted from each channel, in that order.
        scale: factor of all channels, after the subtraction.
        score_threshold: least score of a face, where the settings give none.
        nms_threshold: greatest IoU of two faces that are both kept, where the settings give none.
        decode: takes heads, height, width and least score, of all images or of each; returns the candidates
            of each image.
    """

    name: str
    colour: Literal["bgr", "rgb"]
    mean: tuple[float, float, float]
    scale: float
    score_threshold: float
    nms_threshold: float
    decode: Callable[[Heads, int, int, float | Floats], list[Candidates]]


_NO_MEAN = (0.0, 0.0, 0.0)

FAMILIES = {
    family.name: family
    for family in (
        Family("centerface", "rgb", _NO_MEAN, 1.0, 0.5, 0.3, decoding.decode_centerface),
        Family("yunet", "bgr", _NO_MEAN, 1.0, 0.7, 0.3, decoding.decode_yunet),
        Family("scrfd", "rgb", (127.5, 127.5, 127.5), 1 / 128, 0.5, 0.4, decoding.decode_scrfd),
        Family("retinaface", "bgr", (104.0, 117.0, 123.0), 1.0, 0.5, 0.4, decoding.decode_retinaface),
    )
}

_CENTERFACE = {"heat": "537", "scale": "538", "offset": "539", "landmarks": "540"}
_YUNET = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32))
_SCRFD = tuple(f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in (8, 16, 32))
_SCRFD_LAST = (1, 1, 1, 4, 4, 4, 10, 10, 10)


def identify(outputs: Sequence[Output]) -> tuple[Family, dict[str, str]] | None:
    """The family of a file, and the output of each head by the head's name; None for an unknown family.

    Args:
        outputs: in the order of the file.
    """
    names = [name for name, _ in outputs]
    if set(names) == set(_CENTERFACE.values()):
        return FAMILIES["centerface"], dict(_CENTERFACE)
    if set(names) == set(_YUNET):
        return FAMILIES["yunet"], {name: name for name in _YUNET}
    last = [dims[-1] if dims else None for _, dims in outputs]
    # SCRFD's exports number their outputs, so only the order tells which is which. A dimension that the file
    # leaves open fits any size.
    if len(outputs) == 9 and all(
        size == wanted or not isinstance(size, int) for size, wanted in zip(last, _SCRFD_LAST, strict=True)
    ):
        return FAMILIES["scrfd"], dict(zip(_SCRFD, names, strict=True))
    if len(outputs) == 3 and sorted(map(str, last)) == ["10", "2", "4"]:
        heads = {4: "loc", 2: "conf", 10: "landmarks"}
        return FAMILIES["retinaface"], {
            heads[size]: name for name, size in zip(names, last, strict=True) if isinstance(size, int)
        }
    return None
