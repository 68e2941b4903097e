"""What a check found: a verdict, the evidence for it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How it is: as it should be, worth a look, or wrong. Later ones are worse."""

    OK = "ok"
    MIND = "mind"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the check, in a word or two.
        evidence: what was seen.
        advice: what to do; empty where nothing need be done.
        see: a section of the README, as its heading says.
        where: the machine; empty for this one.
    """

    name: str
    verdict: Verdict
    evidence: str
    advice: str = ""
    see: str = ""
    where: str = ""

    def at(self, where: str) -> Finding:
        """The same, of another machine."""
        return replace(self, where=where)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "verdict": str(self.verdict)}


def of_dict(values: Mapping[str, Any]) -> Finding:
    """What `as_dict` gave."""
    return Finding(**{**values, "verdict": Verdict(values["verdict"])})


def ok(name: str, evidence: str) -> Finding:
    """As it should be."""
    return Finding(name, Verdict.OK, evidence)


def mind(name: str, evidence: str, advice: str, see: str = "") -> Finding:
    """Worth a look."""
    return Finding(name, Verdict.MIND, evidence, advice, see)


def wrong(name: str, evidence: str, advice: str, see: str = "") -> Finding:
    """Not as it should be."""
    return Finding(name, Verdict.WRONG, evidence, advice, see)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict of them all."""
    order = list(Verdict)
    return max((each.verdict for each in findings), key=order.index, default=Verdict.OK)
