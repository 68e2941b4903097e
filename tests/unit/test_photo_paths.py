"""What a person types → the photos meant, and what of it nobody can look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.faces import Rejection
from cluster.cli.folder_walk import NotLookedAt, Photo, Rules
from cluster.cli.photo_paths import PhotoFinder, why_unreadable


@pytest.fixture
def album(tmp_path: Path) -> Path:
    make(tmp_path, "b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "sub/deep/d.heic")
    (tmp_path / "empty").mkdir()
    return tmp_path


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


class Found:
    """What one search found: names of photos, what cannot be looked at, and what was said.

    Attributes:
        photos: names of photos.
        not_looked_at: the name and the reason of each.
        said: sentences about what was left out.
    """

    def __init__(self, *arguments: object, stdin: tuple[str, ...] = (), rules: Rules | None = None) -> None:
        finder = PhotoFinder(rules)
        found = list(finder.find(map(str, arguments), stdin))
        self.asked = [each for each in found if isinstance(each, Photo)]
        self.photos = [Path(each.path).name for each in self.asked]
        self.inside = [Path(each.inside).as_posix() for each in self.asked]
        self.not_looked_at = [
            (Path(each.path).name, each.outcome.reason) for each in found if isinstance(each, NotLookedAt)
        ]
        self.said = list(finder.left_out.sentences())


def test_a_folder_is_searched_through(album: Path) -> None:
    """By suffix, whatever its case, sorted, with the place below the folder."""
    found = Found(album)
    assert found.photos == ["a.PNG", "b.jpg", "c.webp", "d.heic"]
    assert found.not_looked_at == []
    assert found.inside[-1] == "sub/deep/d.heic"


def test_files_that_are_no_pictures_by_their_names_are_counted(album: Path) -> None:
    assert Found(album).said == ["1 file was not a picture by its name."]
    make(album, "sub/clip.mov")
    assert Found(album).said == ["2 files were not pictures by their names."]


def test_a_file_named_outright_is_taken(album: Path) -> None:
    """Whatever its suffix, hidden or not, and even if it is missing: it gets an outcome."""
    make(album, "._x.jpg")
    found = Found(album / "notes.txt", album / "missing.jpg", album / "._x.jpg")
    assert found.photos == ["notes.txt", "missing.jpg", "._x.jpg"]


def test_a_list_on_standard_input() -> None:
    """One path a line; empty lines and line ends of either system are no names."""
    assert Found("-", stdin=("a.jpg\n", "\n", "b c.jpg\r\n")).photos == ["a.jpg", "b c.jpg"]


def test_a_folder_without_photos_is_an_outcome(album: Path) -> None:
    found = Found(album / "empty", album / "b.jpg")
    assert found.photos == ["b.jpg"]
    assert found.not_looked_at == [("empty", Rejection.NO_PHOTOS)]


def test_a_folder_that_cannot_be_read_is_an_outcome(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its neighbours are looked at all the same. (Root may read every folder, so the test refuses.)"""
    scandir: Callable[[str], Any] = os.scandir

    def refuse(folder: str) -> Any:
        if Path(folder).name == "deep":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found = Found(album)
    assert found.photos == ["a.PNG", "b.jpg", "c.webp"]
    assert found.not_looked_at == [("deep", Rejection.UNREADABLE)]
    assert Found(album / "sub" / "**" / "*.heic").not_looked_at == [("deep", Rejection.UNREADABLE)]


class TestPatterns:
    """Shells of Windows hand patterns on as they are."""

    def test_folders_of_any_depth(self, album: Path) -> None:
        assert Found(album / "**" / "*.webp").photos == ["c.webp"]
        assert Found(album / "**" / "*.*").photos == ["a.PNG", "b.jpg", "notes.txt", "c.webp", "d.heic"]

    def test_a_folder_that_matches_gives_its_photos_once(self, album: Path) -> None:
        found = Found(album / "s*")
        assert found.photos == ["c.webp", "d.heic"]
        assert found.inside == ["c.webp", "deep/d.heic"]
        assert Found(album / "**").photos == ["a.PNG", "b.jpg", "c.webp", "d.heic"]
        assert Found(album / "*" / "deep").photos == ["d.heic"]

    def test_relative_to_the_current_folder(self, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(album)
        assert [each.path for each in Found("*/*.webp").asked] == [os.path.join("sub", "c.webp")]

    def test_nothing_matches(self, album: Path) -> None:
        assert Found(album / "*.bmp").not_looked_at == [("*.bmp", Rejection.NO_PHOTOS)]
        assert Found(album / "none" / "*.jpg").not_looked_at == [("*.jpg", Rejection.NO_PHOTOS)]

    def test_brackets_may_be_a_name(self, album: Path) -> None:
        make(album, "[1].jpg")
        assert Found(album / "[1].jpg").photos == ["[1].jpg"]

    def test_hidden_names_match_what_spells_them(self, album: Path) -> None:
        make(album, ".secret/x.jpg", "@eaDir/y.jpg")
        assert Found(album / "**" / "[xy].jpg").photos == []
        assert Found(album / "[.]s*" / "*.jpg").photos == []
        assert Found(album / ".s*" / "*.jpg").photos == ["x.jpg"]

    def test_circles_of_links_end(self, album: Path) -> None:
        for name in ("one", "two", "three"):
            (album / "sub" / name).symlink_to(album)
        found = Found(album / "**" / "*.webp")
        assert found.photos == ["c.webp"]


class TestLinks:
    """Links to folders are followed, and each folder is looked through once."""

    def test_a_linked_folder_is_looked_through(self, album: Path, tmp_path_factory: Any) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        make(elsewhere, "e.jpg", "more/f.jpg")
        (album / "linked").symlink_to(elsewhere)
        found = Found(album)
        assert found.photos == ["a.PNG", "b.jpg", "c.webp", "d.heic", "e.jpg", "f.jpg"]
        assert found.inside[-1] == "linked/more/f.jpg"
        assert found.not_looked_at == []

    def test_a_loop_is_said(self, album: Path) -> None:
        (album / "sub" / "up").symlink_to(album)
        found = Found(album)
        assert found.photos == ["a.PNG", "b.jpg", "c.webp", "d.heic"]
        assert found.not_looked_at == []
        assert any("already" in sentence and "up" in sentence for sentence in found.said)

    def test_a_photo_has_its_name_without_links(self, album: Path) -> None:
        (album / "a link").symlink_to(album / "sub")
        assert Found(album).inside[2:] == ["sub/c.webp", "sub/deep/d.heic"]

    def test_a_link_back_from_outside_adds_nothing(self, album: Path, tmp_path_factory: Any) -> None:
        """Outside is a folder that holds a second way to everything here."""
        outside = tmp_path_factory.mktemp("outside")
        make(outside, "o.jpg")
        (outside / "back").symlink_to(album)
        (album / "out").symlink_to(outside)
        assert Found(album).photos == ["a.PNG", "b.jpg", "c.webp", "d.heic", "o.jpg"]

    def test_a_folder_that_matches_only_by_its_linked_name(self, album: Path) -> None:
        (album / "best").symlink_to(album / "sub")
        assert Found(album / "**" / "best" / "*.webp").photos == ["c.webp"]

    def test_a_link_that_leads_nowhere_is_an_outcome(self, album: Path) -> None:
        """It may have led to a folder. One with a photo's suffix is a photo that is missing."""
        (album / "drive").symlink_to(album / "not connected")
        (album / "itself").symlink_to(album / "itself")
        (album / "z.jpg").symlink_to(album / "gone.jpg")
        found = Found(album)
        assert found.not_looked_at == [("drive", Rejection.UNREADABLE), ("itself", Rejection.UNREADABLE)]
        assert "z.jpg" in found.photos


class TestLeftOut:
    """Hidden things are left out by default; a person may leave out more, or include them."""

    HIDDEN = (
        "@eaDir/b.jpg/thumb.jpg",
        ".thumbnails/t.jpg",
        ".Trash-1000/t.jpg",
        "sub/._c.jpg",
        "#recycle/r.jpg",
    )

    def test_hidden_things_are_counted(self, album: Path) -> None:
        make(album, *self.HIDDEN, ".DS_Store")
        found = Found(album)
        assert found.photos == ["a.PNG", "b.jpg", "c.webp", "d.heic"]
        assert found.said[0].startswith("5 hidden files and folders were left out (first: ")
        assert "--include-hidden" in found.said[0]

    def test_hidden_things_may_be_included(self, album: Path) -> None:
        make(album, *self.HIDDEN)
        found = Found(album, rules=Rules(include_hidden=True))
        assert len(found.photos) == 4 + len(self.HIDDEN)
        assert not any("hidden" in sentence for sentence in found.said)
        assert Found(album / "*" / "t.jpg", rules=Rules(include_hidden=True)).photos == ["t.jpg", "t.jpg"]

    def test_a_hidden_folder_that_is_named_is_looked_through(self, album: Path) -> None:
        make(album, *self.HIDDEN)
        assert Found(album / ".thumbnails").photos == ["t.jpg"]

    @pytest.mark.parametrize(
        ("pattern", "left"),
        [
            ("*.jpg", ["a.PNG", "c.webp", "d.heic"]),
            ("sub", ["a.PNG", "b.jpg"]),
            ("sub/", ["a.PNG", "b.jpg"]),
            ("sub/deep", ["a.PNG", "b.jpg", "c.webp"]),
            ("sub/*.heic", ["a.PNG", "b.jpg", "c.webp"]),
            ("deep/d.heic", ["a.PNG", "b.jpg", "c.webp", "d.heic"]),
        ],
    )
    def test_names_and_paths_below_the_folder_are_excluded(
        self, album: Path, pattern: str, left: list[str]
    ) -> None:
        found = Found(album, rules=Rules((pattern,)))
        assert found.photos == left
        num_left_out = len(left) < 4
        assert any("--exclude" in sentence for sentence in found.said) is num_left_out

    @pytest.mark.parametrize("pattern", ["./sub", "sub/deep/../../sub/", "{album}/sub"])
    def test_a_whole_path_is_excluded_however_it_is_written(
        self, album: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(album)
        folder = album if "{" in pattern else "."
        assert Found(folder, rules=Rules((pattern.format(album=album), ""))).photos == ["a.PNG", "b.jpg"]

    def test_named_files_and_lists_are_excluded_too(self, album: Path) -> None:
        rules = Rules(("b*",))
        found = Found(album / "b.jpg", album / "a.PNG", "-", stdin=("x/b2.jpg\n",), rules=rules)
        assert found.photos == ["a.PNG"]
        assert found.said == ["2 files and folders were left out by --exclude."]

    def test_a_folder_of_which_everything_is_left_out_is_an_outcome(self, album: Path) -> None:
        assert Found(album / "sub", rules=Rules(("*.webp", "deep"))).not_looked_at == [
            ("sub", Rejection.NO_PHOTOS)
        ]

    def test_a_name_in_a_sentence_is_printable(self, tmp_path: Path) -> None:
        make(tmp_path, ".\x1b[2J\n.jpg")
        assert "\x1b" not in Found(tmp_path).said[0]
        assert "\n" not in Found(tmp_path).said[0]


def test_a_file_is_asked_whether_it_can_be_read(album: Path) -> None:
    """A pipe is not waited for."""
    os.mkfifo(album / "pipe.jpg")
    details = {}
    for name in ("b.jpg", "none.jpg", "pipe.jpg", "sub", "\0.jpg"):
        problem = why_unreadable(str(album / name))
        details[name] = problem.outcome.detail if problem else ""
    assert details == {
        "b.jpg": "",
        "none.jpg": "The file cannot be read: No such file or directory.",
        "pipe.jpg": "It is not a file; give the path of an image.",
        "sub": "It is not a file; give the path of an image.",
        "\0.jpg": "No file can have this name: there is a zero byte in it.",
    }
