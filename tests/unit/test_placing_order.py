"""An order to place a detector is read by its names, whoever wrote it; what cannot be done is a fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.faces import Failure
from actors.model_life import ModelLife
from actors.settings import DetectorSettings
from cluster.deployment.placing_order import PlacingOrder
from cluster.protocol.identity import identity
from cluster.settings import load_settings


def document(**changes: Any) -> dict[str, Any]:
    settings = load_settings(detector={"model": "yunet"}, tracing={"folder": "/spans"})
    made: dict[str, Any] = json.loads(PlacingOrder.of(settings).packed())
    return made | changes


def test_an_order_comes_out_as_it_went_in() -> None:
    placed = PlacingOrder.unpacked(json.dumps(document()))
    assert placed.settings == DetectorSettings(model="yunet")
    assert placed.tracing is not None
    assert placed.tracing["folder"] == "/spans"
    assert placed.placed_by.startswith(identity().host)
    assert placed.rayface == identity()
    assert placed.fault is None


def test_an_order_of_another_schema_is_followed_where_its_settings_are_known() -> None:
    """So a detector outlives the upgrade of its machine."""
    other = {"version": "0.0.9", "tag": "1-0123456789ab", "host": "gpu-pc"}
    placed = PlacingOrder.unpacked(json.dumps(document(rayface=other, of_a_later_version=1)))
    assert placed.fault is None
    assert placed.settings.model == "yunet"


def test_an_order_of_a_time_before_the_protocol() -> None:
    placed = PlacingOrder.unpacked({"model": "yunet"}, {"folder": "/spans"})
    assert (placed.settings.model, placed.fault) == ("yunet", None)
    assert placed.tracing == {"folder": "/spans"}


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (document(settings={"colour": "red"}), "colour: Extra inputs are not permitted"),
        (document(settings=None), "does not know"),
        (document(rayface={"version": "9.0", "tag": "2-0", "host": "front"}), "front has rayface 9.0"),
        ("no JSON", "does not know"),
        (["a", "list"], "does not know"),
        (7, "does not know"),
    ],
)
def test_an_order_that_cannot_be_followed(order: object, words: str) -> None:
    placed = PlacingOrder.unpacked(json.dumps(order) if isinstance(order, dict) else order)
    assert placed.fault is not None
    assert placed.fault.failure is Failure.VERSION_SKEW
    assert words in placed.fault.detail
    assert "`rayface place`" in placed.fault.detail


def test_a_life_that_is_refused_never_starts() -> None:
    fault = PlacingOrder.unpacked("no JSON").fault
    assert fault is not None
    life = ModelLife("FaceDetector", DetectorSettings(), clock=lambda: 0.0)
    life.refuse(fault)
    assert life.starting.done()
    assert life.ready_model() is None
    assert life.fault is fault
    assert not life.start_again_if_due(-1.0)
    life.close()
