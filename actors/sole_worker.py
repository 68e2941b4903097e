"""One decode worker for a process that prepares one photo after another."""

from __future__ import annotations

import threading
from collections.abc import Callable

from actors.decode_cost import check_cost, decode_cost
from actors.decode_worker import ENDS_A_WORKER, Decoder, DecodeWorker, max_wall_s, stuck
from actors.errors import DetectorFault, ImageFault
from actors.images import Limits, PreparedImage, prepare


class SoleWorker:
    """Prepares photos where that is safe: cheap ones in the caller's thread, all others in one worker.

    It is for a process that prepares one photo at a time, and has no event loop.

    Args:
        start: starts a worker, from the bytes that decoding one photo may take.
    """

    def __init__(self, start: Callable[[int], Decoder] = DecodeWorker.start) -> None:
        self._start = start
        self._worker: Decoder | None = None

    def prepare(
        self, encoded: bytes, shapes: tuple[tuple[int, int], ...], limits: Limits, max_enlargement: float
    ) -> PreparedImage:
        """Prepare a photo here if its cost has a small bound, or else in the worker.

        Raises:
            ImageFault: the photo cannot be used, or it is too costly.
            DetectorFault: there is no worker, or it was ended; says why.
        """
        cost = decode_cost(encoded)
        check_cost(cost, limits)
        work = prepare if cost.is_cheap else self.prepare_apart
        return work(encoded, shapes, limits, max_enlargement)

    def prepare_apart(
        self, encoded: bytes, shapes: tuple[tuple[int, int], ...], limits: Limits, max_enlargement: float
    ) -> PreparedImage:
        """Prepare a photo in the worker; see `actors.images.prepare`.

        Raises:
            ImageFault: the photo cannot be used, or it is too costly.
            DetectorFault: there is no worker, or it was ended; says why.
        """
        worker, self._worker = self._worker, None
        if worker is None or not worker.is_alive:
            worker = self._start(limits.max_decode_bytes)
        wall_s = max_wall_s(limits)
        is_stuck = threading.Event()

        def end() -> None:
            is_stuck.set()
            worker.end()

        timer = threading.Timer(wall_s, end)
        timer.daemon = True
        timer.start()
        try:
            photo = worker.ask(encoded, shapes, limits, max_enlargement)
        except ImageFault as fault:
            if fault.reason in ENDS_A_WORKER:
                worker.end()
            else:
                self._worker = worker
            raise
        except DetectorFault:
            worker.end()
            if is_stuck.is_set():
                raise stuck(wall_s) from None
            raise
        except BaseException:
            # Ray cancels a task by an interruption; nobody waits for the worker then.
            worker.end()
            raise
        finally:
            timer.cancel()
        self._worker = worker
        return photo

    def close(self) -> None:
        """Kill the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
