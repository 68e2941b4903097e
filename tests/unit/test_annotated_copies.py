"""Copies with the faces drawn: of each kind of photo, in its own size, or a sentence that says why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.errors import ImageFault
from actors.faces import Detected, Face, Rejection
from actors.images import PreparedImage
from actors.settings import DetectorSettings
from actors.sole_worker import SoleWorker
from cluster.cli.annotated_copies import AnnotatedCopies
from cluster.cli.folder_walk import Photo
from cluster.settings import Settings
from tests.unit.fake_cluster import STAMP

WIDTH, HEIGHT = 300, 200
FACE = Face(box=(100.0, 60.0, 180.0, 150.0), score=0.9, landmarks=((120.0, 90.0),) * 5)


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[AnnotatedCopies]:
    made = AnnotatedCopies(tmp_path / "drawn", Settings(detector=DetectorSettings(search_damaged=True)))
    yield made
    made.close()


def photo(folder: Path, name: str, cut_at: float = 1.0) -> Photo:
    path = folder / name
    Image.new("RGB", (WIDTH, HEIGHT), (40, 40, 200)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * cut_at)])
    return Photo(str(path), name)


def draw(copies: AnnotatedCopies, photo: Photo) -> str:
    return copies.draw(photo, Detected(stamp=STAMP, faces=(FACE,), width=WIDTH, height=HEIGHT))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_copy_has_the_photos_size_and_the_box(copies: AnnotatedCopies, tmp_path: Path, name: str) -> None:
    """A PNG and a WebP are decoded by another process, as everywhere."""
    assert draw(copies, photo(tmp_path, name)) == ""
    with Image.open(tmp_path / "drawn" / (name if name == "a.jpg" else f"{name}.jpg")) as drawn:
        assert drawn.size == (WIDTH, HEIGHT)
        green = np.asarray(drawn.convert("RGB"))[:, :, 1]
        assert green[65:145, 176:184].max() > 100
        assert green[:, 200:].max() < 100


def test_no_photo_is_written_over(tmp_path: Path) -> None:
    """The folder for the copies may hold photos; only a copy from a run before is replaced."""
    originals = {name: photo(tmp_path, name) for name in ("a.jpg", "a-2.jpg", "b.png", "b.png.jpg")}
    before = {name: Path(each.path).read_bytes() for name, each in originals.items()}
    for _ in range(2):
        copies = AnnotatedCopies(tmp_path, Settings())
        for each in originals.values():
            assert draw(copies, each) == ""
        copies.close()
        assert {name: Path(each.path).read_bytes() for name, each in originals.items()} == before
        drawn = {"a-3.jpg", "a-2-2.jpg", "b.png-2.jpg", "b.png-3.jpg"}
        assert {each.name for each in tmp_path.iterdir()} == set(originals) | drawn


def test_the_copy_of_a_giant_is_smaller(
    copies: AnnotatedCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its faces are drawn where they are in the copy."""
    monkeypatch.setattr("cluster.cli.annotated_copies._MAX_PIXELS", WIDTH * HEIGHT // 4)
    assert draw(copies, photo(tmp_path, "a.png")) == ""
    with Image.open(tmp_path / "drawn" / "a.png.jpg") as drawn:
        assert drawn.size == (WIDTH // 2, HEIGHT // 2)
        green = np.asarray(drawn.convert("RGB"))[:, :, 1]
        assert green[33:72, 88:92].max() > 100
        assert green[:, 100:].max() < 100


def test_a_photo_that_takes_too_much_memory_gets_a_smaller_copy(
    copies: AnnotatedCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = SoleWorker.prepare

    def prepared(self: SoleWorker, encoded: bytes, shapes: Any, *rest: Any) -> PreparedImage:
        if shapes == ((HEIGHT, WIDTH),):
            raise ImageFault(Rejection.TOO_COSTLY, "There is not enough memory.")
        return prepare(self, encoded, shapes, *rest)

    monkeypatch.setattr(SoleWorker, "prepare", prepared)
    assert draw(copies, photo(tmp_path, "a.jpg")) == ""
    with Image.open(tmp_path / "drawn" / "a.jpg") as drawn:
        assert drawn.size == (WIDTH // 5, HEIGHT // 5)


def test_what_is_left_of_a_damaged_photo_is_drawn_too(copies: AnnotatedCopies, tmp_path: Path) -> None:
    assert draw(copies, photo(tmp_path, "half.jpg", cut_at=0.9)) == ""
    assert (tmp_path / "drawn" / "half.jpg").exists()


def test_a_photo_that_cannot_be_decoded_any_more_is_a_sentence(
    copies: AnnotatedCopies, tmp_path: Path
) -> None:
    gone = photo(tmp_path, "gone.png")
    Path(gone.path).unlink()
    assert draw(copies, gone).startswith(f"There is no annotated copy of {gone.path}: ")
    assert "cut short" in draw(copies, photo(tmp_path, "half.png", cut_at=0.5))
