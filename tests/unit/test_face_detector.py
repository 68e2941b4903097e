"""The detector as a plain class: READY is earned, every image has its outcome, faults stay where they are."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from actors import face_detector, images, model_life
from actors.errors import DeviceFailed, DeviceUnavailable, ModelUnavailable, OutOfMemory
from actors.face_detector import FaceDetector, start_detector
from actors.faces import Detected, Failed, Failure, Outcome, Rejection, State
from actors.golden import problem
from actors.images import PreparedImage
from actors.model_life import ModelLife
from actors.observer import Observer
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice, golden_heads, prepared

GOLDEN = (Path(face_detector.__file__).parent / "golden.jpg").read_bytes()
SETTINGS = DetectorSettings(batch_sizes=(1, 2, 4), num_lanes=1, num_prepare_threads=1, input_size=320)


class Clock:
    """Time that stands still unless it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)


def detector(device: FakeDevice, clock: Clock | None = None, **changes: Any) -> FaceDetector:
    return start_detector("FaceDetector", SETTINGS.model_copy(update=changes), device, clock or Clock())


def run(story: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await story

    return asyncio.run(bounded())


def ask(device: FakeDevice, images: list[Any], **options: Any) -> list[Outcome]:
    outcomes: list[Outcome] = run(detector(device).detect(images, **options))
    assert len(outcomes) == len(images)
    return outcomes


def failing(error: Exception, after: int) -> Callable[[Any], Any]:
    """A device that works `after` runs long and raises from then on."""
    runs = 0

    def answer(tensor: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs > after:
            raise error
        return golden_heads(tensor)

    return answer


def test_ready_is_earned_with_the_golden_photo() -> None:
    """I4: every bucket has found the known face before the first image is taken."""
    device = FakeDevice()

    async def story() -> None:
        made = detector(device)
        health = await made.health(wait_s=20)
        assert (health.state, health.detail, health.golden_age_s) == (State.READY, "", 0.0)
        assert {b.num_images for b in health.buckets} <= {1, 2, 4}
        assert {(b.height, b.width) for b in health.buckets} == set(SETTINGS.shapes)
        assert health.provider == health.provider_requested == "CPUExecutionProvider"
        assert "READY" in repr(made).upper()

    run(story())


def test_a_photo_is_detected_and_stamped() -> None:
    """I2: who answered, with which model, in which life."""
    (outcome,) = ask(FakeDevice(), [GOLDEN])
    assert isinstance(outcome, Detected)
    assert problem(outcome.faces) == ""
    assert (outcome.width, outcome.height) == (320, 320)
    assert outcome.stamp.served_by == "FaceDetector on CPUExecutionProvider"
    assert outcome.stamp.model == MODEL.label
    assert outcome.stamp.incarnation
    assert outcome.times.prepare_ms > 0
    assert outcome.times.run_ms > 0


def zeros(tensor: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.zeros_like(head) for name, head in golden_heads(tensor).items()}


def nans(tensor: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.full_like(head, np.nan) for name, head in golden_heads(tensor).items()}


def shifted(tensor: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.roll(head, 30, axis=3) for name, head in golden_heads(tensor).items()}


def second_slot_wrong(tensor: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    heads = golden_heads(tensor)
    heads["heat"][1:] = 0
    return heads


@pytest.mark.parametrize("lie", [zeros, nans, shifted, second_slot_wrong])
def test_a_lying_device_answers_nobody(lie: Callable[[Any], Any]) -> None:
    """I1, I4: wrong numbers at start are a fault, and never "no faces"."""
    outcomes = ask(FakeDevice(answer=lie), [GOLDEN, prepared(1, (320, 320))])
    assert [type(each) for each in outcomes] == [Failed, Failed]
    assert {each.reason for each in outcomes if isinstance(each, Failed)} == {Failure.DEVICE_LIES}


def test_a_device_that_begins_to_lie_is_not_believed() -> None:
    """I1: numbers that are not finite fail their batch, and the golden photo then ends READY."""
    device = FakeDevice()

    async def story() -> None:
        made = detector(device)
        await made.health(wait_s=20)
        device.answer = nans
        (first,) = await made.detect([GOLDEN])
        assert isinstance(first, Failed)
        assert first.reason is Failure.DEVICE_LIES
        assert (await made.health()).state is State.FAULTY

    run(story())


@pytest.mark.parametrize("error", [DeviceFailed("gone"), OutOfMemory("full")])
def test_a_failing_run_is_a_failure(error: Exception) -> None:
    """I1: the reason is the device's own."""
    device = FakeDevice()

    async def story() -> None:
        made = detector(device)
        await made.health(wait_s=20)
        device.answer = failing(error, 0)
        (outcome,) = await made.detect([GOLDEN])
        assert isinstance(outcome, Failed)
        assert outcome.reason is error.failure  # type: ignore[attr-defined]  # Failed
        assert outcome.detail

    run(story())


def test_a_passing_fault_passes() -> None:
    """One bad run, a good golden photo afterwards: the next image is detected."""
    device = FakeDevice()

    async def story() -> None:
        made = detector(device)
        await made.health(wait_s=20)
        failed = False

        def once(tensor: Any) -> Any:
            nonlocal failed
            if not failed:
                failed = True
                raise DeviceFailed("a hiccup")
            return golden_heads(tensor)

        device.answer = once
        assert isinstance((await made.detect([GOLDEN]))[0], Failed)
        assert isinstance((await made.detect([GOLDEN]))[0], Detected)

    run(story())


def test_bad_images_harm_nobody() -> None:
    """I3: each its own refusal; the good ones beside them are detected, and the device stays READY."""
    other = PreparedImage(np.zeros((8, 8, 3), np.uint8), 8, 8, (64, 64), 0.0, "other")
    images: list[Any] = [
        b"",
        GOLDEN,
        b"text",
        "a/path.jpg",
        GOLDEN[:4000],
        None,
        other,
        np.zeros((4, 4)),
        GOLDEN,
    ]
    device = FakeDevice()

    async def story() -> None:
        made = detector(device)
        outcomes = await made.detect(images)
        reasons = [getattr(each, "reason", "found") for each in outcomes]
        assert reasons == [
            Rejection.ZERO_SIZED,
            "found",
            Rejection.NOT_AN_IMAGE,
            Rejection.UNSUPPORTED,
            Rejection.TRUNCATED,
            Rejection.UNSUPPORTED,
            Rejection.UNSUPPORTED,
            Rejection.UNSUPPORTED,
            "found",
        ]
        health = await made.health()
        assert (health.state, health.num_detected, health.num_rejected, health.num_failed) == (
            State.READY,
            2,
            7,
            0,
        )

    run(story())


def test_an_unforeseen_error_costs_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """I3: even a mistake of ours stays with the image that met it."""
    real = images.prepare

    def sometimes(source: Any, *rest: Any) -> Any:
        if source == b"odd":
            raise KeyError("nobody thought of this")
        return real(source, *rest)

    monkeypatch.setattr(images, "prepare", sometimes)
    good, odd = ask(FakeDevice(), [GOLDEN, b"odd"])
    assert isinstance(good, Detected)
    assert isinstance(odd, Failed)
    assert odd.reason is Failure.INTERNAL
    assert "nobody thought of this" in odd.detail


def test_a_model_that_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy reaches the caller as it was written."""

    def missing(settings: DetectorSettings) -> Any:
        raise ModelUnavailable("There is no model; do this.")

    monkeypatch.setattr(model_life, "ready_model", missing)
    (outcome,) = ask(FakeDevice(), [GOLDEN])
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.detail) == (Failure.MODEL_UNAVAILABLE, "There is no model; do this.")


def test_a_fault_at_start_is_tried_again_later() -> None:
    """Not at once and not for ever: after the pause, the device that came back is used."""
    device, clock = FakeDevice(answer=failing(DeviceUnavailable("unplugged"), 0)), Clock()

    async def story() -> None:
        made = detector(device, clock)
        assert isinstance((await made.detect([GOLDEN]))[0], Failed)
        device.answer = golden_heads
        assert isinstance((await made.detect([GOLDEN]))[0], Failed)
        clock.now += 31
        assert isinstance((await made.detect([GOLDEN]))[0], Detected)
        assert (await made.health()).state is State.READY

    run(story())


def test_a_device_that_is_well_again_is_used_though_nobody_asks() -> None:
    """I5: what a fault has begun ends by itself."""
    device, clock = FakeDevice(answer=failing(DeviceUnavailable("unplugged"), 0)), Clock()

    async def story() -> None:
        made = detector(device, clock, golden_interval_s=0.001)
        assert (await made.health(wait_s=20)).state is State.FAULTY
        device.answer = golden_heads
        clock.now += 31
        while (await made.health()).state is not State.READY:
            await asyncio.sleep(0)

    run(story())


@pytest.mark.parametrize("error", [OSError("no threads left"), ZeroDivisionError("no number")], ids=repr)
def test_an_unforeseen_error_does_not_end_the_regular_check(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and the device that came back is used though nobody asks."""
    device, clock = FakeDevice(answer=failing(DeviceUnavailable("unplugged"), 0)), Clock()
    errors = [error] * 3
    real = ModelLife.start_again_if_due

    def sometimes(life: ModelLife, pause_s: float) -> bool:
        if errors:
            raise errors.pop()
        return real(life, pause_s)

    class Listener(Observer):
        troubles: ClassVar[list[Any]] = []

        def trouble(self, name: str, **facts: object) -> None:
            self.troubles.append((name, facts.get("detail")))

    async def story() -> None:
        settings = SETTINGS.model_copy(update={"golden_interval_s": 0.001})
        made = start_detector("FaceDetector", settings, device, clock, observer=Listener())
        assert (await made.health(wait_s=20)).state is State.FAULTY
        monkeypatch.setattr(ModelLife, "start_again_if_due", sometimes)
        device.answer = golden_heads
        clock.now += 31
        while (await made.health()).state is not State.READY:
            await asyncio.sleep(0)
        assert Listener.troubles.count(("check_failed", repr(error))) == 3

    run(story())


def test_a_detector_that_never_started_can_be_drained() -> None:
    """Nothing is open, so nothing is waited for."""
    device = FakeDevice()
    made = FaceDetector(ModelLife("FaceDetector", SETTINGS, device))
    assert run(made.drain()).state is State.DRAINING
    assert device.opened == []


def test_draining_takes_no_more() -> None:
    """Images after it are told so, with a reason that invites to ask again."""

    async def story() -> None:
        made = detector(FakeDevice())
        await made.health(wait_s=20)
        assert (await made.drain()).state is State.DRAINING
        (outcome,) = await made.detect([GOLDEN])
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.NOT_READY

    run(story())


def test_a_deadline_that_is_past_is_answered_without_a_run() -> None:
    """I6: the device is not used for what nobody can still want."""
    device = FakeDevice()

    async def story() -> None:
        made = detector(device)
        await made.health(wait_s=20)
        num_runs = len(device.runs)
        (outcome,) = await made.detect([GOLDEN], deadline_s=-1.0)
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.DEADLINE
        assert len(device.runs) == num_runs

    run(story())


def test_a_full_queue_is_busy() -> None:
    """I6: what does not fit is told when to come again; what fits is detected."""

    async def story() -> None:
        made = detector(FakeDevice(), max_queued_images=2)
        await made.health(wait_s=20)
        outcomes = await made.detect([prepared(n, (320, 320)) for n in range(20)])
        busy = [each for each in outcomes if isinstance(each, Failed)]
        assert len(outcomes) == 20
        assert 0 < len(busy) < 20
        assert all(each.reason is Failure.BUSY and each.retry_after_s for each in busy)

    run(story())


def test_wrong_use_is_an_error_of_the_caller() -> None:
    """One image instead of a list, or a priority that does not exist."""
    made = detector(FakeDevice())
    with pytest.raises(TypeError, match="list"):
        run(made.detect(GOLDEN))  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(ValueError, match="urgent"):
        run(made.detect([GOLDEN], priority="urgent"))


def test_a_lasting_fault_keeps_nothing_of_the_calls_that_it_ended() -> None:
    """The same fault is raised to each of them; with its traceback it would keep their photos."""

    async def story() -> None:
        made = detector(FakeDevice(answer=failing(DeviceUnavailable("unplugged"), 0)))
        assert (await made.health(wait_s=20)).state is State.FAULTY
        kept: list[weakref.ref[Any]] = []
        for _ in range(5):
            photo = prepared()
            kept.append(weakref.ref(photo.pixels))
            (outcome,) = await made.detect([photo])
            assert isinstance(outcome, Failed)
            del photo, outcome
        gc.collect()
        # The newest one is in the frames of the newest traceback.
        assert sum(each() is not None for each in kept) <= 1

    run(story())
