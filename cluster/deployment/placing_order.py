"""What a detector is made of, as it travels to the machine that makes it: one JSON document.

Ray keeps the document, and gives it again to every later process of the detector: also to one of a later
version, after the machine was upgraded. So it is read by its names, and what a later version does not know
makes no process end: the detector lives, is FAULTY, and says why.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError

from actors.errors import Misplaced
from actors.settings import DetectorSettings
from cluster.protocol.identity import PROTOCOL, Identity, identity, skew_sentence
from cluster.settings import Settings

_AGAIN = "Place it anew with this machine's rayface: `rayface remove NAME`, then `rayface place`."


@dataclass(frozen=True, slots=True)
class PlacingOrder:
    """What a detector is made of, and who wanted it.

    Attributes:
        settings: of the detector.
        tracing: a `TracingSettings`, as JSON-ready values; None where nothing is traced.
        placed_by: host and process that placed it, in words; empty if that is not known.
        placed_at: seconds since 1970; 0 if that is not known.
        rayface: which rayface placed it.
        fault: why no detector can be made of it; None if one can.
    """

    settings: DetectorSettings
    tracing: Mapping[str, Any] | None
    placed_by: str
    placed_at: float
    rayface: Identity
    fault: Misplaced | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The order of this process, now."""
        tracing = settings.tracing.model_dump(mode="json") if settings.tracing.is_on else None
        by = f"{platform.node()} pid {os.getpid()}"
        return cls(settings.detector, tracing, by, time.time(), identity())

    def packed(self) -> str:
        """The order as JSON."""
        return json.dumps(
            {
                "settings": self.settings.model_dump(mode="json"),
                "tracing": self.tracing,
                "placed_by": self.placed_by,
                "placed_at": self.placed_at,
                "rayface": self.rayface.as_dict(),
            }
        )

    @classmethod
    def unpacked(cls, packed: object, tracing: Mapping[str, Any] | None = None) -> Self:
        """Read an order, whoever wrote it; what cannot be read becomes the fault.

        Args:
            packed: as `packed` made it. A rayface of a time before there was a protocol sends the settings
                alone, as a mapping.
            tracing: sent beside them by such a rayface.
        """
        values = _document(packed, tracing)
        rayface = Identity.of(values.get("rayface"), "the machine that placed it")
        settings, fault = DetectorSettings(), None
        if rayface.tag and rayface.tag.partition("-")[0] != str(PROTOCOL):
            fault = Misplaced(f"{skew_sentence(rayface, identity())} {_AGAIN}")
        else:
            try:
                settings = DetectorSettings.model_validate(values.get("settings"))
            except ValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
                fault = Misplaced(
                    f"The detector was placed by {rayface} on {rayface.host}, with settings that "
                    f"{identity()} here does not know ({wrong}). {_AGAIN}"
                )
        said_tracing = values.get("tracing")
        at = values.get("placed_at")
        return cls(
            settings,
            said_tracing if isinstance(said_tracing, Mapping) else None,
            str(values.get("placed_by") or ""),
            float(at) if isinstance(at, int | float) else 0.0,
            rayface,
            fault,
        )


def _document(packed: object, tracing: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if isinstance(packed, Mapping):
        return {"settings": packed, "tracing": tracing}
    try:
        found = json.loads(packed if isinstance(packed, str | bytes) else "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
