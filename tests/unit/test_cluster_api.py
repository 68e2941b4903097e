"""The border to the driver process: one set of questions on both sides, and nothing else crosses it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from actors.faces import Failure
from cluster.connection.cluster_api import ClusterApi
from cluster.connection.cluster_client import ClusterClient
from cluster.connection.connection import Connection
from cluster.connection.driver import Driver
from cluster.connection.handlers import HANDLERS, Handlers
from cluster.connection.messages import Answer, Ask
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


def public(kind: type) -> set[str]:
    return {name for name, each in vars(kind).items() if inspect.isfunction(each) and name[0] != "_"}


def test_protocol_client_and_handlers_have_the_same_questions() -> None:
    assert len(QUESTIONS) == 15
    assert set(HANDLERS) == set(QUESTIONS)
    assert public(ClusterClient) == set(QUESTIONS)
    assert public(Handlers) == set(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_has_one_signature(question: str) -> None:
    """The handlers alone have no `timeout_s`: the backend keeps the time."""
    agreed = QUESTIONS[question]
    for kind in (ClusterClient, Connection, FakeCluster):
        assert signature(getattr(kind, question)) == signature(agreed), kind
    assert HANDLERS[question] is getattr(Handlers, question)
    assert signature(HANDLERS[question]) == signature(agreed, "timeout_s")


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_sent_by_its_name_with_all_its_arguments(question: str) -> None:
    sent: list[Any] = []

    async def send(question: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        sent.append((question, arguments, timeout_s))
        return "the answer"

    names = [name for name in inspect.signature(QUESTIONS[question]).parameters if name != "self"]
    given = {name: name for name in names if name != "timeout_s"}
    answer = asyncio.run(getattr(ClusterClient(send), question)(**given, timeout_s=3.0))
    assert sent == [(question, tuple(given.values()), 3.0)]
    returns_nothing = get_type_hints(QUESTIONS[question])["return"] is type(None)
    assert answer == (None if returns_nothing else "the answer")


class Channel:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    def write(self, value: Any) -> None:
        self.written.append(value)


@pytest.mark.parametrize("question", ["__init__", "_asked", "_settings", "no_such_question"])
def test_a_question_that_is_not_in_the_table_is_refused(question: str) -> None:
    """Whatever attribute the driver process may have by that name."""

    async def whole() -> Answer:
        channel = Channel()
        messages: asyncio.Queue[Any] = asyncio.Queue()
        driver = Driver(Handlers(load_settings(), "head:6379"), channel)  # type: ignore[arg-type]  # keeps answers
        serving = asyncio.create_task(driver.serve(messages))
        messages.put_nowait(Ask(7, question, ()))
        async with asyncio.timeout(10.0):
            while not channel.written:
                await asyncio.sleep(0)
        messages.put_nowait(None)
        await serving
        (answer,) = channel.written
        assert isinstance(answer, Answer)
        return answer

    answer = asyncio.run(whole())
    assert answer.number == 7
    assert answer.fault is not None
    assert answer.fault.failure is Failure.VERSION_MISMATCH
    assert question in answer.fault.detail
