"""The digest of the types changes with each of their fields; who differs is named, with what to upgrade."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, make_dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import pytest

from actors.faces import Detected
from cluster.errors import VersionSkew
from cluster.protocol.identity import (
    PROTOCOL,
    Identity,
    check_same,
    framed,
    identity,
    identity_of_labels,
    labels,
    skew_reply,
    skew_sentence,
    unframed,
)
from cluster.protocol.rows import ALL_TYPES
from cluster.protocol.schema import described, digest_of

OURS = Identity("0.2.0", "1-aaaaaaaaaaaa", "front")


@dataclass
class Inner:
    width: int
    height: int


@dataclass
class Outer:
    inner: tuple[Inner, ...]
    reason: str | None = None


class Reason(StrEnum):
    BUSY = "busy"


class Pair(NamedTuple):
    one: int
    other: Reason


class Asks(Protocol):
    async def ask(self, question: str, *, timeout_s: float) -> Pair: ...


def changed(kind: type, **types: type) -> str:
    return digest_of([make_dataclass(kind.__name__, types.items())])


def test_a_digest_is_of_the_fields() -> None:
    same = changed(Inner, width=int, height=int)
    assert digest_of([Inner]) == same
    assert len(same) == 12
    others = {
        "moved": changed(Inner, height=int, width=int),
        "missing": changed(Inner, width=int),
        "added": changed(Inner, width=int, height=int, depth=int),
        "renamed": changed(Inner, width=int, tall=int),
        "of another type": changed(Inner, width=int, height=float),
    }
    assert len({same, *others.values()}) == 6


def test_defaults_and_words_do_not_count() -> None:
    @dataclass
    class Inner:
        """Other words."""

        width: int = 3
        height: int = field(default=4)

    assert digest_of([Inner]) == changed(Inner, width=int, height=int)


def test_types_within_types_count() -> None:
    text = described([Outer, Pair, Asks])
    assert "Inner: width: int, height: int" in text
    assert "Reason: BUSY='busy'" in text
    assert "Asks: ask.question: str, ask.timeout_s: float, ask.return: Pair" in text


def test_everything_that_travels_is_in_our_digest() -> None:
    text = described(ALL_TYPES)
    for name in (
        "Detected: ",
        "Damage: ",
        "Stamp: ",
        "PhotoFacts: ",
        "Health: ",
        "BucketTiming: ",
        "Failure: ",
    ):
        assert f"\n{name}" in f"\n{text}"
    assert "width: int, height: int" in text


def test_our_digest_is_the_same_in_each_process() -> None:
    assert identity().tag == f"{PROTOCOL}-{digest_of(ALL_TYPES)}"
    assert digest_of([Detected]) != digest_of([Inner])


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (Identity("0.1.0", "1-b", "gpu-pc"), "Upgrade gpu-pc. Upgrade the head first"),
        (Identity("0.3.0", "1-b", "gpu-pc"), "Upgrade front to 0.3.0. Upgrade the head first"),
        (Identity("0.2.0", "1-b", "gpu-pc"), "install the same release on both"),
        (Identity("", "", "gpu-pc"), "Upgrade gpu-pc."),
        (Identity("of today", "1-b", "gpu-pc"), "install the same release on both"),
        (Identity("0.1.0", "1-b", "front"), "Upgrade the other one on front."),
    ],
)
def test_what_to_upgrade_first(theirs: Identity, words: str) -> None:
    with pytest.raises(VersionSkew) as skew:
        check_same(theirs, OURS)
    said = str(skew.value)
    assert words in said
    assert "front has rayface 0.2.0 (protocol 1-aaaaaaaaaaaa)" in said or "this process on front" in said
    assert "version_skew" in said


def test_the_same_protocol_is_no_skew_whatever_the_number() -> None:
    check_same(Identity("0.1.9", OURS.tag, "gpu-pc"), OURS)


def test_a_node_tells_by_labels_which_rayface_it_has() -> None:
    assert identity_of_labels({**labels(), "zone": "a"}, identity().host) == identity()
    assert identity_of_labels({"zone": "a"}, "gpu-pc") is None


def test_a_message_comes_out_of_its_frame() -> None:
    assert bytes(unframed(framed(b"words"))) == b"words"
    assert bytes(unframed(framed(b""))) == b""


@pytest.mark.parametrize(
    ("message", "host", "words"),
    [
        (b"rayface 1-cafe \x90", "gpu-pc", "gpu-pc has rayface of an unknown version (protocol 1-cafe)"),
        (b"rayface-skew not JSON", "gpu-pc", "protocol older than 1"),
        (b'rayface-skew {"version": "9.0", "tag": "9-x", "host": "there"}', "", "there has rayface 9.0"),
        (b'rayface-skew {"version": 9, "tag": null}', "gpu-pc", "gpu-pc has rayface 9 (protocol older"),
        (b"rayface-skew [1]", "gpu-pc", "protocol older than 1"),
        (b"\x80\x05]\x94.", "gpu-pc", "protocol older than 1"),
        ({"an": "object"}, "gpu-pc", "protocol older than 1"),
    ],
)
def test_whoever_speaks_otherwise_is_named(message: object, host: str, words: str) -> None:
    with pytest.raises(VersionSkew) as skew:
        unframed(message, host)
    assert words in str(skew.value)


def test_the_reply_to_another_version_says_who_we_are() -> None:
    kind, _, said = skew_reply().partition(b" ")
    assert kind == b"rayface-skew"
    assert Identity.of(json.loads(said)) == identity()
    assert identity().host in skew_sentence(Identity("0.1.0", "1-b", "gpu-pc"), identity())
