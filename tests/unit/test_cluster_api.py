"""The border to the driver process: one set of questions on both sides, and nothing else crosses it."""

from __future__ import annotations

import asyncio
import inspect
import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
import pytest

from actors.call_settings import OF_FAMILY
from actors.faces import Failure, Priority
from actors.images import PreparedImage
from cluster.connection.cluster_api import ClusterApi
from cluster.connection.cluster_client import ClusterClient
from cluster.connection.connection import Connection
from cluster.connection.driver import Driver, Handler
from cluster.connection.handlers import Handlers
from cluster.connection.messages import Answer, Ask, Channel, Join
from cluster.deployment.packed import PackedCall, pack_call, pack_outcomes
from cluster.errors import DetectorNotReady, Fault, NotAnswered
from cluster.protocol.identity import framed
from cluster.protocol.rows import Terms
from cluster.settings import load_settings
from tests.unit.fake_cluster import FakeCluster

QUESTIONS = {name: method for name, method in vars(ClusterApi).items() if inspect.iscoroutinefunction(method)}


def signature(method: Callable[..., Any], *without: str) -> tuple[list[tuple[str, Any, Any]], Any]:
    """Names, kinds and defaults of the arguments but for some, and all types."""
    arguments = inspect.signature(method).parameters
    types = get_type_hints(method)
    kept = [
        (str(each.replace(annotation=inspect.Parameter.empty)), each.kind, types.get(name))
        for name, each in arguments.items()
        if name not in without
    ]
    return kept, types["return"]


def table() -> Mapping[str, Handler]:
    return Handlers(load_settings(), "head:6379").table()


def public(kind: type) -> set[str]:
    return {name for name, each in vars(kind).items() if inspect.isfunction(each) and name[0] != "_"}


def test_protocol_client_and_handlers_have_the_same_questions() -> None:
    assert len(QUESTIONS) == 17
    assert set(table()) == set(QUESTIONS)
    assert public(ClusterClient) == set(QUESTIONS)
    assert public(Handlers) == {*QUESTIONS, "table"}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_has_one_signature(question: str) -> None:
    """The handlers alone have no `timeout_s`: the backend keeps the time."""
    agreed = QUESTIONS[question]
    for kind in (ClusterClient, Connection, FakeCluster):
        assert signature(getattr(kind, question)) == signature(agreed), kind
    assert table()[question].__name__ == question
    if question != "detect":
        assert signature(table()[question]) == signature(agreed, "self", "timeout_s")
    else:
        # Photos and outcomes are packed on this way.
        assert get_type_hints(table()[question]) == {
            "detector": str,
            "photos": PackedCall,
            "terms": Terms,
            "return": bytes,
        }


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_sent_by_its_name_with_all_its_arguments(question: str) -> None:
    sent: list[Any] = []

    async def send(question: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        sent.append((question, arguments, timeout_s))
        return pack_outcomes([]) if question == "detect" else "the answer"

    names = [name for name in inspect.signature(QUESTIONS[question]).parameters if name != "self"]
    given: dict[str, Any] = {name: name for name in names if name != "timeout_s"}
    if question == "detect":
        given |= {"images": [], "priority": Priority.BULK, "settings": OF_FAMILY}
    answer = asyncio.run(getattr(ClusterClient(send), question)(**given, timeout_s=3.0))
    arguments = tuple(given.values())
    if question == "detect":
        arguments = (
            "detector",
            pack_call([], None),
            Terms("bulk", given["deadline_s"], "traceparent", OF_FAMILY),
        )
    assert sent == [(question, arguments, 3.0)]
    returns_nothing = get_type_hints(QUESTIONS[question])["return"] is type(None)
    assert answer == (None if returns_nothing else [] if question == "detect" else "the answer")


@pytest.mark.parametrize(
    ("packed", "failure"),
    [
        (framed(msgspec.msgpack.encode([{"detected": {"width": "wide"}}])), Failure.INTERNAL),
        (framed(b""), Failure.INTERNAL),
        (framed(msgspec.msgpack.encode([{}])), Failure.INTERNAL),
        (b"rayface 1-cafe \x90", Failure.VERSION_SKEW),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_fault(packed: bytes, failure: Failure) -> None:
    async def send(question: str, arguments: tuple[Any, ...], timeout_s: float) -> bytes:
        return packed

    with pytest.raises(NotAnswered, match="cannot be read") as unanswered:
        asyncio.run(ClusterClient(send).detect("FaceDetector", [], Priority.BULK, 1.0, timeout_s=1.0))
    assert unanswered.value.failure is failure


def answer_of(handlers: Mapping[str, Handler], question: str) -> Answer:
    """What a driver process with these handlers writes when it is asked."""
    written = io.BytesIO()

    async def whole() -> None:
        messages: asyncio.Queue[Any] = asyncio.Queue()
        driver = Driver(handlers, Channel(io.BytesIO(), written))
        serving = asyncio.create_task(driver.serve(messages))
        messages.put_nowait(Ask(7, question, ()))
        async with asyncio.timeout(10.0):
            while not written.getvalue():
                await asyncio.sleep(0)
        messages.put_nowait(None)
        await serving

    asyncio.run(whole())
    answer = pickle.loads(written.getvalue())
    assert isinstance(answer, Answer)
    assert answer.number == 7
    return answer


def test_an_answer_may_hold_the_pixels_of_a_photo() -> None:
    pixels = np.ones((480, 640, 3), dtype=np.uint8)
    # What Ray brings cannot be written to.
    pixels.flags.writeable = False

    async def prepare() -> PreparedImage:
        return PreparedImage(pixels, 640, 480, (480, 640), 1.0, "digest")

    answer = answer_of({"prepare": prepare}, "prepare")
    assert answer.fault is None
    assert (answer.value.pixels == pixels).all()


@pytest.mark.parametrize("question", ["__init__", "table", "_asked", "_settings", "no_such_question"])
def test_a_question_that_is_not_in_the_table_is_refused(question: str) -> None:
    """Whatever attribute the driver process may have by that name."""
    fault = answer_of(table(), question).fault
    assert fault is not None
    assert fault.failure is Failure.VERSION_SKEW
    assert question in fault.detail


def test_an_error_of_a_handler_is_the_fault_in_the_answer() -> None:
    async def fails() -> None:
        raise DetectorNotReady("no machine lends a device", Failure.DEVICE_HELD)

    fault = answer_of({"nodes": fails}, "nodes").fault
    assert fault == Fault.of(Failure.DEVICE_HELD, "no machine lends a device")


def test_an_answer_that_cannot_be_pickled_is_a_fault() -> None:
    """And no silence, and no half of a message."""

    async def unsendable() -> Any:
        return [b"much" * 100_000, lambda: "no pickle"]

    answer = answer_of({"nodes": unsendable}, "nodes")
    assert answer.value is None
    assert answer.fault is not None
    assert answer.fault.failure is Failure.INTERNAL
    assert "'nodes' cannot be sent" in answer.fault.detail


def test_settings_cross_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths, and settings that came from a file or from variables."""
    config = tmp_path / "own.toml"
    config.write_text('[head]\nstorage = "tables"\n')
    monkeypatch.setenv("RAYFACE_CIRCUIT__GRACE_S", "17")
    settings = load_settings(config, cluster={"address": "head:6379"})
    monkeypatch.delenv("RAYFACE_CIRCUIT__GRACE_S")
    crossed = pickle.loads(pickle.dumps(Join.of(settings))).settings()
    assert crossed.model_dump() == settings.model_dump()
    assert (crossed.circuit.grace_s, crossed.head.storage) == (17.0, Path("tables"))
