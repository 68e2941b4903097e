"""Outcomes and terms come out of their bytes as they went in, every field of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.faces import Detected, Failed, Failure, Outcome, Rejected, Rejection, Stamp, Times
from cluster.deployment.packed import Terms, pack_outcomes, unpack_outcomes

# Built from the types of their fields: a field that is added later and not packed makes this fail.
ANY_OUTCOME = st.one_of(*(st.builds(kind) for kind in (Detected, Rejected, Failed)))


@given(st.lists(ANY_OUTCOME, max_size=5))
def test_outcomes_come_out_as_they_went_in(outcomes: list[Outcome]) -> None:
    came = unpack_outcomes(pack_outcomes(outcomes))
    assert repr(came) == repr(outcomes), "NaN is not equal to itself, so the words are compared"
    assert [type(each) for each in came] == [type(each) for each in outcomes]


def test_a_reason_is_a_reason_again() -> None:
    stamp, times = Stamp("client"), Times()
    rejected = Rejected(stamp=stamp, times=times, reason=Rejection.TRUNCATED, detail="half")
    failed = Failed(stamp=stamp, times=times, reason=Failure.BUSY, detail="full", retry_after_s=0.5)
    came = unpack_outcomes(pack_outcomes([rejected, failed, rejected]))
    assert came == [rejected, failed, rejected]
    assert came[0].stamp is came[2].stamp, "the outcomes of a call share their stamp"
    assert isinstance(came[0], Rejected)
    assert isinstance(came[1], Failed)
    assert came[0].reason is Rejection.TRUNCATED
    assert came[1].reason is Failure.BUSY


def test_what_is_no_outcome_is_not_packed() -> None:
    with pytest.raises(TypeError, match="no kind of outcome"):
        pack_outcomes([Outcome(stamp=Stamp("client"))])


def test_terms_come_out_as_they_went_in() -> None:
    terms = Terms("bulk", 1.5, "00-trace")
    assert Terms.unpacked(terms.packed()) == terms
