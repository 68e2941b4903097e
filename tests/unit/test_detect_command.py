"""`rayface detect`: names are checked first, pauses are told, and it ends when the kept cluster ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from actors.faces import Detected, Failed, Failure, Outcome, Rejected, Rejection, Stamp
from cluster.cli.detect import _following, _telling_pauses
from cluster.cli.detect_output import Output
from cluster.cli.folder_walk import NotLookedAt, Photo
from cluster.cli.main import cli
from cluster.cli.main import main as run_command
from cluster.client.pipeline import CLOSED_MEANWHILE
from cluster.errors import ClientNotUsable, ClusterUnavailable
from cluster.node.kept import KeptCluster, KeptProcess
from cluster.settings import Settings
from tests.virtual_time import run


class Client:
    """A client whose photos wait for a reason that the test sets; an error is raised instead."""

    def __init__(self) -> None:
        self.reason: str | Exception = ""

    @property
    def paused(self) -> str:
        if isinstance(self.reason, Exception):
            raise self.reason
        return self.reason


def test_pauses_are_told_after_an_error_that_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    client, told = Client(), list[str]()

    async def story() -> None:
        async with _telling_pauses(cast(Any, client), told.append):
            client.reason = OSError("the terminal is gone")
            await asyncio.sleep(3.0)
            client.reason = "no machine lends a device"
            await asyncio.sleep(60.0)
            client.reason = ""
            await asyncio.sleep(3.0)

    with caplog.at_level(logging.ERROR, "rayface.command"):
        run(story())
    assert told == ["Waiting for a detector: no machine lends a device", "Going on."]
    assert "the terminal is gone" in caplog.text


class Stream:
    """A client that answers the first photo, and then waits as a scan does, until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def stream(self, images: Iterable[str | bytes]) -> AsyncIterator[Outcome]:
        asked = iter(images)
        next(asked)
        yield Detected(stamp=Stamp("a detector"), faces=(), width=1, height=1)
        next(asked)
        await asyncio.wait_for(self.closed.wait(), 3600.0)
        raise ClientNotUsable(CLOSED_MEANWHILE)

    async def close(self) -> None:
        self.closed.set()


class Kept(KeptCluster):
    """A kept cluster of which the test says when it has ended."""

    has_ended = False

    def why_ended(self) -> str:
        return "of its processes, python ended" if Kept.has_ended else ""


@pytest.mark.parametrize(("is_list", "num_failed"), [(True, 3), (False, 1)])
def test_photos_fail_soon_after_the_kept_cluster_ended(
    monkeypatch: pytest.MonkeyPatch, is_list: bool, num_failed: int
) -> None:
    """A list that a pipe gives is read no further, because nobody knows when it ends."""
    monkeypatch.setattr(Kept, "has_ended", False)
    process = KeptProcess("python", 2, 1.0)
    kept = Kept("127.0.0.1:40001", 1.0, 240.0, "", (process,), {}, versions={}, boot="")
    photos = iter([Photo(f"{number}.jpg", f"{number}.jpg") for number in range(4)])

    seen: list[tuple[str, Outcome]] = []

    async def follow() -> None:
        rest = photos if is_list else ()
        async for photo, outcome in _following(cast(Any, Stream()), photos, rest, kept):
            seen.append((photo.path, outcome))

    async def story() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(100.0, setattr, Kept, "has_ended", True)
        with pytest.raises(ClusterUnavailable, match="Start it again with `rayface up`"):
            await follow()
        return loop.time()

    took_s = run(story())
    assert [path for path, _ in seen] == [f"{number}.jpg" for number in range(1 + num_failed)]
    assert isinstance(seen[0][1], Detected)
    for _, outcome in seen[1:]:
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.NO_CLUSTER
        assert "`rayface up` kept has ended" in outcome.detail
    assert 100.0 <= took_s <= 102.0


def test_a_client_that_was_closed_otherwise_is_no_end_of_a_kept_cluster() -> None:
    async def story() -> None:
        client = Stream()
        asyncio.get_running_loop().call_later(10.0, client.closed.set)
        async for _ in _following(cast(Any, client), iter([Photo("a", "a"), Photo("b", "b")]), (), None):
            pass

    with pytest.raises(ClientNotUsable):
        run(story())


class Answers(Stream):
    """A client that finds no faces in a photo, and refuses an empty image."""

    async def stream(self, images: Iterable[str | bytes]) -> AsyncIterator[Outcome]:
        for image in images:
            if image:
                yield Detected(stamp=Stamp("a detector"), faces=(), width=1, height=1)
            else:
                yield Rejected(stamp=Stamp("client"), reason=Rejection.ZERO_SIZED, detail="empty")


def test_what_cannot_be_looked_at_has_its_own_outcome_in_its_turn() -> None:
    nothing = NotLookedAt.because("b", Rejection.NO_PHOTOS, "none")
    names: list[Photo | NotLookedAt] = [Photo("a", "a"), nothing, Photo("c", "c")]

    async def story() -> list[tuple[str, str]]:
        following = _following(cast(Any, Answers()), iter(names), (), None)
        return [(asked.path, outcome.status) async for asked, outcome in following]

    assert run(story()) == [("a", "detected"), ("b", "rejected"), ("c", "detected")]


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: object, stdin: bytes = b"") -> tuple[Any, list[str]]:
    """Run `rayface detect`; returns its result, and the names for which a cluster would have been started."""
    searched: list[str] = []

    async def search(names: Iterable[Photo | NotLookedAt], num_left: int | None, *_: Any, **__: Any) -> None:
        found = list(names)
        assert num_left in (None, len(found))
        searched.extend(each.path for each in found)

    monkeypatch.setattr("cluster.cli.detect._search", search)
    monkeypatch.setattr("cluster.cli.kept_cluster.find_suitable", lambda *_: (None, ""))
    monkeypatch.setattr("cluster.cli.early_start.starting_early", lambda *_: nullcontext())
    done = CliRunner().invoke(cli, ["detect", *map(str, arguments)], input=stdin)
    return done, searched


@pytest.mark.parametrize("name", ["missing.jpg", "empty", "*.jpg", "-"])
def test_nothing_is_started_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A missing file, a folder without photos, a pattern without a match, a list of missing files."""
    (tmp_path / "empty").mkdir()
    argument = name if name == "-" else tmp_path / name
    done, searched = invoke(monkeypatch, argument, "--json", stdin=b"missing.jpg\nmissing too.jpg\n")
    assert searched == []
    assert done.exit_code == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["rejected"] * (2 if name == "-" else 1)
    assert all(row["faces"] is None and row["detail"] for row in rows)


def test_what_can_be_looked_at_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before the first photo that can be read is printed at once, the rest in its turn."""
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"a photo")
    done, searched = invoke(
        monkeypatch, tmp_path / "none.jpg", photo, tmp_path / "*.png", tmp_path / "no.jpg"
    )
    assert searched == [str(photo), str(tmp_path / "*.png"), str(tmp_path / "no.jpg")]
    assert done.exit_code == 1
    assert "rejected (unreadable)" in done.stdout
    assert "No such file or directory" in done.stdout


def test_a_copy_that_is_missing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person asked for copies: that one of them was not written must not look like success."""
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"a photo")

    async def search(
        asked: Iterable[Photo], num_left: int, settings: Settings, output: Output, *_: Any, **__: Any
    ) -> None:
        output.show(next(iter(asked)), Detected(stamp=Stamp("a detector"), faces=(), width=1, height=1))
        output.tell_of_no_copy("There is no annotated copy of a.jpg: the disk is full")

    monkeypatch.setattr("cluster.cli.detect._search", search)
    monkeypatch.setattr("cluster.cli.kept_cluster.find_suitable", lambda *_: (None, ""))
    monkeypatch.setattr("cluster.cli.early_start.starting_early", lambda *_: nullcontext())
    done = CliRunner().invoke(cli, ["detect", str(photo), "--annotate", str(tmp_path / "drawn")])
    assert done.exit_code == 1
    assert "1 detected" in done.output


def test_a_list_may_have_names_that_are_no_unicode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(name)).write_bytes(b"a photo")
    assert invoke(monkeypatch, "-", stdin=name + b"\r\n")[1] == [os.fsdecode(name)]


def test_options_leave_names_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.jpg", ".c.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"a photo")
    done, searched = invoke(monkeypatch, tmp_path, "--exclude", "a*")
    assert searched == [str(tmp_path / "b.jpg")]
    assert "1 hidden file or folder was left out" in done.stderr
    assert "1 file or folder was left out by --exclude." in done.stderr
    assert "1 file was not a picture by its name." in done.stderr
    assert len(invoke(monkeypatch, tmp_path, "--include-hidden")[1]) == 3


@pytest.mark.parametrize(
    ("stream", "said"), [("stdout", "Standard output is closed"), ("stdin", "There is no photo")]
)
def test_a_closed_stream_is_wrong_use(
    stream: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, stream, None)
    monkeypatch.setattr(sys, "argv", ["rayface", "detect", "-"])
    with pytest.raises(SystemExit) as caught:
        run_command()
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_no_name_at_all_is_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list, and names that are all excluded."""
    assert invoke(monkeypatch, "-")[0].exit_code == 2
    assert invoke(monkeypatch, tmp_path / "a.jpg", "--exclude", "*")[0].exit_code == 2
