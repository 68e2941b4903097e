"""What a client does in the background goes on after an error that nobody foresaw, and says so once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.faces import Failure, Health, Priority, State
from cluster.client.circuit_breaker import CircuitState
from cluster.client.detector_pool import DetectorPool
from cluster.client.metrics import ClientMetrics
from cluster.client.registry import ClientRegistry, read_clients
from cluster.client.status import ClientStatus
from cluster.errors import Fault
from cluster.settings import CircuitSettings
from cluster.telemetry.metrics import Observation
from tests.unit.fake_cluster import FakeCluster, detected, health, quiet
from tests.virtual_time import run

unforeseen = pytest.mark.parametrize("kind", [OSError, ZeroDivisionError])
WORDS = "nobody foresaw it"


class Failing(FakeCluster):
    """Raises an error instead of every answer while `kind` is set."""

    def __init__(self, *names: str, kind: type[Exception] | None) -> None:
        super().__init__(*names)
        self.kind = kind

    def _fail(self) -> None:
        if self.kind is not None:
            raise self.kind(WORDS)

    async def place_detectors(self, *, timeout_s: float) -> list[str]:
        self._fail()
        return await super().place_detectors(timeout_s=timeout_s)

    async def record_metrics(self, observations: Any, *, timeout_s: float) -> None:
        self._fail()
        await super().record_metrics(observations, timeout_s=timeout_s)

    async def put_value(self, key: str, value: bytes, *, timeout_s: float) -> None:
        self._fail()
        await super().put_value(key, value, timeout_s=timeout_s)


def status() -> ClientStatus:
    return ClientStatus("head:1", "", "", 0, 0, (), {}, 0)


def lines(caplog: pytest.LogCaptureFixture, begin: str) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.getMessage().startswith(begin)]


@unforeseen
def test_the_watch_over_the_detectors_goes_on(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """If the watch ended, no circuit would ever close again."""

    async def story() -> None:
        loop, cluster = asyncio.get_running_loop(), Failing(kind=kind)
        pool = DetectorPool(cluster, CircuitSettings(jitter=0.0), quiet(loop.time))
        pool.watch()
        await asyncio.sleep(5.0)
        assert pool.detectors == {}
        cluster.kind = None
        await asyncio.sleep(60.0)
        assert list(pool.detectors) == ["FaceDetector"]
        await pool.close()

    run(story())
    (first, *_) = lines(caplog, "Watching the detectors failed with an error that was not foreseen")
    assert WORDS in first
    assert lines(caplog, "Watching the detectors works again")


@unforeseen
def test_one_detectors_unforeseen_error_costs_the_others_nothing(kind: type[Exception]) -> None:
    """The client still looks at the others and probes them, and their circuits close."""

    class OneFails(FakeCluster):
        async def health(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
            if detector == "a":
                raise kind(WORDS)
            return await super().health(detector, wait_s, timeout_s=timeout_s)

    async def story() -> None:
        loop, cluster = asyncio.get_running_loop(), OneFails("a", "b")
        faulty = health(name="b", state=State.FAULTY, detail="zeros", failure=Failure.DEVICE_LIES)
        cluster.healths["b"] = faulty
        pool = DetectorPool(cluster, CircuitSettings(jitter=0.0), quiet(loop.time))
        pool.watch()
        await asyncio.sleep(3.0)
        assert pool.detectors["b"].circuit.state(loop.time()) is not CircuitState.CLOSED
        cluster.healths["b"] = health(name="b")
        await asyncio.sleep(120.0)
        assert pool.detectors["b"].circuit.state(loop.time()) is CircuitState.CLOSED
        await pool.close()

    run(story())


@unforeseen
def test_a_probe_that_fails_unforeseen_has_failed_and_another_follows(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    class FirstFails(FakeCluster):
        async def self_test(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
            if not self.probes[detector]:
                self.probes[detector] += 1
                raise kind(WORDS)
            return await super().self_test(detector, wait_s, timeout_s=timeout_s)

    async def story() -> None:
        loop, cluster = asyncio.get_running_loop(), FirstFails()
        pool = DetectorPool(cluster, CircuitSettings(jitter=0.0), quiet(loop.time))
        await pool.look()
        pool.detectors["FaceDetector"].missed(loop.time(), Fault.of(Failure.DEVICE_LIES, "zeros"))
        pool.watch()
        await asyncio.sleep(60.0)
        assert pool.detectors["FaceDetector"].circuit.state(loop.time()) is CircuitState.CLOSED
        assert cluster.probes["FaceDetector"] >= 3
        await pool.close()

    run(story())
    assert len(lines(caplog, "A probe of FaceDetector failed")) == 1


@unforeseen
def test_the_clients_entry_is_written_again(kind: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    class Circuits:
        def reset(self, name: str | None = None) -> None:
            raise AssertionError("nobody asked for it")

    async def story() -> None:
        cluster = Failing(kind=kind)
        registry = ClientRegistry(cluster, Circuits(), status, quiet(asyncio.get_running_loop().time))
        registry.open()
        await asyncio.sleep(5.0)
        assert await read_clients(cluster) == []
        cluster.kind = None
        await asyncio.sleep(60.0)
        assert len(await read_clients(cluster)) == 1
        await registry.close()

    run(story())
    assert WORDS in lines(caplog, "Writing the client's entry failed")[0]


@unforeseen
@pytest.mark.parametrize("fails_in", ["sending", "the status"])
def test_metrics_are_sent_again_and_none_is_lost(
    kind: type[Exception], fails_in: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        cluster = Failing(kind=kind if fails_in == "sending" else None)
        fault = [kind(WORDS)] if fails_in == "the status" else []

        def failing_status() -> ClientStatus:
            if fault:
                raise fault[0]
            return status()

        metrics = ClientMetrics(cluster, failing_status, quiet(asyncio.get_running_loop().time))
        metrics.open()
        metrics.call_ended([detected(1)], Priority.BULK, 0.5)
        await asyncio.sleep(5.0)
        assert cluster.observed == []
        cluster.kind = None
        fault.clear()
        await asyncio.sleep(60.0)
        assert values(cluster.observed, "rayface_client_images_total") == [1]
        assert values(cluster.observed, "rayface_client_call_seconds") == [0.5]
        await metrics.close()

    run(story())
    assert WORDS in lines(caplog, "Sending the client's metrics failed")[0]


def values(observed: list[Observation], name: str) -> list[float]:
    return [value for each, value, _ in observed if each == name]
