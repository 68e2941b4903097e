"""A pickled value keeps its fields by name, whatever their order; other fields are refused."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import faces
from actors.faces import Detected, Failed, Failure, Health, Outcome, Rejected, Stamp
from actors.images import PreparedImage
from actors.named_state import OtherFields, by_names


@by_names
@dataclass(frozen=True, slots=True)
class Sides:
    width: int
    height: int


@by_names
@dataclass(frozen=True, slots=True)
class Swapped:
    height: int
    width: int


@by_names
@dataclass(frozen=True, slots=True)
class More:
    width: int
    height: int
    depth: int = 0


def read(kind: Any, state: object) -> Any:
    """What a program whose class has these fields makes of a pickled state."""
    came = kind.__new__(kind)
    came.__setstate__(state)
    return came


def test_the_order_of_fields_is_of_no_matter() -> None:
    sides: Any = Sides(3000, 2000)
    assert read(Swapped, sides.__getstate__()) == Swapped(width=3000, height=2000)


@pytest.mark.parametrize("state", [{"width": 1, "height": 2}, {"width": 1}, [1, 2, 3], None])
def test_other_fields_are_refused(state: object) -> None:
    with pytest.raises(OtherFields, match="Install the same rayface"):
        read(More, state)


@given(st.one_of(*(st.builds(kind) for kind in (Detected, Rejected, Failed, Health))))
def test_values_come_out_as_they_went_in(value: Outcome | Health) -> None:
    assert repr(pickle.loads(pickle.dumps(value))) == repr(value)


def test_every_value_that_travels_is_pickled_so() -> None:
    kinds = [each for _, each in inspect.getmembers(faces, inspect.isclass) if is_dataclass(each)]
    assert len(kinds) > 8
    for kind in [*kinds, PreparedImage]:
        assert kind.__getstate__.__module__ == "actors.named_state", kind
    stamped = Failed(stamp=Stamp("client"), reason=Failure.BUSY, detail="full")
    state: Any = stamped.__getstate__()
    assert set(state) == {each.name for each in fields(Failed)}
    photo = PreparedImage(np.zeros((2, 3, 3), np.uint8), 3000, 2000, (64, 96), 1.5, "abc")
    assert pickle.loads(pickle.dumps(photo)).width == 3000
