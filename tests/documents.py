"""Reads our documents: fenced blocks with their markers, headings, links, and commands in running text.

Every block that a person could run has a marker before it, an HTML comment that no reader sees:

    <!-- run -->                   the unit tests run it: `rayface` commands, and settings in TOML
    <!-- live -->                  tests/live/test_documents.py runs it on a real Ray; every exit code is 0
    <!-- live: 0, 1 -->            the same; these exit codes are right
    <!-- tested: FILE::TEST, … --> these tests run it
    <!-- not run here: REASON -->  nobody can run it here
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parents[1]

#: Languages of blocks that a person could run, and languages of blocks that only show something.
RUNNABLE = ("sh", "bat", "powershell", "python", "toml")
SHOWN = ("text", "json")

_FENCE = re.compile(r"^```(\S*)\s*$")
_MARKER = re.compile(r"^<!-- *(run|live|tested|not run here)(?:: *(.*?))? *-->$")
_HEADING = re.compile(r"^(#{1,6}) +(.*?) *$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Marker:
    """A comment that says how the block after it is tested.

    Attributes:
        kind: run, live, tested, or not run here.
        about: the text after the colon: exit codes, tests, or the reason.
    """

    kind: str
    about: str

    @property
    def tests(self) -> list[str]:
        """The tests that a `tested` marker names."""
        return [each.strip() for each in self.about.split(",")] if self.kind == "tested" else []

    @property
    def exit_codes(self) -> set[int]:
        """The exit codes that are right for each command."""
        return {int(each) for each in self.about.split(",")} if self.about else {0}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: the number of the line with the opening fence; the first line is 1.
        marker: the marker before the block, or None.
    """

    page: Path
    line: int
    language: str
    text: str
    marker: Marker | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(HERE)}:{self.line}"

    @property
    def key_words(self) -> list[str]:
        """What a test must say in order to run a block's `rayface` commands: subcommands and options."""
        found: list[str] = []
        for words in self.commands:
            if "rayface" in words:
                after = words[words.index("rayface") + 1 :]
                found += after[:1] + [each.partition("=")[0] for each in after[1:] if each.startswith("--")]
            elif words[0] == "ray":
                found += words[1:2] + [each for each in words[2:] if each.startswith("--")]
            elif words[:1] == [".venv/bin/python"] and "-m" in words:
                found += [words[words.index("-m") + 1], *(each for each in words if each.startswith("--"))]
        return found

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block, without comments."""
        joined = self.text.replace("\\\n", " ")
        split = [shlex.split(line, comments=True) for line in joined.splitlines()]
        return [words for words in split if words]


def pages() -> list[Path]:
    """Every document, the README first."""
    top = [HERE / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*top, *sorted((HERE / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page.

    Raises:
        ValueError: a block has no end.
    """
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened = number, fence[1]
        elif opened is not None and line == "```":
            begin, language = opened
            text = "\n".join(lines[begin : number - 1]) + "\n"
            marker = _MARKER.match(lines[begin - 2]) if begin > 1 else None
            said = Marker(marker[1], marker[2] or "") if marker else None
            found.append(Block(page, begin, language, text, said))
            opened = None
    if opened is not None:
        raise ValueError(f"{page}:{opened[0]}: a block without an end")
    return found


def all_blocks() -> list[Block]:
    """Every fenced block of every document."""
    return [block for page in pages() for block in blocks(page)]


def blocks_to(kind: str) -> list[Block]:
    """Every fenced block whose marker has this kind."""
    return [each for each in all_blocks() if each.marker is not None and each.marker.kind == kind]


def markers(page: Path) -> list[Marker]:
    """Every marker of a page, also one that no block follows."""
    found = [_MARKER.match(line) for line in page.read_text(encoding="utf-8").splitlines()]
    return [Marker(each[1], each[2] or "") for each in found if each]


def prose(page: Path) -> str:
    """A page without its fenced blocks and comments."""
    kept, is_inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            is_inside = not is_inside
        elif not is_inside and not line.startswith("<!--"):
            kept.append(line)
    return "\n".join(kept)


def headings(page: Path, level: int | None = None) -> list[str]:
    """The headings of a page: all of them, or those of one level."""
    found = [_HEADING.match(line) for line in prose(page).splitlines()]
    return [each[2] for each in found if each and level in (None, len(each[1]))]


def anchor(heading: str) -> str:
    """The anchor that GitHub makes of a heading; links use it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures."""
    return _LINK.findall(prose(page))


def code(page: Path) -> list[str]:
    """The code in a page's running text and tables."""
    return [" ".join(each.split()) for each in _CODE.findall(prose(page))]


def section(page: Path, heading: str) -> str:
    """The text under a heading, up to the next heading of the same or a higher level.

    Raises:
        ValueError: there is no such heading.
    """
    lines, level = [], 0
    for line in prose(page).splitlines():
        found = _HEADING.match(line)
        if level and found and len(found[1]) <= level:
            break
        if level:
            lines.append(line)
        elif found and found[2] == heading:
            level = len(found[1])
    if not level:
        raise ValueError(f"{page} has no heading {heading!r}")
    return "\n".join(lines)


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, headings left out."""
    found: list[list[str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        is_heading = number + 1 < len(lines) and lines[number + 1].startswith("| ---")
        if line.startswith("| ") and not line.startswith("| ---") and not is_heading:
            found.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def defines(file: Path, name: str) -> bool:
    """Whether a Python file defines a function, a class, a method (`Class.method`) or a constant."""
    if not file.is_file():
        return False
    body: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = [each for each in body if part in _names(each)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def _names(statement: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [each.id for each in targets if isinstance(each, ast.Name)]
