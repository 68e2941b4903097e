"""Names from outside: a terminal shows them and obeys nothing in them, and JSON keeps them exactly."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
import sys
import unicodedata

import pytest
from rich.console import Console

from actors.faces import Detected, Failed, Failure, Rejected, Rejection, Stamp
from cluster.cli.detect_output import Output
from cluster.cli.doctor import _line
from cluster.cli.folder_walk import NotLookedAt, Photo
from cluster.cli.main import main
from cluster.cli.printable import json_line, name_as_json, printable
from cluster.cli.status_view import table
from cluster.errors import ConfigurationError
from cluster.node.findings import Finding, Verdict

#: Names that a terminal, a person or rich could take for something else.
EVIL = (
    "\x1b[2J\x1b]0;title\x07.jpg",
    "a\nrejected (damaged) b.jpg",
    "a\rb.jpg",
    "\x9b31m.jpg",
    "a\u202egpj.exe",
    "a\u2066\u2069\u200e.jpg",
    "a\u2028b\u2029.jpg",
    "\x7f\x00.jpg",
    "caf\udce9.jpg",
    "\U000e0041.jpg",
)
PLAIN = (
    "12:100:00.jpg",
    "[red]x[/red].jpg",
    "日本 ünï.jpg",
    "👩\u200d👧.jpg",
    "\u0645\u06cc\u200c\u062e.jpg",
    "a b.jpg",
)


def is_harmless(text: str) -> bool:
    return not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text)


@pytest.mark.parametrize("name", EVIL)
def test_what_a_terminal_obeys_is_shown(name: str) -> None:
    assert is_harmless(printable(name))
    assert printable(name) != name
    assert is_harmless(printable(name, keep_lines=True).replace("\n", ""))


def test_the_escapes_can_be_read() -> None:
    assert printable("a\x1b\u202e\udce9\n") == r"a\x1b\u202e\xe9\n"
    assert printable("a\x1b\nb", keep_lines=True) == "a\\x1b\nb"


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_stay_as_they_are(name: str) -> None:
    assert printable(name) == name


@pytest.mark.parametrize("name", [*PLAIN, *EVIL])
def test_json_gives_the_exact_name_back(name: str) -> None:
    line = json_line(name_as_json(name))
    assert line.isascii()
    assert line.isprintable()
    row = json.loads(line)
    if "path_bytes" in row:
        assert os.fsdecode(base64.b64decode(row["path_bytes"])) == name
        row["image"].encode()
    else:
        assert row["image"] == name


def test_two_names_that_are_no_unicode_stay_two() -> None:
    """Both in `image`, which people read, and in `path_bytes`, which is exact."""
    rows = [name_as_json(os.fsdecode(name)) for name in (b"caf\xe8.jpg", b"caf\xe9.jpg")]
    assert [row["image"] for row in rows] == [r"caf\xe8.jpg", r"caf\xe9.jpg"]
    assert [base64.b64decode(row["path_bytes"]) for row in rows] == [b"caf\xe8.jpg", b"caf\xe9.jpg"]


@pytest.mark.parametrize("name", [*PLAIN, *EVIL])
def test_the_table_of_detect_shows_the_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal too: nothing but rich's own colours is sent."""
    said = show(name, monkeypatch, as_json=False)
    without_colours = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert is_harmless(re.sub("[\n\u200c\u200d]", "", without_colours))
    assert said.count(printable(name)) == 4, "two rows, the list of those that were not detected, its detail"
    assert len(without_colours.splitlines()) == 6, "the head, two rows, the list's two lines, the summary"


@pytest.mark.parametrize("name", [*PLAIN, *EVIL])
def test_json_lines_do_not_pass_through_a_layer_for_people(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = show(name, monkeypatch, as_json=True).splitlines()
    assert [json.loads(line)["image"] for line in said] == [name_as_json(name)["image"]] * 2
    assert [json.loads(line)["status"] for line in said] == ["detected", "failed"]


def show(name: str, monkeypatch: pytest.MonkeyPatch, *, as_json: bool) -> str:
    """What is printed on a wide terminal about a photo of this name, and about one that failed."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    output = Output(as_json=as_json)
    assert output.has_bar is not as_json
    photo = Photo(name, name)
    output.show(photo, Detected(stamp=Stamp("one"), faces=(), width=1, height=1))
    failed = Failed(stamp=Stamp("one"), reason=Failure.INTERNAL, detail=f"about {name}")
    output.show(photo, failed)
    output.end(1.0)
    return terminal.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
def test_results_that_cannot_be_written_are_no_traceback(
    as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    output = Output(as_json=as_json)
    with pytest.raises(ConfigurationError, match="cannot be written: No space left on device"):
        output.show(Photo("a", "a"), Detected(stamp=Stamp("one"), faces=(), width=1, height=1))


def test_a_summary_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.show(Photo("a", "a"), Detected(stamp=Stamp("one"), faces=(), width=1, height=1))
    output.show(Photo("b", "b"), Rejected(stamp=Stamp("client"), reason=Rejection.UNREADABLE, detail="why"))
    asked = NotLookedAt.because("c", Rejection.NO_PHOTOS, "none")
    output.show(asked, asked.outcome)
    output.end(1.0)
    assert "2 photos and 1 other names in 1.0 s: 1 detected (0 faces), 2 rejected" in capsys.readouterr().out


@pytest.mark.parametrize("name", EVIL)
def test_tables_of_a_cluster_show_what_other_machines_say(name: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=300)
    console.print(table(("detector", "why"), [{"detector": name, "why": f"[b]{name}"}]))
    console.print(_line(Finding("versions", Verdict.WARN, f"[b]{name}", name, name)))
    assert is_harmless(out.getvalue().replace("\n", ""))
    assert out.getvalue().count("[b]") == 2


def test_wrong_use_quotes_no_name_that_a_terminal_obeys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In `rayface detect *`, a file's name may begin like an option."""
    monkeypatch.setattr(sys, "argv", ["rayface", "detect", "--\x1b]0;x\x07.jpg"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "No such option" in said
    assert "\x1b" not in said
