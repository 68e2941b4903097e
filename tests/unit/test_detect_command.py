"""`rayface detect`: it tells people when photos wait for a detector, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any, cast

import pytest
from rich.console import Console

from cluster.cli.detect import _telling_pauses
from tests.virtual_time import run


class Client:
    """A client whose photos wait for a reason that the test sets; an error is raised instead."""

    def __init__(self) -> None:
        self.reason: str | Exception = ""

    @property
    def paused(self) -> str:
        if isinstance(self.reason, Exception):
            raise self.reason
        return self.reason


def test_pauses_are_told_after_an_error_that_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    client, out = Client(), io.StringIO()

    async def story() -> None:
        async with _telling_pauses(cast(Any, client), Console(file=out)):
            client.reason = OSError("the terminal is gone")
            await asyncio.sleep(3.0)
            client.reason = "no machine lends a device"
            await asyncio.sleep(60.0)
            client.reason = ""
            await asyncio.sleep(3.0)

    with caplog.at_level(logging.ERROR, "rayface.command"):
        run(story())
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines == ["Waiting for a detector: no machine lends a device", "Going on."]
    assert "the terminal is gone" in caplog.text
