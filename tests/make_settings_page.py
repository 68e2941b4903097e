"""Makes docs/settings.md from the settings' own fields and docstrings.

.venv/bin/python -m tests.make_settings_page          writes the page
.venv/bin/python -m tests.make_settings_page --print  prints it
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.settings import Settings
from tests.documents import HERE

PAGE = HERE / "docs" / "settings.md"

_INTRODUCTION = """\
# Settings

This page is made from the settings' own fields by `.venv/bin/python -m tests.make_settings_page`. Change
them, and make it again.

A setting has a section and a name, for example `detector.model`. Its value is the first one
that is found here:

1. an argument: an option of a command, or `load_settings(detector={"model": "yunet"})` in Python;
2. a variable: `RAYFACE_DETECTOR__MODEL=yunet` sets `detector.model`;
3. the settings file: `--config`, or else the file that `RAYFACE_CONFIG` names, or else the shipped one;
4. the default in the tables below.

The shipped files are `configs/local.toml` (for `detect`), `configs/head.toml` (for `head`),
`configs/windows.toml` (for `join`) and `configs/backend.toml` (for a backend, and for every command that
looks at a cluster). A file of your own looks like this:

<!-- run -->
```toml
[detector]
model = "yunet"
score_threshold = 0.6

[cluster]
address = "auto"

[fallback]
policy = "when_open"
```

A name that does not exist is refused, in a file and in a variable. Two more variables are no settings:
`RAYFACE_CONFIG` (above) and `RAYFACE_CACHE_DIR` (where models are kept).

`None` as a default means that the setting has no value; its description says what happens then. A file cannot
write it: leave the setting out. In Python, `None` gives it.
"""

_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
}


def page() -> str:
    """The whole page."""
    sections = [(name, field.annotation) for name, field in Settings.model_fields.items()]
    parts = [_INTRODUCTION, "\n".join(f"- [{name}](#{name})" for name, _ in sections) + "\n"]
    for name, model in sections:
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        parts.append("\n".join(_section(name, model)) + "\n")
    return "\n".join(parts)


def _section(name: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"## {name}\n"
    yield from _introduction(model)
    yield "| setting | what it is | default | may be |"
    yield "| --- | --- | --- | --- |"
    said = descriptions(model)
    for field, info in model.model_fields.items():
        words = (info.description or said[field]).replace("|", "\\|")
        cells = (f"`{name}.{field}`", words, _default(info), _allowed(info))
        yield f"| {' | '.join(cells)} |"


def _introduction(model: type[BaseModel]) -> Iterator[str]:
    text = inspect.cleandoc(model.__doc__ or "").partition("\nAttributes:")[0].strip()
    for paragraph in text.split("\n\n"):
        yield " ".join(paragraph.split()) + "\n"


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Each field's description, by name, from the docstrings of a model and of its base classes.

    Raises:
        ValueError: a field has no description.
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base.__doc__:
            listed = inspect.cleandoc(base.__doc__).partition("\nAttributes:\n")[2]
            entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE)
            found |= {name: " ".join(text.split()) for name, text in entries}
    missing = [name for name, info in model.model_fields.items() if not (info.description or name in found)]
    if missing:
        raise ValueError(f"{model.__name__} says nothing of {', '.join(missing)}")
    return found


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "`None`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`' if value else "empty"
    if isinstance(value, tuple):
        listed = ", ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in value)
        return f"`[{listed}]`"
    return f"`{value}`"


def _allowed(info: FieldInfo) -> str:
    """The allowed values of a setting, in words."""
    words, limits = _kind(info.annotation)
    limits += _limits(info.metadata)
    return f"{words}, {' and '.join(limits)}" if limits else words


def _kind(annotation: Any) -> tuple[str, list[str]]:
    """A value's type in words, with the limits that the type itself contains."""
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f'`"{each}"`' for each in get_args(annotation)), []
    if origin in (Union, types.UnionType):
        (kind,) = (each for each in get_args(annotation) if each is not type(None))
        return _kind(kind)
    if origin is tuple:
        words, limits = _kind(get_args(annotation)[0])
        return f"list of: {words}", limits
    if hasattr(annotation, "__metadata__"):
        words, limits = _kind(annotation.__origin__)
        return words, limits + [
            each
            for part in annotation.__metadata__
            for each in _limits(getattr(part, "metadata", None) or [part])
        ]
    return _WORDS.get(annotation, "path"), []


def _limits(metadata: list[Any]) -> list[str]:
    names = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    return [
        f"{word} {getattr(each, name)}"
        for name, word in names.items()
        for each in metadata
        if getattr(each, name, None) is not None
    ]


def main(arguments: list[str]) -> None:
    """Write or print the page."""
    if arguments == ["--print"]:
        sys.stdout.write(page())
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
