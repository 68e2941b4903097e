"""Pixels in shared memory: slabs, the address, and what a reader sees when it comes too late. No Ray."""

from __future__ import annotations

import dataclasses
import gc
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actors.images import Pixels, PreparedImage
from cluster.connection.messages import Ask, Channel
from cluster.deployment.packed import CannotShare, SharedImage, pack_call, unpack_call
from cluster.slabs import OpenSlabs, SlabPool, Slabs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory is opened by way of /proc")


def photo(value: int, side: int = 32) -> Pixels:
    return np.full((side, side, 3), value, np.uint8)


def prepared(pixels: Pixels) -> PreparedImage:
    return PreparedImage(pixels, 100, 200, (32, 32), 1.5, "digest", 0.25)


def facts(image: PreparedImage) -> tuple[object, ...]:
    """All that is known of a photo beside its pixels."""
    return image.width, image.height, image.shape, image.prepare_ms, image.digest, image.decoded_share


@pytest.fixture
def pool() -> SlabPool:
    made = SlabPool.make(32 * 32, 3 * 4096)
    assert made is not None
    return made


def test_photos_have_a_slab_each_until_they_are_freed(pool: SlabPool) -> None:
    placed = [pool.place(photo(value)) for value in range(3)]
    assert [int(each[0, 0, 0]) for each in placed] == [0, 1, 2]
    assert pool.num_free == 0
    one_more = photo(9)
    assert pool.place(one_more) is one_more
    pool.free(placed[1])
    pool.free(placed[1])
    assert pool.num_free == 1
    assert int(pool.place(photo(7))[5, 5, 2]) == 7
    assert [int(each[0, 0, 0]) for each in (placed[0], placed[2])] == [0, 2]


def test_a_photo_that_is_too_large_stays_where_it_is(pool: SlabPool) -> None:
    large = photo(1, 64)
    assert pool.place(large) is large
    pool.free(large)
    assert pool.num_free == 3


@pytest.mark.parametrize("max_bytes", [0, 4095])
def test_without_room_for_one_photo_there_is_no_pool(max_bytes: int) -> None:
    assert SlabPool.make(32 * 32, max_bytes) is None


def test_another_process_of_the_machine_reads_the_pixels(pool: SlabPool) -> None:
    """By the address alone, as a detector does."""
    slab = pool.slab_of(pool.place(photo(77)))
    program = (
        "import sys; sys.path[:] = eval(sys.argv[1]); from cluster.slabs import *\n"
        "slabs = Slabs.opened(eval(sys.argv[2])); slab = eval(sys.argv[3])\n"
        "pixels = slabs.pixels_in(slab)\n"
        "print(slabs.holds(slab), pixels.shape, pixels.mean(), pixels.flags.writeable)"
    )
    arguments = [repr(sys.path), repr(pool.address), repr(slab)]
    said = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True
    )
    assert said.stdout.strip() == "True (32, 32, 3) 77.0 False", said.stderr


def test_a_reader_that_comes_too_late_notices_it(pool: SlabPool) -> None:
    slabs = Slabs.opened(pool.address)
    assert slabs is not None
    placed = pool.place(photo(1))
    slab = pool.slab_of(placed)
    assert slab is not None
    assert slabs.holds(slab)
    pool.free(placed)
    assert not slabs.holds(slab)
    pool.place(photo(2))
    assert not slabs.holds(slab)


def test_no_other_file_is_taken_for_the_memory(pool: SlabPool, tmp_path: Path) -> None:
    """A file may be cut short while it is read, which ends the process that reads; sealed memory cannot."""
    with (tmp_path / "file").open("w+b") as file:
        file.write(pool.address.nonce + bytes(pool.address.num_bytes))
        file.flush()
        assert Slabs.opened(dataclasses.replace(pool.address, descriptor=file.fileno())) is None
    assert Slabs.opened(dataclasses.replace(pool.address, nonce=bytes(16))) is None
    assert Slabs.opened(dataclasses.replace(pool.address, num_slabs=1_000_000)) is None
    assert Slabs.opened(dataclasses.replace(pool.address, descriptor=9999)) is None


def test_what_another_process_has_open_is_neither_read_nor_waited_for(pool: SlabPool) -> None:
    """The backend may be gone, and its number another process's, which has a pipe open under that number."""
    slabs = Slabs.opened(pool.address)
    assert slabs is not None
    reading, writing = os.pipe()
    with open(reading, "rb") as read_end, open(writing, "wb", buffering=0) as write_end:
        slabs.address = dataclasses.replace(pool.address, descriptor=read_end.fileno())
        assert slabs.is_abandoned, "an empty pipe keeps nobody waiting"
        write_end.write(b"another's")
        assert slabs.is_abandoned
        assert Slabs.opened(slabs.address) is None
        assert os.read(reading, 99) == b"another's"


def test_the_memory_of_a_backend_that_is_gone_is_given_up(pool: SlabPool) -> None:
    opened = OpenSlabs()
    slabs = opened.get(pool.address)
    assert slabs is not None
    opened.give_up_abandoned()
    assert opened.get(pool.address) is slabs
    pool.close()
    assert slabs.is_abandoned
    opened.give_up_abandoned()
    assert opened.get(pool.address) is None


def test_a_detector_keeps_so_many_memories_open_and_no_more() -> None:
    opened = OpenSlabs(max_open=2)
    pools = [each for _ in range(3) if (each := SlabPool.make(32 * 32, 4096))]
    slabs = [opened.get(each.address) for each in pools]
    assert len(slabs) == 3
    assert opened.get(pools[2].address) is slabs[2]
    assert opened.get(pools[0].address) is not slabs[0]


def test_of_shared_pixels_only_the_place_travels(pool: SlabPool) -> None:
    """Through the pipe to the driver process, and from there to the detector."""
    written = io.BytesIO()
    sending: Channel[None, Ask] = Channel(io.BytesIO(), written)
    sending.write(Ask(1, "detect", (pack_call([prepared(pool.place(photo(5)))], pool),)))
    assert len(written.getvalue()) < 600
    sending.write(Ask(2, "detect", (pack_call([prepared(photo(6))], pool),)))
    written.seek(0)
    reading: Channel[Ask, None] = Channel(written, io.BytesIO())
    for value in (5, 6):
        (call,) = reading.read().arguments
        (came,) = unpack_call(call.head, call.pixels, OpenSlabs().get)
        assert int(came.pixels[3, 3, 1]) == value


def test_a_short_message_is_written_at_once_and_a_long_one_is_not(pool: SlabPool) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as read_end, open(writing, "wb") as write_end:
        channel: Channel[Ask, Ask] = Channel(read_end, write_end)
        assert channel.write_at_once(Ask(1, "short", ()))
        assert not channel.write_at_once(Ask(2, "long", (bytes(5_000),)))
        assert not channel.write_at_once(Ask(2, "long", (prepared(photo(1, 64)),)))
        assert channel.write_at_once(Ask(3, "short", ()))
        assert [channel.read().number, channel.read().number] == [1, 3]
        while channel.write_at_once(Ask(4, "until the pipe is full", (bytes(3_000),))):
            pass
        assert channel.read().number == 4


def test_a_call_comes_out_as_it_went_in(pool: SlabPool) -> None:
    images = [prepared(pool.place(photo(1))), prepared(photo(2)), prepared(pool.place(photo(3)))]
    call = pack_call(images, pool)
    assert len(call.pixels) == 1
    came = unpack_call(call.head, call.pixels, OpenSlabs().get)
    for before, after in zip(images, came, strict=True):
        assert np.array_equal(before.pixels, after.pixels)
        assert facts(after) == facts(before)


def test_pixels_stay_in_shared_memory_and_a_photo_tells_when_they_are_gone(pool: SlabPool) -> None:
    """The backend may free a slab before the photo is run; the pixels are another photo's then."""
    placed = pool.place(photo(1))
    call = pack_call([prepared(placed)], pool)
    (came,) = unpack_call(call.head, call.pixels, OpenSlabs().get)
    assert isinstance(came, SharedImage)
    copied = came.copied()
    assert came.is_intact
    pool.free(placed)
    assert not came.is_intact
    pool.place(photo(9))
    assert int(came.pixels[0, 0, 0]) == 9
    assert int(copied.pixels[0, 0, 0]) == 1
    assert copied.is_intact
    assert facts(copied) == facts(came)
    with pytest.raises(CannotShare):
        came.copied()


def test_without_shared_memory_all_pixels_are_sent(pool: SlabPool) -> None:
    call = pack_call([prepared(pool.place(photo(1))), prepared(photo(2))], None)
    assert [int(each[0, 0, 0]) for each in call.pixels] == [1, 2]
    came = unpack_call(call.head, call.pixels, lambda address: None)
    assert [int(each.pixels[0, 0, 0]) for each in came] == [1, 2]


def test_memory_that_cannot_be_read_is_said(pool: SlabPool) -> None:
    placed = pool.place(photo(1))
    call = pack_call([prepared(placed)], pool)
    with pytest.raises(CannotShare):
        unpack_call(call.head, call.pixels, lambda address: None)
    pool.free(placed)
    with pytest.raises(CannotShare):
        unpack_call(call.head, call.pixels, OpenSlabs().get)


@pytest.mark.parametrize("slab", [(3, 0, 32, 32), (-1, 0, 32, 32), (2, 0, 999, 999), (0, 0, 0, 0)])
def test_a_slab_that_the_pool_does_not_have_is_not_read(
    pool: SlabPool, slab: tuple[int, int, int, int]
) -> None:
    class Lying(Slabs):
        def slab_of(self, pixels: Pixels) -> tuple[int, int, int, int]:
            return slab

    slabs = Lying.inherited(pool.address)
    call = pack_call([prepared(photo(1))], slabs)
    with pytest.raises(CannotShare):
        unpack_call(call.head, call.pixels, OpenSlabs().get)


@pytest.mark.skipif(sys.platform != "linux", reason="lists a process's descriptors by /proc")
def test_a_closed_pool_keeps_no_descriptor() -> None:
    """Clients hold their pool in a circle of objects, which Python finds late."""
    gc.collect()
    gc.disable()
    try:
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            pool = SlabPool.make(100, 100_000)
            assert pool is not None
            circle: list[object] = [pool]
            circle.append(circle)
            placed = pool.place(np.ones((5, 5, 3), np.uint8))
            pool.close()
            # What is still in use stays readable, and goes back as before.
            assert placed.sum() == 75
            pool.free(placed)
            other = np.ones((5, 5, 3), np.uint8)
            assert pool.place(other) is other
            del placed
        assert len(os.listdir("/proc/self/fd")) == len(before)
    finally:
        gc.enable()
