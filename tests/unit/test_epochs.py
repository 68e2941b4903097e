"""I2: each owner of a detector's name has a greater epoch than every earlier one, and nobody else has it."""

from __future__ import annotations

import time

import pytest

from cluster.deployment.epochs import Epochs
from cluster.ray_internals import KeyValueStore
from tests.unit.fake_head import FakeHead


def epochs(head: FakeHead, name: str = "FaceDetector", namespace: str = "rayface") -> Epochs:
    return Epochs(name, namespace, KeyValueStore(head, 1.0))


def test_each_owner_is_newer_than_the_last_and_the_only_claim_is_its_own() -> None:
    head = FakeHead()
    first, second = epochs(head), epochs(head)
    assert first.read_epoch() == 0
    earlier = first.take_epoch("life-1")
    later = second.take_epoch("life-2")
    assert later > earlier
    assert first.read_epoch() == second.read_epoch() == later
    assert list(head.kept.values()) == [b"life-2"]


def test_two_that_take_an_epoch_at_once_get_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both want the same number; only one of them is the first to write it."""
    monkeypatch.setattr(time, "time", lambda: 2000.5)
    head = FakeHead()
    one, other = epochs(head), epochs(head)
    monkeypatch.setattr(other, "read_epoch", lambda: 0)  # it read before the other one wrote
    assert one.take_epoch("life-1") == 2_000_500
    assert other.take_epoch("life-2") == 2_000_501


def test_a_head_that_lost_its_tables_does_not_begin_again_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners with greater epochs may still be answering."""
    monkeypatch.setattr(time, "time", lambda: 2000.5)
    assert epochs(FakeHead()).take_epoch("life-1") == 2_000_500


def test_names_and_namespaces_are_apart() -> None:
    head = FakeHead()
    epochs(head).take_epoch("life-1")
    assert epochs(head, "FaceDetector-2").read_epoch() == 0
    assert epochs(head, namespace="other").read_epoch() == 0
