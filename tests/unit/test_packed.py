"""What travels comes out as it went in, every field of it, and never out of another version's bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.encoded_image import EncodedImage
from actors.faces import Detected, Failed, Failure, Health, Outcome, Rejected, Rejection, Stamp, Times
from actors.images import PreparedImage
from actors.limits import Limits
from cluster.deployment import packed
from cluster.errors import VersionSkew
from cluster.protocol.rows import PrepareOrder, Terms, Unusable

# Built from the types of their fields: a field that is added later and not packed makes this fail.
# MessagePack has no larger integers than these, and no photo is as wide.
st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
ANY_OUTCOME = st.one_of(*(st.builds(kind) for kind in (Detected, Rejected, Failed)))


@given(st.lists(ANY_OUTCOME, max_size=5))
def test_outcomes_come_out_as_they_went_in(outcomes: list[Outcome]) -> None:
    came = packed.unpack_outcomes(packed.pack_outcomes(outcomes))
    assert repr(came) == repr(outcomes), "NaN is not equal to itself, so the words are compared"
    assert [type(each) for each in came] == [type(each) for each in outcomes]


@given(st.builds(Health))
def test_health_comes_out_as_it_went_in(health: Health) -> None:
    assert repr(packed.unpack_health(packed.pack_health(health))) == repr(health)


def test_a_reason_is_a_reason_again() -> None:
    stamp, times = Stamp("client"), Times()
    rejected = Rejected(stamp=stamp, times=times, reason=Rejection.TRUNCATED, detail="half")
    failed = Failed(stamp=stamp, times=times, reason=Failure.BUSY, detail="full", retry_after_s=0.5)
    came = packed.unpack_outcomes(packed.pack_outcomes([rejected, failed, rejected]))
    assert came == [rejected, failed, rejected]
    assert isinstance(came[0], Rejected)
    assert isinstance(came[1], Failed)
    assert came[0].reason is Rejection.TRUNCATED
    assert came[1].reason is Failure.BUSY


def test_what_is_no_outcome_is_not_packed() -> None:
    with pytest.raises(TypeError, match="no kind of outcome"):
        packed.pack_outcomes([Outcome(stamp=Stamp("client"))])


def test_terms_come_out_as_they_went_in() -> None:
    terms = Terms("bulk", 1.5, "00-trace")
    assert packed.unpack_terms(packed.pack_terms(terms)) == terms


def test_photos_come_out_as_they_went_in() -> None:
    photo = PreparedImage(np.full((2, 3, 3), 7, np.uint8), 3000, 2000, (64, 96), 1.5, "abc", 0.5)
    jpeg = EncodedImage(b"jpeg", 3, 2, 3000, 2000, (64, 96), 1.5, "abc", 0.5)
    call = packed.pack_call([photo, jpeg], None)
    one, other = packed.unpack_call(call.head, call.pixels, lambda address: None)
    assert other == jpeg
    assert (one.pixels == photo.pixels).all()
    assert repr(replace(one, pixels=photo.pixels)) == repr(photo)
    made = packed.unpack_prepared(*packed.pack_prepared(photo))
    assert isinstance(made, PreparedImage)
    assert (made.width, made.height, made.shape) == (3000, 2000, (64, 96))
    unusable = Unusable(Rejection.DAMAGED, "torn", 2.5)
    assert packed.unpack_prepared(*packed.pack_prepared(unusable)) == unusable


def test_an_order_to_prepare_comes_out_as_it_went_in() -> None:
    order = PrepareOrder(((640, 640), (480, 640)), Limits(1, 2, 3, 4.5, True), 2.5)
    assert packed.unpack_prepare_order(packed.pack_prepare_order(order)) == order


def test_fields_go_by_their_names() -> None:
    """With the sides in another order, they are still the same sides."""
    detected = Detected(stamp=Stamp("FaceDetector"), faces=(), width=3000, height=2000)
    (row,) = packed.unpack_value(packed.pack_outcomes([detected]))
    assert row["detected"]["width"] == 3000
    assert row["detected"]["height"] == 2000


@pytest.mark.parametrize("message", [b"", b"rayface 1-000000000000 \x90", b"\x80\x05]\x94.", [], None])
def test_nothing_of_another_version_is_read(message: object) -> None:
    unpackers: list[Any] = [packed.unpack_outcomes, packed.unpack_health, packed.unpack_terms]
    for unpack in unpackers:
        with pytest.raises(VersionSkew, match="would misread each other"):
            unpack(message)


def test_half_a_message_is_an_error() -> None:
    whole = packed.pack_terms(Terms("bulk", 1.5))
    with pytest.raises(msgspec.DecodeError):
        packed.unpack_terms(whole[:-1])
