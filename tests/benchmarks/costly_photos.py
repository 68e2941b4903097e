"""What photos that cost much do to memory and to their neighbours, and what ordinary photos pay for the pool.

    .venv/bin/python -m tests.benchmarks.costly_photos [--rounds N]

Three tables. Timings are interleaved, so compare only the figures of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import multiprocessing
import statistics
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from actors.decode_worker import DecodeWorker
from actors.faces import Priority
from actors.images import Limits, prepare
from actors.intake import num_cores
from cluster.client.call import Call
from cluster.client.preprocessing import Preprocessor
from cluster.settings import Settings, load_settings
from tests.benchmarks.large_photos import write_large_photos

#: Longer than any of the photos may take.
_DEADLINE_S = 90.0
_NEIGHBOURS = 60


def png(side: int, depth: int, colour: int, row_bytes: int) -> bytes:
    """A black PNG; see the specification for its kinds of colour."""
    packer, row = zlib.compressobj(1), bytes(row_bytes + 1)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def bmp(width: int) -> bytes:
    """A row in run-length code that holds one run."""
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "BMP")
    data = bytearray(file.getvalue()[:1078])
    struct.pack_into("<ii", data, 18, width, 1)
    data[30] = 1
    return bytes(data) + b"\x01\x00\x00\x00\x00\x01"


def scans(side: int, num_scans: int) -> bytes:
    """A grey progressive JPEG of empty scans: each block of each is passed over by one long run."""
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "JPEG", progressive=True)
    plain = file.getvalue()
    at, head = 2, b"\xff\xd8"
    while plain[at + 1] != 0xDA:
        segment = plain[at : at + 2 + int.from_bytes(plain[at + 2 : at + 4], "big")]
        at += len(segment)
        if segment[1] == 0xC2:
            segment = segment[:5] + struct.pack(">HH", side, side) + segment[9:]
        head += segment
    # One code, "0": a run of 2^14 blocks and more that end here; 14 further bits say how many.
    table = b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + bytes([1] + [0] * 15) + b"\xe0"
    bits, left = "", ((side + 7) // 8) ** 2
    while left > 0:
        run = min(left, 32767)
        bits += "0" + format(max(run - 16384, 0), "014b")
        left -= max(run, 16384)
    bits += "1" * (-len(bits) % 8)
    body = bytes(int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)).replace(b"\xff", b"\xff\x00")
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x10\x01\x3f\x00" + body
    return head + table + scan * num_scans + b"\xff\xd9"


def saved(mode: str, side: int, file_format: str, **options: Any) -> bytes:
    """A black picture, saved by Pillow."""
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, file_format, **options)
    return file.getvalue()


def costly_photos() -> dict[str, bytes]:
    """By name; each is small as a file. Another process makes them, because that takes memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_made).result()


def _made() -> dict[str, bytes]:
    return {
        "PNG 16-bit grey 13,300²": png(13_300, 16, 0, 26_600),
        "PNG colours 13,300²": png(13_300, 8, 2, 39_900),
        "PNG palette, transparency 13,300²": saved("P", 13_300, "PNG", transparency=0),
        "TIFF 16-bit grey 13,300²": saved("I;16", 13_300, "TIFF", compression="tiff_adobe_deflate"),
        "BMP run-length 170,000,000 x 1": bmp(170_000_000),
        "BMP run-length 25,000,000 x 1": bmp(25_000_000),
        "JPEG 100 scans 13,300²": scans(13_300, 100),
        "JPEG 4,000 scans 13,300²": scans(13_300, 4000),
        "WebP 13,000²": saved("RGB", 13_000, "WEBP", method=0),
        "WebP 5,900²": saved("RGB", 5900, "WEBP", method=0),
        "AVIF 7,000²": saved("RGB", 7000, "AVIF", speed=10),
    }


class PeakMemory:
    """The most memory that this process and its children held at once, in bytes, while the block ran."""

    def __enter__(self) -> PeakMemory:
        self.together = self.own = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._stop.wait(0.02):
            resident = own.memory_info().rss
            self.own = max(self.own, resident)
            for child in own.children():
                try:
                    resident += child.memory_info().rss
                except psutil.Error:
                    continue
            self.together = max(self.together, resident)


def large_photos(num: int) -> list[bytes]:
    """Ordinary JPEGs of 12 megapixels."""
    with tempfile.TemporaryDirectory() as folder:
        write_large_photos(Path(folder), num)
        return [file.read_bytes() for file in sorted(Path(folder).iterdir())]


async def ask(preprocessor: Preprocessor, photo: bytes) -> str:
    """Prepare one photo; say what came of it."""
    loop = asyncio.get_running_loop()
    call = Call.of([photo], Priority.INTERACTIVE, loop.time() + _DEADLINE_S)
    await preprocessor.prepare(call)
    outcome = call.images[0].outcome
    preprocessor.free(call)
    return f"{outcome.status}: {getattr(outcome, 'reason', '')}" if outcome else "prepared"


async def memory(settings: Settings, photos: dict[str, bytes]) -> None:
    """Print what each costly photo costs a client."""
    print("\n| photo | bytes | seconds | peak MB, client and workers | client alone | outcome |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, photo in photos.items():
        preprocessor = Preprocessor(settings, lambda: None)
        begun = time.perf_counter()
        with PeakMemory() as peak:
            said = await ask(preprocessor, photo)
        seconds = time.perf_counter() - begun
        preprocessor.close()
        figures = f"{seconds:.2f} | {peak.together / 1e6:.0f} | {peak.own / 1e6:.0f}"
        print(f"| {name} | {len(photo):,} | {figures} | {said} |")


async def neighbours(settings: Settings, photos: dict[str, bytes], rounds: int) -> None:
    """Print how long ordinary photos take, one after another, with and without costly ones beside them."""
    jpeg = large_photos(1)[0]
    small_png = saved("RGB", 1000, "PNG")
    times: dict[str, list[float]] = {"JPEG alone": [], "JPEG beside": [], "PNG alone": [], "PNG beside": []}
    preprocessor = Preprocessor(settings, lambda: None)
    await ask(preprocessor, small_png)

    async def bombs(sequence: itertools.cycle[bytes]) -> None:
        while True:
            await ask(preprocessor, next(sequence))

    for _ in range(rounds):
        for beside in ("alone", "beside"):
            sequence = itertools.cycle(photos.values())
            streams = [asyncio.create_task(bombs(sequence)) for _ in range(4 if beside == "beside" else 0)]
            await asyncio.sleep(3 if streams else 0)
            for _ in range(_NEIGHBOURS // rounds):
                for kind, photo in (("JPEG", jpeg), ("PNG", small_png)):
                    begun = time.perf_counter()
                    await ask(preprocessor, photo)
                    times[f"{kind} {beside}"].append((time.perf_counter() - begun) * 1000)
                await asyncio.sleep(0.05)
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
    preprocessor.close()
    print("\n| ordinary photos | p50 ms | p95 ms |\n| --- | --- | --- |")
    for name, each in times.items():
        print(f"| {name} | {statistics.median(each):.0f} | {statistics.quantiles(each, n=20)[-1]:.0f} |")


async def throughput(settings: Settings, rounds: int) -> None:
    """Print processor time for a 12-megapixel JPEG by the client, and by threads that only prepare."""
    photos = large_photos(8)
    limits, shapes = Limits.of(settings.detector), settings.detector.shapes
    preprocessor = Preprocessor(settings, lambda: None)
    threads = ThreadPoolExecutor(num_cores())

    def plain(photo: bytes) -> object:
        return prepare(photo, shapes, limits, settings.detector.max_enlargement)

    async def by_client() -> None:
        await asyncio.gather(*(ask(preprocessor, photo) for photo in photos))

    async def by_threads() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(threads, plain, photo) for photo in photos))

    ways: dict[str, Callable[[], Awaitable[None]]] = {"client": by_client, "threads alone": by_threads}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.process_time()
            await way()
            spent[name].append((time.process_time() - begun) * 1000 / len(photos))
    preprocessor.close()
    threads.shutdown()
    print("\n| 12-megapixel JPEGs | processor ms a photo: least | median |\n| --- | --- | --- |")
    for name, each in spent.items():
        print(f"| {name} | {min(each):.1f} | {statistics.median(each):.1f} |")


def pipe(settings: Settings) -> None:
    """Print what a worker's answer takes beyond the photo itself: 1.2 MB of pixels through a pipe."""
    worker = DecodeWorker.start(settings.detector.max_decode_bytes)
    photo, limits = saved("RGB", 640, "PNG"), Limits.of(settings.detector)
    beyond, copies = [], []
    for _ in range(100):
        begun = time.perf_counter()
        made = worker.ask(photo, settings.detector.shapes, limits, 2.0)
        beyond.append((time.perf_counter() - begun) * 1000 - made.prepare_ms)
        begun = time.perf_counter()
        made.pixels.copy()
        copies.append((time.perf_counter() - begun) * 1000)
    worker.end()
    print(
        f"\nBeyond preparing, a worker's answer takes {statistics.median(beyond):.2f} ms; one copy of its "
        f"{made.pixels.nbytes:,} bytes takes {statistics.median(copies):.2f} ms."
    )


async def main(rounds: int) -> None:
    """Print all three tables."""
    settings = load_settings()
    photos = costly_photos()
    pipe(settings)
    await throughput(settings, rounds * 4)
    await memory(settings, photos)
    await neighbours(settings, photos, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(main(parser.parse_args().rounds))
