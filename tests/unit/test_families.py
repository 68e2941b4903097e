"""Which file is of which family, by its outputs alone."""

from __future__ import annotations

import pytest

from actors.families import Output, identify

CENTERFACE: list[Output] = [
    ("537", (10, 1, 8, 8)),
    ("538", (10, 2, 8, 8)),
    ("539", (10, 2, 8, 8)),
    ("540", (10, 10, 8, 8)),
]
YUNET: list[Output] = [
    (f"{kind}_{s}", (1, None, last))
    for kind, last in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
    for s in (8, 16, 32)
]
SCRFD: list[Output] = [
    (str(448 + n), ("batch", None, last)) for n, last in enumerate((1, 1, 1, 4, 4, 4, 10, 10, 10))
]
RETINAFACE: list[Output] = [("loc", (1, 100, 4)), ("conf", (1, 100, 2)), ("landms", (1, 100, 10))]


@pytest.mark.parametrize(
    ("outputs", "name", "head", "output"),
    [
        (CENTERFACE, "centerface", "landmarks", "540"),
        (YUNET, "yunet", "kps_32", "kps_32"),
        (SCRFD, "scrfd", "bbox_8", "451"),
        ([(name, dims[1:]) for name, dims in SCRFD], "scrfd", "kps_32", "456"),
        (RETINAFACE, "retinaface", "landmarks", "landms"),
        (list(reversed(RETINAFACE)), "retinaface", "conf", "conf"),
    ],
)
def test_a_known_file_is_recognised(outputs: list[Output], name: str, head: str, output: str) -> None:
    """The family, and which output is which head."""
    found = identify(outputs)
    assert found is not None
    assert (found[0].name, found[1][head], len(found[1])) == (name, output, len(outputs))


@pytest.mark.parametrize(
    "outputs", [[], [("x", (1, 1000))], SCRFD[:6], RETINAFACE[:2], [(n, (1, 5)) for n, _ in SCRFD]]
)
def test_another_file_is_of_no_family(outputs: list[Output]) -> None:
    """A classifier, SCRFD without landmarks, and half a file are not guessed at."""
    assert identify(outputs) is None
