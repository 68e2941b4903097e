"""How photos travelled while a load was measured, as the client's own links say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from cluster.client.detector import Detector
from cluster.client.wire import Encoding

_WORDS: Mapping[Encoding, str] = {"pixels": "pixels", "jpeg": "JPEGs"}


@dataclass(frozen=True, slots=True)
class Travel:
    """How photos travel to the detectors.

    Attributes:
        encodings: in use, in alphabetical order; empty while no detector is known.
        link_bytes_per_s: what the links to detectors on other machines carry together, in bytes a second,
            measured by the client's calls; None while that is unknown, and if all detectors are here.
    """

    encodings: tuple[Encoding, ...] = ()
    link_bytes_per_s: float | None = None

    @classmethod
    def to(cls, detectors: Iterable[Detector], host: str) -> Self:
        """How photos travel now.

        Args:
            detectors: that the client knows; those that never reported are left out.
            host: the name of this machine.
        """
        heard = {each: each.health.host for each in detectors if each.health is not None}
        speeds = [
            speed
            for each, there in heard.items()
            if there != host and (speed := each.link.bytes_per_s) is not None
        ]
        return cls(tuple(sorted({each.link.encoding for each in heard})), sum(speeds) if speeds else None)

    @classmethod
    def during(cls, readings: Iterable[Travel]) -> Self:
        """Join readings, at least one: all encodings, and the last speed."""
        known = list(readings)
        return cls(
            tuple(sorted({name for each in known for name in each.encodings})), known[-1].link_bytes_per_s
        )

    def __str__(self) -> str:
        return " and ".join(_WORDS[each] for each in self.encodings)
