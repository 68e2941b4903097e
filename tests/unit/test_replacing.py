"""A detector is placed anew by an order that counts for everybody, and the order goes with the replacing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from cluster.deployment.replacing import ordered, replace
from cluster.ray_internals import KeyValueStore
from tests.unit.fake_head import FakeHead

KEY = "replacing/rayface/FaceDetector"


class Actor:
    """A detector in Ray, and what is done to it, in order."""

    def __init__(self) -> None:
        self.store = KeyValueStore(FakeHead(), 5.0)
        self.done: list[str] = []
        self.placed_by: Any = None
        self.drains = True
        self.num_looks_until_gone = 3

    def drain(self) -> None:
        self.done.append("drain")
        if not self.drains:
            raise TimeoutError
        # Nobody may place it by this order before it is removed.
        assert ordered(self.store, "rayface", "FaceDetector") is None

    def is_gone(self) -> bool:
        self.num_looks_until_gone -= 1
        return self.num_looks_until_gone < 0

    def place(self) -> None:
        self.done.append("place")
        self.placed_by = ordered(self.store, "rayface", "FaceDetector")

    def replace(self) -> None:
        replace(
            self.store,
            "rayface",
            "FaceDetector",
            {"model": "yunet"},
            drain=self.drain,
            remove=lambda: self.done.append("remove"),
            is_gone=self.is_gone,
            place=self.place,
            sleep=lambda seconds: None,
        )


def test_it_drains_before_it_is_removed_and_is_placed_by_the_order() -> None:
    actor = Actor()
    actor.replace()
    assert actor.done == ["drain", "remove", "place"]
    assert actor.placed_by == {"model": "yunet"}
    assert ordered(actor.store, "rayface", "FaceDetector") is None


def test_one_that_does_not_answer_is_replaced_too() -> None:
    actor = Actor()
    actor.drains = False
    actor.replace()
    assert actor.done == ["drain", "remove", "place"]


def test_a_name_that_ray_does_not_free_is_an_error_and_leaves_no_order() -> None:
    actor = Actor()
    actor.num_looks_until_gone = 10**6
    with pytest.raises(TimeoutError, match="FaceDetector"):
        actor.replace()
    assert ordered(actor.store, "rayface", "FaceDetector") is None


@pytest.mark.parametrize("left", [b"", b"[", b"1", json.dumps({"at": 0.0, "order": {}}).encode()])
def test_an_order_that_a_dead_process_left_does_not_count(left: bytes) -> None:
    actor = Actor()
    actor.store.put(KEY, left)
    assert ordered(actor.store, "rayface", "FaceDetector") is None
    actor.store.put(KEY, json.dumps({"at": time.time(), "order": {"model": "x"}}).encode())
    assert ordered(actor.store, "rayface", "FaceDetector") == {"model": "x"}
    assert ordered(actor.store, "rayface", "FaceDetector-2") is None
