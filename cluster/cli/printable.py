"""Text from outside, like file names → text that a terminal shows and does not obey, and exact JSON."""

from __future__ import annotations

import base64
import json
import os
import unicodedata
from collections.abc import Mapping
from typing import Any

import click

#: Categories of Unicode whose characters a terminal obeys or hides: control, format, surrogate, and line and
#: paragraph separators. Format characters turn the direction of text, for example.
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Joiners inside words of many scripts, and inside emojis. They change nothing but the letters beside them.
_JOINERS = "\u200c\u200d"


def printable(text: str, *, keep_lines: bool = False) -> str:
    r"""Replace every character that a terminal would obey by a visible escape, as in `\x1b` or `\u202e`.

    Args:
        text: from outside. A byte that was not Unicode (a lone surrogate, as Python reads it) becomes `\xe9`.
        keep_lines: whether line ends stay, for messages of several lines. A name never keeps them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if _is_harmless(char) or (keep_lines and char == "\n") else _escaped(char) for char in text
    )


def say(sentence: str) -> None:
    """Print a sentence for people on standard error."""
    click.echo(printable(sentence, keep_lines=True), err=True)


def name_as_json(path: str) -> dict[str, str]:
    """A path for JSON: `image` is the exact path; `path_bytes` is added only where the path is no Unicode.

    JSON has only Unicode, but a path may have any bytes. In `image` such a byte is then shown as an escape,
    and `path_bytes` is the whole path in base64: `os.fsdecode(base64.b64decode(path_bytes))` gives it back.
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        shown = "".join(_escaped(char) if unicodedata.category(char) == "Cs" else char for char in path)
        return {"image": shown, "path_bytes": base64.b64encode(os.fsencode(path)).decode("ascii")}
    return {"image": path}


def json_line(values: Mapping[str, Any]) -> str:
    """One line of JSON, in printable ASCII: no terminal obeys it, and no encoding changes it."""
    return json.dumps(values).replace("\x7f", "\\u007f")


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) not in _OBEYED or char in _JOINERS


def _escaped(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
