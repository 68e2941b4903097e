"""Values that are pickled by the names of their fields.

A frozen dataclass with slots is pickled by the position of its fields. Read by a program whose class has them
in another order, its values change places in silence.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

Value = TypeVar("Value")


class OtherFields(TypeError):
    """A pickled value has other fields than the class has here: another version of rayface pickled it."""


def by_names(kind: type[Value]) -> type[Value]:
    """Make a frozen dataclass pickle its values by name; use it above `@dataclass`.

    Reading raises `OtherFields` where the names are not those of the class.
    """
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # mypy does not know it is a dataclass
    known = set(names)

    def get_state(self: Value) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}

    def set_state(self: Value, state: object) -> None:
        if not isinstance(state, dict) or state.keys() != known:
            raise OtherFields(
                f"A {kind.__name__} came with other fields than it has here. Install the same rayface on "
                "both machines (version_skew)."
            )
        for name in names:
            object.__setattr__(self, name, state[name])

    # Set on each class itself: `@dataclass` gives each one with slots a pair of its own. mypy lets nobody set
    # methods.
    kind.__getstate__ = get_state  # type: ignore[method-assign,assignment]
    kind.__setstate__ = set_state  # type: ignore[attr-defined]
    return kind
