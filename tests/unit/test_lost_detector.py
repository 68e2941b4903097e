"""What a person reads when a detector's process was not reached: no more than Ray and the head know."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import ray.exceptions as rex

from actors.faces import Failure
from cluster import ray_internals
from cluster.connection.cluster_api import ActorEntry
from cluster.connection.handlers import Handlers
from cluster.connection.lost_detector import why_lost
from cluster.deployment.ray_errors import fault_of
from cluster.errors import NotAnswered
from cluster.settings import load_settings

REFUSED = rex.ActorUnavailableError(
    "The actor is temporarily unavailable: RpcError: failed to connect to all addresses: Connection refused",
    None,
)
NO_MODULE = (
    "Traceback (most recent call last):\n  File a.py, line 1\nModuleNotFoundError: No module named 'odd'\n"
)


def entry(state: str, num_restarts: int = 0, cause: str = "") -> ActorEntry:
    return ActorEntry(state, num_restarts, "10.0.0.2", 11002, cause)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (None, "did not reach the detector's process, or its answer was lost: The actor is temporarily"),
        (entry("ALIVE"), "cut off, and the head counts its process as alive: .*Connection refused.$"),
        (entry("RESTARTING", 19, "No space left on device"), "ended .No space.*starts it again .restart 19"),
        (entry("DEAD", 3, "all restarts are used up"), "given the detector up .all restarts are used up"),
        (entry("PENDING_CREATION"), "has not started yet; no machine has taken it"),
    ],
)
def test_words_claim_what_is_known(known: ActorEntry | None, words: str) -> None:
    fault = why_lost(REFUSED, known)
    assert fault.failure is Failure.DETECTOR_LOST
    assert re.search(words, fault.detail), fault.detail
    assert "broken link" not in fault.detail


def test_a_process_that_cannot_start_says_its_own_error() -> None:
    failed = rex.ActorDiedError(rex.RayTaskError("__init__", NO_MODULE, ModuleNotFoundError("odd")))
    detail = why_lost(failed, entry("DEAD")).detail
    assert detail == "The detector's process cannot start: ModuleNotFoundError: No module named 'odd'."


def test_an_error_in_the_detectors_process_is_said() -> None:
    """As Ray answers every call of an actor whose class could not be imported there."""
    failed = rex.RayTaskError("answer", "trace", RuntimeError(f"failed to import:\n{NO_MODULE}"))
    fault = fault_of(failed)
    assert fault.failure is Failure.INTERNAL
    assert "ModuleNotFoundError: No module named 'odd'" in fault.detail


def test_a_task_whose_process_ended_is_no_word_about_a_detector() -> None:
    assert "detector" not in fault_of(rex.WorkerCrashedError()).detail


class Cut:
    """As Ray's handle of a detector that cannot be reached."""

    def __getattr__(self, method: str) -> Cut:
        return self

    def options(self, name: str) -> Cut:
        return self

    async def remote(self, *_: Any) -> None:
        raise REFUSED


def test_the_head_is_asked_what_it_knows_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [("RESTARTING", 2, "10.0.0.2", 0, "it was killed"), ConnectionError("away"), None]
    monkeypatch.setattr(ray_internals, "actor_row", lambda handle: _said(rows.pop(0)))
    handlers = Handlers(load_settings(), "head:6379")
    handlers._handles = {"FaceDetector": Cut()}

    async def words() -> str:
        with pytest.raises(NotAnswered) as lost:
            await handlers.table()["health"]("FaceDetector", 0.0)
        return str(lost.value)

    async def story() -> list[str]:
        return [await words() for _ in range(3)]

    restarting, *unknown = asyncio.run(story())
    assert restarting == "The detector's process ended (it was killed); Ray starts it again (restart 2)."
    assert all("did not reach" in each for each in unknown)


def _said(row: Any) -> Any:
    if isinstance(row, Exception):
        raise row
    return row
