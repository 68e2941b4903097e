"""The digest of types: two programs whose types have the same digest read each other's values rightly.

It is computed from the types themselves, so a field that is added, renamed, moved or typed anew changes it.
Documentation, methods and default values of fields do not count.
"""

from __future__ import annotations

import enum
import hashlib
import inspect
import types
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from pydantic import BaseModel

_NUM_DIGITS = 12


def digest_of(kinds: Iterable[Any]) -> str:
    """The digest of types, with all types that their fields have: 12 hexadecimal digits.

    Args:
        kinds: dataclasses, structs, named tuples, enumerations, models, or protocols, whose methods count.
    """
    return hashlib.sha256(described(kinds).encode()).hexdigest()[:_NUM_DIGITS]


def described(kinds: Iterable[Any]) -> str:
    """The types as text, one a line, for people who look for a difference."""
    lines: dict[str, str] = {}
    for kind in kinds:
        _describe(kind, lines)
    return "\n".join(f"{name}: {lines[name]}" for name in sorted(lines))


def _describe(kind: Any, lines: dict[str, str]) -> str:
    """The name of a type; the type's own line, and those of the types in it, are added to `lines`."""
    origin = get_origin(kind)
    if origin is Literal:
        return f"Literal{list(get_args(kind))}"
    if origin is not None or isinstance(kind, types.UnionType):
        of = "Union" if origin in (Union, types.UnionType) else getattr(origin, "__name__", str(origin))
        return f"{of}[{', '.join(_describe(each, lines) for each in get_args(kind))}]"
    if isinstance(kind, list):
        # The arguments of a callable.
        return f"[{', '.join(_describe(each, lines) for each in kind)}]"
    if not isinstance(kind, type):
        return kind.__name__ if isinstance(kind, TypeVar) else repr(kind)
    if kind.__name__ not in lines and (parts := _parts_of(kind)) is not None:
        # Noted first, because a type may have itself in it.
        lines[kind.__name__] = ""
        lines[kind.__name__] = ", ".join(
            name if of is None else f"{name}: {_describe(of, lines)}" for name, of in parts
        )
    return kind.__name__


def _parts_of(kind: type) -> list[tuple[str, Any]] | None:
    """The fields of a type, each with its own type, in order; None for a type that has none of its own."""
    if issubclass(kind, enum.Enum):
        return [(f"{each.name}={each.value!r}", None) for each in kind]
    if Protocol in kind.__bases__:
        return [
            (f"{name}.{argument}", of)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
            for argument, of in get_type_hints(method).items()
        ]
    if is_dataclass(kind):
        names = [each.name for each in fields(kind)]
    elif issubclass(kind, BaseModel):
        names = list(kind.model_fields)
    elif issubclass(kind, msgspec.Struct):
        names = list(kind.__struct_fields__)
    elif issubclass(kind, tuple) and kind is not tuple:
        names = list(get_type_hints(kind))
    else:
        return None
    hints = get_type_hints(kind)
    return [(name, hints[name]) for name in names]
