"""What a client is built of, and in which order that is opened and closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from actors.intake import num_cores
from actors.observer import Observer
from actors.settings import DetectorSettings
from cluster.client.admission import Admission
from cluster.client.asking import Asking
from cluster.client.cluster_preparing import ClusterPreparing
from cluster.client.cpu_fallback import CpuDetector, CpuFallback, open_cpu_detector
from cluster.client.detector_pool import DetectorPool
from cluster.client.fitting import Fitting
from cluster.client.metrics import ClientMetrics
from cluster.client.pause import BulkPause
from cluster.client.preprocessing import Preprocessor, thread_pool
from cluster.client.registry import ClientRegistry
from cluster.client.status import ClientStatus
from cluster.client.wire import WireChoice
from cluster.connection.cluster_api import ClusterApi
from cluster.connection.connection import Connection
from cluster.connection.early_process import EarlyProcess
from cluster.settings import Settings
from cluster.slabs import SlabPool
from cluster.telemetry.rate_limit import rate_limited_log
from cluster.telemetry.setup import tracer_of
from cluster.telemetry.tracing import Tracer


class JoinableCluster(ClusterApi, Protocol):
    """A cluster that can be joined and left; `Connection` is one."""

    async def open(self, *, wait: bool = True) -> None:
        """Join the cluster; without `wait`, in the background."""
        ...

    async def close(self) -> None:
        """Leave the cluster."""
        ...


class Parts:
    """The parts of one client. Made in the event loop that the client is opened in.

    Tests hand in parts of their own; a client makes them all from its settings.

    Args:
        settings: of the client.
        connection: the way to the cluster.
        log: told of what changes, and sparingly.
        tracer: follows the calls.
        threads: makes the threads that prepare photos, from their number and a name.
        cpu_detector: makes the detector of this process, for the fallback.
        early: a driver process that loads already, for the first time that a cluster is joined.

    Raises:
        ConfigurationError: the settings ask for tracing that cannot be done here.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connection: JoinableCluster | None = None,
        log: logging.Logger | None = None,
        tracer: Tracer | None = None,
        threads: Callable[[int, str], Executor] = thread_pool,
        cpu_detector: Callable[[DetectorSettings, Observer | None], CpuDetector] = open_cpu_detector,
        early: EarlyProcess | None = None,
    ) -> None:
        client = settings.client
        self.clock = asyncio.get_running_loop().time
        self.log = log or rate_limited_log("rayface.client")
        self.tracer = tracer or tracer_of(settings.tracing, "rayface-client")
        self._slabs = None if connection else SlabPool.make(_max_pixels(settings), client.max_shared_bytes)
        self.connection: JoinableCluster = connection or Connection(
            settings, self.log, on_joined=self._joined, slabs=self._slabs, early=early
        )
        self.metrics = ClientMetrics(self.connection, self.status, self.log)
        self.fitting = Fitting(settings, self.log)
        self.pool = DetectorPool(
            self.connection,
            settings.circuit,
            self.log,
            self.clock,
            fitting=self.fitting,
            on_circuit_open=self.metrics.circuit_opened,
        )
        self.pause = BulkPause(self.pool, client.max_pause_s, self.log, self.clock)
        self.admission = Admission(client.max_images_in_flight, client.max_waiting_calls)
        self.preparing = ClusterPreparing(self.connection, self.log, self.clock, threads)
        self._prepares_elsewhere = client.prepare == "cluster"
        self.preprocessor = Preprocessor(
            settings,
            self.pool.known_health,
            threads,
            self._slabs,
            self.preparing,
            lambda: self.fitting.shapes,
        )
        wire = WireChoice(client.wire, client.num_prepare_threads or num_cores(), platform.node())
        self.asking = Asking(
            self.pool,
            self.fitting,
            self.metrics,
            self.tracer,
            self.clock,
            wire,
            self.preprocessor.encode,
            self.preprocessor.prepare_again,
            self.pause.wait,
        )
        self.fallback = CpuFallback(
            settings.fallback,
            lambda: self.fitting.of_cpu,
            self.clock,
            self.tracer,
            open_detector=cpu_detector,
            on_refused=self.metrics.fallback_refused,
        )
        self.registry = ClientRegistry(self.connection, self.pool, self.status, self.log)
        self._threads = threads
        self._start_ms: dict[str, float] = {}
        self._start_timeout_s = settings.cluster.start_timeout_s

    async def open(self, *, wait: bool) -> None:
        """Join the cluster, and look after the detectors from now on.

        Args:
            wait: until the cluster is joined and a detector is ready; without it, that goes on in the
                background.

        Raises:
            ClusterUnavailable, DetectorNotReady: with `wait`, nothing can be asked; says why.
        """
        begun = self.clock()
        await self.connection.open(wait=wait)
        if wait:
            joined = self.clock()
            await self.pool.start(self._start_timeout_s)
            self._start_ms = {
                "cluster": round((joined - begun) * 1000, 1),
                "detector": round((self.clock() - joined) * 1000, 1),
            }
        self.pool.watch()
        if self._prepares_elsewhere:
            self.preparing.open()
        self.registry.open()
        self.metrics.open()

    async def close(self) -> None:
        """Close all of them, whatever one of them raises."""
        async with contextlib.AsyncExitStack() as last_first:
            if self._slabs is not None:
                last_first.callback(self._slabs.close)
            last_first.push_async_callback(self._close_tracer)
            last_first.push_async_callback(self.connection.close)
            last_first.callback(self.preprocessor.close)
            last_first.push_async_callback(self.preparing.close)
            last_first.push_async_callback(self.fallback.close)
            last_first.push_async_callback(self.pool.close)
            last_first.push_async_callback(self.metrics.close)
            last_first.push_async_callback(self.registry.close)

    def status(self) -> ClientStatus:
        """How the client, its circuits and its fallback are now."""
        now = self.clock()
        address = self.connection.address
        return ClientStatus(
            address=address,
            why_not="" if address else self.connection.why_not,
            paused=self.pause.why,
            num_images=self.admission.num_taken,
            num_waiting_calls=self.admission.num_waiting,
            detectors=tuple(each.status(now) for each in self.pool.detectors.values()),
            fallback=dict(self.fallback.num_by_reason),
            num_fallback_refused=self.fallback.num_refused,
            num_connections=self.connection.num_joined,
            outcomes=dict(self.metrics.outcomes),
            start_ms=dict(self._start_ms),
        )

    def _joined(self) -> None:
        self.metrics.joined()

    async def _close_tracer(self) -> None:
        """In a thread, because sending the last spans blocks for a moment."""
        with self._threads(1, "rayface-tracer") as thread:
            await asyncio.get_running_loop().run_in_executor(thread, self.tracer.close)


def _max_pixels(settings: Settings) -> int:
    """Pixels of the largest photo that travels."""
    return max(height * width for height, width in settings.detector.shapes)
