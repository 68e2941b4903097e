"""What a check found: a verdict, the evidence for it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How it is: as it should be, worth a look, or wrong. Later ones are worse."""

    OK = "ok"
    WARN = "warn"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the check, in a word or two.
        evidence: what was seen.
        advice: what to do; empty where nothing need be done.
        where: the machine; empty for this one.
    """

    name: str
    verdict: Verdict
    evidence: str
    advice: str = ""
    where: str = ""

    @property
    def link(self) -> str:
        """The section of the documents that explains the check."""
        return f"docs/doctor.md#{self.name.replace(' ', '-')}"

    @property
    def sentence(self) -> str:
        """What is wrong and what to do about it, as an error says it."""
        evidence = self.evidence.rstrip(".")
        return f"{evidence[:1].upper()}{evidence[1:]}. {self.advice}".rstrip()

    def at(self, where: str) -> Finding:
        """The same, of another machine."""
        return replace(self, where=where)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "verdict": str(self.verdict), "link": self.link}


def of_dict(values: Mapping[str, Any]) -> Finding:
    """What `as_dict` gave, perhaps on a machine of another version."""
    known = {each.name: values[each.name] for each in fields(Finding) if each.name in values}
    return Finding(**{**known, "verdict": Verdict(values["verdict"])})


def ok(name: str, evidence: str) -> Finding:
    """As it should be."""
    return Finding(name, Verdict.OK, evidence)


def warn(name: str, evidence: str, advice: str) -> Finding:
    """Worth a look."""
    return Finding(name, Verdict.WARN, evidence, advice)


def wrong(name: str, evidence: str, advice: str) -> Finding:
    """Not as it should be."""
    return Finding(name, Verdict.WRONG, evidence, advice)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict of them all."""
    order = list(Verdict)
    return max((each.verdict for each in findings), key=order.index, default=Verdict.OK)
