"""The questions of `ClusterApi` as messages: each method sends its name and its arguments."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, cast

from actors.call_settings import CallSettings
from actors.encoded_image import SentImage
from actors.faces import Failure, Health, Outcome, Priority
from actors.images import PreparedImage
from cluster.connection.cluster_api import ActorEntry, ClusterApi, DriverAddress, Node, Pulse, Value
from cluster.deployment.packed import pack_call, unpack_outcomes
from cluster.errors import Fault, NotAnswered, VersionSkew
from cluster.protocol.rows import PrepareOrder, Terms, Unusable
from cluster.slabs import Slabs
from cluster.telemetry.metrics import Observation

Arguments = ParamSpec("Arguments")


class Send(Protocol):
    """Carries a question to a driver process and brings its answer."""

    async def __call__(self, question: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        """The answer.

        Raises:
            NotAnswered: no answer came within `timeout_s` seconds; says why.
        """
        ...


class ClusterClient:
    """Asks the questions of `ClusterApi`, which documents them.

    Args:
        send: carries each question.
        slabs: the memory that the other end can read too; None for none.
    """

    def __init__(self, send: Send, slabs: Slabs | None = None) -> None:
        self._send = send
        self._slabs = slabs

    async def place_detectors(self, *, timeout_s: float) -> list[str]:
        return await self._ask(ClusterApi.place_detectors, timeout_s=timeout_s)

    async def list_detectors(self, *, timeout_s: float) -> list[str]:
        return await self._ask(ClusterApi.list_detectors, timeout_s=timeout_s)

    async def remove_detector(self, detector: str, *, timeout_s: float) -> None:
        await self._ask(ClusterApi.remove_detector, detector, timeout_s=timeout_s)

    async def replace_detector(self, detector: str, drain_s: float, *, timeout_s: float) -> None:
        await self._ask(ClusterApi.replace_detector, detector, drain_s, timeout_s=timeout_s)

    async def detect(
        self,
        detector: str,
        images: Sequence[SentImage],
        priority: Priority,
        deadline_s: float,
        traceparent: str = "",
        settings: CallSettings | None = None,
        *,
        timeout_s: float,
    ) -> list[Outcome]:
        photos = pack_call(images, self._slabs)
        terms = Terms(priority.value, deadline_s, traceparent, settings)
        packed = await self._send("detect", (detector, photos, terms), timeout_s=timeout_s)
        try:
            return unpack_outcomes(packed)
        except (VersionSkew, ValueError) as error:
            # `ValueError`: an answer of our own protocol that holds what it may not hold.
            failure = error.failure if isinstance(error, VersionSkew) else Failure.INTERNAL
            detail = f"The detector's answer cannot be read: {error}".rstrip(".")
            raise NotAnswered(Fault.of(failure, f"{detail}.")) from error

    async def prepare(
        self, node_id: str, encoded: bytes, order: PrepareOrder, *, timeout_s: float
    ) -> PreparedImage | Unusable:
        return await self._ask(ClusterApi.prepare, node_id, encoded, order, timeout_s=timeout_s)

    async def health(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
        return await self._ask(ClusterApi.health, detector, wait_s, timeout_s=timeout_s)

    async def self_test(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
        return await self._ask(ClusterApi.self_test, detector, wait_s, timeout_s=timeout_s)

    async def nodes(self, *, timeout_s: float) -> list[Node]:
        return await self._ask(ClusterApi.nodes, timeout_s=timeout_s)

    async def actor_entries(self, *, timeout_s: float) -> dict[str, ActorEntry]:
        return await self._ask(ClusterApi.actor_entries, timeout_s=timeout_s)

    async def driver_address(self, *, timeout_s: float) -> DriverAddress:
        return await self._ask(ClusterApi.driver_address, timeout_s=timeout_s)

    async def pulse(self, *, timeout_s: float) -> Pulse:
        return await self._ask(ClusterApi.pulse, timeout_s=timeout_s)

    async def run_on(self, node_id: str, work: partial[Value], *, timeout_s: float) -> Value:
        return await self._ask(ClusterApi.run_on, node_id, work, timeout_s=timeout_s)

    async def record_metrics(self, observations: Sequence[Observation], *, timeout_s: float) -> None:
        await self._ask(ClusterApi.record_metrics, observations, timeout_s=timeout_s)

    async def put_value(self, key: str, value: bytes, *, timeout_s: float) -> None:
        await self._ask(ClusterApi.put_value, key, value, timeout_s=timeout_s)

    async def get_values(self, prefix: str, *, timeout_s: float) -> dict[str, bytes]:
        return await self._ask(ClusterApi.get_values, prefix, timeout_s=timeout_s)

    async def delete_value(self, key: str, *, timeout_s: float) -> None:
        await self._ask(ClusterApi.delete_value, key, timeout_s=timeout_s)

    async def _ask(
        self,
        question: Callable[Concatenate[ClusterApi, Arguments], Coroutine[Any, Any, Value]],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Value:
        """Send a question; mypy compares the arguments and the result with the Protocol's method."""
        timeout_s = cast(float, named["timeout_s"])
        return cast(Value, await self._send(question.__name__, arguments, timeout_s))
