"""What a person types → the photos meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cli.photo_paths import find_photos


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "sub/deep/d.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def found(*arguments: str, stdin: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    said: list[str] = []
    return [Path(photo.path).name for photo in find_photos(arguments, stdin, said.append)], said


def test_a_folder_is_searched_through(album: Path) -> None:
    """By suffix, whatever its case, sorted, with the place below the folder."""
    assert found(str(album)) == (["a.PNG", "b.jpg", "c.webp", "d.heic"], [])
    inside = [photo.inside for photo in find_photos([str(album)], (), print)]
    assert Path(inside[-1]) == Path("sub/deep/d.heic")


def test_a_file_named_outright_is_taken(album: Path) -> None:
    """Whatever its suffix, and even if it is missing: it gets an outcome."""
    assert found(str(album / "notes.txt"), str(album / "missing.jpg"))[0] == ["notes.txt", "missing.jpg"]


def test_patterns_are_for_shells_that_know_none(album: Path) -> None:
    """Windows' shells hand them on as they are."""
    assert found(str(album / "**" / "*.webp"))[0] == ["c.webp"]
    assert "No file matches" in found(str(album / "*.bmp"))[1][0]


def test_a_list_on_standard_input() -> None:
    """One path a line; empty lines and line ends of either system are no names."""
    assert found("-", stdin=("a.jpg\n", "\n", "b c.jpg\r\n"))[0] == ["a.jpg", "b c.jpg"]


def test_an_empty_folder_is_said(album: Path) -> None:
    """Nothing found is not silence."""
    names, said = found(str(album / "empty"))
    assert names == []
    assert "holds no photos" in said[0]
