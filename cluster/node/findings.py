"""What a check found: a verdict, the evidence for it, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How it is: as it should be, worth a look, or wrong. Later ones are worse."""

    OK = "ok"
    WARN = "warn"
    WRONG = "wrong"


#: Of each check, the section of the README, as its heading says.
SECTIONS: Mapping[str, str] = {
    "python": "Five minutes",
    "ray": "Five minutes",
    "onnxruntime": "Five minutes",
    "model": "Five minutes",
    "token": "Two machines",
    "provider": "Two machines",
    "adapters": "Two machines",
    "session": "Two machines",
    "owner": "One owner",
    "docker": "Names, with published ports",
    "firewall": "Ports",
    "memory": "When something fails",
    "object store": "When something fails",
    "disk": "When something fails",
    "cluster": "Two machines",
    "head": "Two machines",
    "token of the head": "Two machines",
    "versions": "Two machines",
    "clock": "When something fails",
    "ports": "Ports",
    "way": "Ports",
    "way there": "Ports",
    "way back": "Ports",
    "device": "When something fails",
    "machines": "Two machines",
    "machine": "Two machines",
    "devices": "Two machines",
    "detectors": "Two machines",
    "detector": "When something fails",
    "restarts": "When something fails",
    "golden photo": "When something fails",
    "quarantine": "When something fails",
    "models": "The command",
    "circuit": "When something fails",
    "fallback": "When something fails",
    "doctor": "The doctor",
}


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
    def see(self) -> str:
        """A section of the README, as its heading says; empty for a check of another version."""
        return SECTIONS.get(self.name, "")

    def at(self, where: str) -> Finding:
        """The same, of another machine."""
        return replace(self, where=where)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        link = f"README.md#{anchor(self.see)}" if self.see else "README.md"
        return {**asdict(self), "verdict": str(self.verdict), "see": self.see, "link": link}


def anchor(heading: str) -> str:
    """What a heading of the README is called in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


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
