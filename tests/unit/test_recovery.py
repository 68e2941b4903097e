"""What the detector does about each fault of its device, and what the process after it knows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import model_life
from actors.batch_table import BatchTable
from actors.errors import DeviceFailed, DeviceRemoved, OutOfMemory
from actors.face_detector import FaceDetector, start_detector
from actors.faces import Detected, Failed, Failure, Outcome, State
from actors.flight_recorder import FlightRecorder
from actors.model_life import ModelLife
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice, golden_heads, prepared

SETTINGS = DetectorSettings(batch_sizes=(1, 2, 4, 8), num_lanes=1, input_size=320, warm_up_s=1e9)
SHAPE = (320, 320)
Tensor = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)
    # Whatever this machine's clock says: the larger the batch, the better.
    add = BatchTable.add
    monkeypatch.setattr(BatchTable, "add", lambda table, size, shape, run_ms: add(table, size, shape, 1.0))


@pytest.fixture
def ends() -> list[str]:
    """Why processes were ended."""
    return []


@pytest.fixture
def make(tmp_path: Path, ends: list[str]) -> Iterator[Callable[..., FaceDetector]]:
    """The next process: the same device and folder. What each has open is closed after the test."""
    lives: list[ModelLife] = []

    def made(device: FakeDevice, **changes: Any) -> FaceDetector:
        settings = SETTINGS.model_copy(update=changes)
        life = ModelLife("FaceDetector", settings, device, records=tmp_path, end=ends.append)
        lives.append(life)
        detector = FaceDetector(life)
        detector.start()
        return detector

    yield made
    for life in lives:
        life.close()


def run(story: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await story

    return asyncio.run(bounded())


def marks(tensor: Tensor) -> list[int]:
    """The numbers that the photos of a run carry; 0 for the golden photo."""
    return [int(image[0, 0, 0]) if image[0, 0, 0] == image[7, 7, 2] else 0 for image in tensor]


def photos(*numbers: int) -> list[Any]:
    return [prepared(number, SHAPE) for number in numbers]


def reasons(outcomes: list[Outcome]) -> list[str]:
    return [str(each.reason) if isinstance(each, Failed) else each.status for each in outcomes]


def after_start(answer: Callable[[Tensor], Any], device: FakeDevice) -> Callable[[Tensor], Any]:
    """The device as it is while the golden photo alone is run, and as `answer` says with others."""
    device.answer = lambda tensor: answer(tensor) if any(marks(tensor)) else golden_heads(tensor)
    return device.answer


async def ready(detector: FaceDetector) -> FaceDetector:
    assert (await detector.health(20.0)).state is State.READY
    return detector


def test_out_of_memory_halves_the_batch_and_is_remembered(make: Callable[..., FaceDetector]) -> None:
    """Every image is answered all the same, and the next process begins with what fits."""
    device = FakeDevice()

    def answer(tensor: Tensor) -> Any:
        if len(tensor) > 2:
            raise OutOfMemory("full")
        return golden_heads(tensor)

    async def story() -> None:
        detector = await ready(make(device))
        after_start(answer, device)
        outcomes = await detector.detect(photos(*range(1, 9)))
        assert reasons(outcomes) == ["detected"] * 8
        assert (await detector.health()).max_batch == 2
        assert (await detector.health()).state is State.READY
        device.runs.clear()
        after = await ready(make(device))
        assert max(device.runs) <= 2
        assert reasons(await after.detect(photos(*range(1, 9)))) == ["detected"] * 8
        assert max(device.runs) <= 2

    run(story())


def test_a_device_without_memory_at_start_takes_what_fits(make: Callable[..., FaceDetector]) -> None:
    """A bucket too large is no reason not to start."""

    def answer(tensor: Tensor) -> Any:
        if len(tensor) > 2:
            raise OutOfMemory("full")
        return golden_heads(tensor)

    async def story() -> None:
        detector = await ready(make(FakeDevice(answer)))
        assert (await detector.health()).max_batch == 2

    run(story())


def test_no_memory_for_a_single_image_is_said(make: Callable[..., FaceDetector]) -> None:
    """I1."""
    device = FakeDevice()

    def full(tensor: Tensor) -> Any:
        raise OutOfMemory("full")

    async def story() -> None:
        detector = await ready(make(device))
        after_start(full, device)
        assert reasons(await detector.detect(photos(1, 2))) == ["out_of_memory"] * 2
        assert (await detector.health()).state is State.READY

    run(story())


def nan_for(number: int) -> Callable[[Tensor], Any]:
    def answer(tensor: Tensor) -> Any:
        heads = golden_heads(tensor)
        for slot, mark in enumerate(marks(tensor)):
            if mark == number:
                heads["heat"][slot] = np.nan
        return heads

    return answer


def zeros_for(number: int) -> Callable[[Tensor], Any]:
    def answer(tensor: Tensor) -> Any:
        heads = golden_heads(tensor)
        for slot, mark in enumerate(marks(tensor)):
            if mark == number:
                for head in heads.values():
                    head[slot] = 0
        return heads

    return answer


def raises_for(number: int) -> Callable[[Tensor], Any]:
    def answer(tensor: Tensor) -> Any:
        if number in marks(tensor):
            raise DeviceFailed("The parameter is incorrect.")
        return golden_heads(tensor)

    return answer


@pytest.mark.parametrize("guilty", [nan_for, zeros_for, raises_for])
def test_a_photo_that_the_device_fails_on_fails_alone(
    make: Callable[..., FaceDetector], guilty: Callable[[int], Callable[[Tensor], Any]]
) -> None:
    """I3: the golden photo is right, so it is the photo; its neighbours are answered, the device is READY."""
    device = FakeDevice()

    async def story() -> None:
        detector = await ready(make(device))
        after_start(guilty(3), device)
        outcomes = await detector.detect(photos(*range(1, 9)))
        assert reasons(outcomes) == ["device_failed" if number == 3 else "detected" for number in range(1, 9)]
        assert isinstance(outcomes[2], Failed)
        assert "golden photo was right" in outcomes[2].detail
        assert (await detector.health()).state is State.READY

    run(story())


def test_a_device_that_fails_on_every_photo_is_not_asked_twice_for_each(
    make: Callable[..., FaceDetector],
) -> None:
    """I6: running photos one by one is bounded; at total failure a photo is run 1.1 times at most."""
    device, num_runs = FakeDevice(), 0

    def failing(tensor: Tensor) -> Any:
        nonlocal num_runs
        num_runs += len(tensor)
        raise DeviceFailed("no")

    async def story() -> None:
        detector = await ready(make(device))
        after_start(failing, device)
        for _ in range(100):
            outcomes = await detector.detect(photos(*range(1, 9)))
            assert reasons(outcomes) == ["device_failed"] * 8
        assert num_runs <= 1.1 * 800

    run(story())


def test_what_waits_is_not_run_on_a_device_that_was_found_to_lie(make: Callable[..., FaceDetector]) -> None:
    """I1, I4: not only later calls."""
    device = FakeDevice()

    async def story() -> None:
        detector = await ready(make(device))
        device.answer = lambda tensor: {
            name: np.zeros_like(head) for name, head in golden_heads(tensor).items()
        }
        device.runs.clear()
        assert reasons(await detector.detect(photos(*range(1, 30)))) == ["device_lies"] * 29
        assert sum(device.runs) <= 1 + 8 + 3
        assert (await detector.health()).state is State.FAULTY

    run(story())


def test_a_removed_device_ends_the_process_and_the_next_one_knows_why(
    make: Callable[..., FaceDetector], ends: list[str]
) -> None:
    """Nothing inside the process brings it back."""
    device = FakeDevice()

    def removed(tensor: Tensor) -> Any:
        raise DeviceRemoved("887A0005")

    async def story() -> None:
        detector = await ready(make(device))
        after_start(removed, device)
        await detector.detect(photos(1))
        assert ends == ["removed: 887A0005"]
        device.answer = golden_heads
        after = await (await ready(make(device))).health()
        assert after.last_words == "removed: 887A0005"
        assert after.num_suspects == 0

    run(story())


def test_a_device_removed_at_start_is_looked_for_by_a_new_process_after_a_pause(
    make: Callable[..., FaceDetector], ends: list[str], tmp_path: Path
) -> None:
    """Not at once: a process that ended itself at every start would be started again for ever."""
    now = [0.0]

    def removed(tensor: Tensor) -> Any:
        raise DeviceRemoved("887A0005")

    async def story() -> None:
        device = FakeDevice(removed)
        detector = start_detector(
            "FaceDetector", SETTINGS, device, lambda: now[0], records=tmp_path, end=ends.append
        )
        assert (await detector.health(20.0)).state is State.FAULTY
        await detector.check()
        assert ends == []
        now[0] += 31
        await detector.check(20.0)
        assert len(ends) == 1

    run(story())


def test_a_run_that_hangs_ends_the_process(make: Callable[..., FaceDetector], ends: list[str]) -> None:
    """The watchdog's words are there for the next process."""
    device, release = FakeDevice(), threading.Event()

    def hang(tensor: Tensor) -> Any:
        release.wait(20)
        return golden_heads(tensor)

    async def story() -> None:
        detector = await ready(make(device, max_run_s=0.05))
        after_start(hang, device)
        asking = asyncio.create_task(detector.detect(photos(1)))
        # The watchdog is a thread with a real clock; it ends the process within half a second.
        while not ends:
            await asyncio.to_thread(threading.Event().wait, 0.02)
        assert ends[0].startswith("hung: ")
        assert "0.05 s are allowed" in ends[0]
        release.set()
        await asking
        assert "0.05 s are allowed" in (await (await ready(make(device))).health()).last_words

    run(story())


def dies_with(folder: Path, *digests: str) -> None:
    """A process of the detector dies with these photos on the device."""
    recorder = FlightRecorder(
        folder / "rayface-FaceDetector-cpu-0.flights.json", f"{MODEL.label} on cpu:0", 3600.0
    )
    flight = recorder.flight(list(digests))
    flight.__enter__()
    left = (folder / "rayface-FaceDetector-cpu-0.flights.json").read_bytes()
    flight.__exit__(None, None, None)
    (folder / "rayface-FaceDetector-cpu-0.flights.json").write_bytes(left)
    recorder.close()


def test_suspects_are_run_alone_and_cleared(make: Callable[..., FaceDetector], tmp_path: Path) -> None:
    """After a death, what was on the device is answered, one by one; then they are photos like others."""
    device = FakeDevice()
    dies_with(tmp_path, "image 2", "image 3")

    async def story() -> None:
        detector = await ready(make(device))
        assert (await detector.health()).num_suspects == 2
        with_whom: list[list[int]] = []

        def noting(tensor: Tensor) -> Any:
            with_whom.append(marks(tensor))
            return golden_heads(tensor)

        after_start(noting, device)
        assert reasons(await detector.detect(photos(*range(1, 9)))) == ["detected"] * 8
        assert [2] in with_whom
        assert [3] in with_whom
        assert (await detector.health()).num_suspects == 0
        with_whom.clear()
        await detector.detect(photos(*range(1, 9)))
        assert [2] not in with_whom

    run(story())


def test_one_that_ended_two_processes_is_quarantined(
    make: Callable[..., FaceDetector], tmp_path: Path
) -> None:
    """I3: it is answered so without a run; everybody else is detected."""
    dies_with(tmp_path, "image 2", "image 3")
    dies_with(tmp_path, "image 3")
    device = FakeDevice()

    async def story() -> None:
        detector = await ready(make(device))
        seen: list[int] = []

        def noting(tensor: Tensor) -> Any:
            seen.extend(marks(tensor))
            return golden_heads(tensor)

        after_start(noting, device)
        outcomes = await detector.detect(photos(*range(1, 9)))
        assert reasons(outcomes) == ["quarantined" if n == 3 else "detected" for n in range(1, 9)]
        assert 3 not in seen
        health = await detector.health()
        assert (health.state, health.num_quarantined) == (State.READY, 1)

    run(story())


def test_bytes_that_wait_are_bounded(make: Callable[..., FaceDetector]) -> None:
    """I6: whatever their number."""

    async def story() -> None:
        detector = await ready(make(FakeDevice(), max_queued_bytes=1_000_000))
        large = [np.zeros((400, 600, 3), np.uint8)] * 4
        outcomes = await detector.detect(large)
        assert reasons(outcomes) == ["detected", str(Failure.BUSY), str(Failure.BUSY), str(Failure.BUSY)]
        assert isinstance((await detector.detect(large[:1]))[0], Detected)

    run(story())
