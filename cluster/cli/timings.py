"""Where the time to the first outcome of `rayface detect` went, stage by stage."""

from __future__ import annotations

import json
import os
import sys
import time

import click
import psutil

from cluster.client.face_client import FaceClient
from cluster.node.kept import born

_STAGES = {
    "command": "loading the command and the list of photos",
    "cluster": "starting or joining the cluster",
    "detector": "finding the detector, or starting its process",
    "model": "checking the model",
    "session": "opening the model",
    "warm_up": "warming up",
    "first_photo": "the first photo",
}


class Start:
    """Measures a start; made when the client is about to be opened.

    Attributes:
        is_ready: when the client was open and a detector ready, in seconds since the epoch.
    """

    def __init__(self) -> None:
        self._connecting = time.time()
        self._process_begun = self._connecting - age_s()
        self.is_ready = self._connecting

    async def tell(self, client: FaceClient, *, is_own: bool, as_json: bool) -> None:
        """Print the stages on standard error; called with the first outcome.

        Args:
            client: open.
            is_own: whether its cluster was started now, for this run, and the detector with it.
            as_json: whether to print one JSON object.
        """
        now = time.time()
        parts = (await client.health()).start_ms if is_own else {}
        stages = in_stages(
            command_s=self._connecting - self._process_begun,
            client_ms=client.status().start_ms,
            detector_ms=parts,
            first_photo_s=now - self.is_ready,
        )
        whole_s = now - self._process_begun
        if as_json:
            click.echo(json.dumps({"first_outcome_s": round(whole_s, 3), "stages_s": stages}), err=True)
            return
        click.echo(f"{whole_s:6.2f} s to the first outcome:", err=True)
        for stage, seconds in stages.items():
            click.echo(f"{seconds:6.2f} s  {_STAGES[stage]}", err=True)


def age_s() -> float:
    """Seconds since this process began."""
    if sys.platform == "linux" and (began := born(os.getpid())) is not None:
        # psutil reckons from the second in which the machine started, so it may be wrong by one.
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began
    return time.time() - float(psutil.Process().create_time())


def in_stages(
    *,
    command_s: float,
    client_ms: dict[str, float],
    detector_ms: dict[str, float],
    first_photo_s: float,
) -> dict[str, float]:
    """Seconds of each stage, in their order.

    Args:
        command_s: from the start of the process until the client was opened.
        client_ms: `ClientStatus.start_ms`.
        detector_ms: `Health.start_ms` of a detector that started now; empty for one that was there before.
        first_photo_s: from the first ready detector to the first outcome.
    """
    waited_s = client_ms.get("detector", 0.0) / 1000
    inside_s = {part: ms / 1000 for part, ms in detector_ms.items() if part in _STAGES}
    return {
        stage: round(seconds, 3)
        for stage, seconds in (
            ("command", command_s),
            ("cluster", client_ms.get("cluster", 0.0) / 1000),
            ("detector", max(0.0, waited_s - sum(inside_s.values()))),
            *inside_s.items(),
            ("first_photo", first_photo_s),
        )
    }
