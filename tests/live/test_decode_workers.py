"""Real decode workers: what they may use, and how they end. No Ray."""

from __future__ import annotations

import asyncio
import errno
import io
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from actors import decode_cost
from actors.decode_worker import DecodeWorker
from actors.errors import DeadlineMissed, DetectorFault, ImageFault
from actors.faces import Failure, Priority, Rejected, Rejection
from actors.images import Limits, PreparedImage, prepare
from actors.intake import ImageIntake
from actors.settings import DetectorSettings
from cluster.client.call import Call
from cluster.client.preprocessing import Preprocessor
from cluster.deployment.packed import pack_prepare_order, unpack_prepared
from cluster.deployment.prepare_task import prepare_photo
from cluster.protocol.rows import PrepareOrder, Unusable
from cluster.settings import load_settings

HERE = Path(__file__).parents[2]
SHAPES = ((640, 640), (480, 640), (640, 480))
LIMITS = Limits(max_pixels=400_000_000, max_bytes=200_000_000)


def png(width: int, height: int) -> bytes:
    """A black PNG in colours; its rows are made one by one, so that this process needs no memory for them."""
    packer, row = zlib.compressobj(1), bytes(width * 3 + 1)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


#: Takes a few seconds of processor time, and little memory: Pillow decodes it in Python.
def slow_photo() -> bytes:
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "BMP")
    data = bytearray(file.getvalue()[:1078])
    struct.pack_into("<ii", data, 18, 25_000_000, 1)
    data[30] = 1
    return bytes(data) + b"\x01\x00\x00\x00\x00\x01"


SLOW = slow_photo()


@pytest.fixture
def worker() -> Iterator[DecodeWorker]:
    made = DecodeWorker.start(600_000_000)
    yield made
    made.end()


def ask(worker: DecodeWorker, photo: bytes, limits: Limits = LIMITS) -> Any:
    return worker.ask(photo, SHAPES, limits, 2.0)


def test_a_worker_gives_what_a_thread_gives(worker: DecodeWorker, photos: Path) -> None:
    """Pixel by pixel, for a photo after another."""
    for name in ("astronaut.jpg", "coffee.jpg"):
        file = io.BytesIO()
        Image.open(photos / name).save(file, "PNG")
        there, here = ask(worker, file.getvalue()), prepare(file.getvalue(), SHAPES, LIMITS, 2.0)
        assert (there.digest, there.width, there.height, there.shape) == (
            here.digest,
            here.width,
            here.height,
            here.shape,
        )
        assert (there.pixels == here.pixels).all()


def test_a_fault_of_the_photo_comes_back_and_the_worker_goes_on(worker: DecodeWorker) -> None:
    with pytest.raises(ImageFault) as caught:
        ask(worker, png(64, 64)[:60])
    assert caught.value.reason is Rejection.TRUNCATED
    assert ask(worker, png(64, 64)).width == 64


def test_processor_time_is_limited(worker: DecodeWorker) -> None:
    """For each photo anew: the time of the earlier ones does not count."""
    limits = Limits(LIMITS.max_pixels, LIMITS.max_bytes, max_decode_s=1.0)
    for _ in range(4):
        assert ask(worker, png(2000, 2000), limits).width == 2000
    begun = time.monotonic()
    with pytest.raises(ImageFault, match="took 1 s of processor time") as caught:
        ask(worker, SLOW, limits)
    assert caught.value.reason is Rejection.TOO_COSTLY
    assert time.monotonic() - begun < 60
    assert not psutil.pid_exists(worker.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_memory_is_limited() -> None:
    """Though the photo is within every other limit: the decoder itself gets no more."""
    worker = DecodeWorker.start(100_000_000)
    generous = Limits(LIMITS.max_pixels, LIMITS.max_bytes, max_decode_bytes=4_000_000_000)
    with pytest.raises(ImageFault) as caught:
        ask(worker, png(13_000, 13_000), generous)
    assert caught.value.reason is Rejection.TOO_COSTLY
    worker.end()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (signal.SIGSEGV, ImageFault, "The decoder broke down over the image"),
        (signal.SIGABRT, ImageFault, "The decoder broke down over the image"),
        (signal.SIGKILL, DetectorFault, "was ended from outside"),
    ],
)
def test_a_worker_that_dies_says_why(
    worker: DecodeWorker, number: int, error: type[Exception], says: str
) -> None:
    """A decoder that breaks down is the photo's fault; a kill from outside is not."""
    timer = threading.Timer(0.5, psutil.Process(worker.pid).send_signal, (number,))
    timer.start()
    with pytest.raises(error, match=says):
        ask(worker, SLOW)
    timer.join()


def test_a_worker_can_be_ended_in_the_middle(worker: DecodeWorker) -> None:
    timer = threading.Timer(0.5, worker.end)
    timer.start()
    with pytest.raises(DetectorFault, match="Nobody waited"):
        ask(worker, SLOW)
    timer.join()
    assert not psutil.pid_exists(worker.pid)


def test_a_worker_ends_with_its_owner() -> None:
    """In the middle of a photo too, however the owner ends. It loads no Ray."""
    program = (
        "import os, sys, threading, time\n"
        "from actors.decode_worker import DecodeWorker\n"
        "from tests.live.test_decode_workers import SLOW, ask\n"
        "worker = DecodeWorker.start(600_000_000)\n"
        "threading.Thread(target=ask, args=(worker, SLOW), daemon=True).start()\n"
        "time.sleep(0.5)\n"
        "maps = open(f'/proc/{worker.pid}/maps').read() if sys.platform == 'linux' else ''\n"
        "print(worker.pid, 'raylet' in maps, flush=True)\n"
        "os._exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    pid, has_ray = done.stdout.split()
    assert has_ray == "False"
    wait_until(
        lambda: not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    )


def no_temporary_file() -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_no_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", no_temporary_file)
    worker = DecodeWorker.start(600_000_000)
    assert ask(worker, png(300, 200)).width == 300
    worker.end()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files like this")
def test_without_open_files_a_worker_says_what_to_check() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds(), before[1]))
    try:
        with pytest.raises(DetectorFault, match=r"could not be started: .*open files"):
            DecodeWorker.start(600_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a killer of processes")
def test_a_machine_without_memory_ends_the_worker_and_not_its_owner(worker: DecodeWorker) -> None:
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text().strip() == "1000"


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(DetectorFault, match=r"could not be started: .*/no/such/python"):
        DecodeWorker.start(600_000_000)


def test_what_a_script_does_at_its_top_is_not_done_again(tmp_path: Path) -> None:
    """`multiprocessing` would run a script without `if __name__ == …` once more in each worker."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('top')\n"
        "from actors.decode_worker import DecodeWorker\n"
        "worker = DecodeWorker.start(600_000_000)\n"
        "worker.end()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["top"]


def worker_pids() -> set[int]:
    """The workers of this process that are running now."""
    return {
        each.pid
        for each in psutil.Process().children()
        if each.status() != psutil.STATUS_ZOMBIE and "actors.decode_child" in " ".join(each.cmdline())
    }


def test_a_client_kills_a_decode_at_its_deadline_and_goes_on(photos: Path) -> None:
    """The bomb is `failed: deadline`; its neighbours, cheap and costly ones, get their photos."""

    async def story() -> None:
        preprocessor = Preprocessor(load_settings(), lambda: None)
        jpeg = (photos / "astronaut.jpg").read_bytes()
        now = asyncio.get_running_loop().time()
        bombs = Call.of([SLOW] * 3, Priority.INTERACTIVE, now + 2)
        others = Call.of([jpeg, png(300, 200), photos / "coffee.jpg"], Priority.INTERACTIVE, now + 30)
        await asyncio.gather(preprocessor.prepare(bombs), preprocessor.prepare(others))
        assert [(each.status, getattr(each, "reason", "")) for each in bombs.outcomes] == [
            ("failed", Failure.DEADLINE)
        ] * 3
        assert [each.photo.width for each in others.images if each.photo] == [512, 300, 600]
        preprocessor.close()

    asyncio.run(story())
    wait_until(lambda: not worker_pids())


def test_a_client_rejects_what_costs_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what nobody could foresee, like here."""
    monkeypatch.setattr(decode_cost, "_BMP_RUN_S_PER_PIXEL", 0.0)

    async def story() -> None:
        preprocessor = Preprocessor(load_settings(detector={"max_decode_s": 1.0}), lambda: None)
        call = Call.of([SLOW], Priority.BULK, asyncio.get_running_loop().time() + 30)
        await preprocessor.prepare(call)
        (outcome,) = call.outcomes
        assert isinstance(outcome, Rejected)
        assert (outcome.reason, outcome.times.prepare_ms > 0) == (Rejection.TOO_COSTLY, True)
        preprocessor.close()

    asyncio.run(story())


def test_a_detector_kills_a_decode_at_its_deadline() -> None:
    """For callers that send photos encoded."""

    async def story() -> None:
        intake = ImageIntake(DetectorSettings())
        with pytest.raises(DeadlineMissed):
            await intake.prepare(SLOW, 0, asyncio.get_running_loop().time() + 2)
        assert (await intake.prepare(png(300, 200), 0)).width == 300
        intake.close()

    asyncio.run(story())
    wait_until(lambda: not worker_pids())


def test_a_task_on_another_machine_decodes_costly_photos_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_cost, "_BMP_RUN_S_PER_PIXEL", 0.0)
    order = PrepareOrder(SHAPES, Limits(LIMITS.max_pixels, LIMITS.max_bytes, max_decode_s=1.0), 2.0)
    packed = pack_prepare_order(order)
    made = unpack_prepared(*prepare_photo(png(300, 200), packed))
    assert isinstance(made, PreparedImage)
    assert len(worker_pids()) == 1
    refused = unpack_prepared(*prepare_photo(SLOW, packed))
    assert isinstance(refused, Unusable)
    assert refused.reason is Rejection.TOO_COSTLY
    wait_until(lambda: not worker_pids())


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)
