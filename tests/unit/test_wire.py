"""How photos travel: the speed of a link from the calls over it, and the choice that follows from it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from actors.encoded_image import EncodedImage
from actors.faces import Detected, Failed, Failure, Outcome, Stamp, Times
from actors.images import PreparedImage
from cluster.client.wire import Costs, Encoding, Journey, Link, WireChoice, better, num_bytes

FAST_ETHERNET, GIGABIT = 12.5e6, 125e6
#: A photo of 12 megapixels; and one that came as small pixels, which costs next to nothing to prepare.
LARGE_PHOTO = Costs(pixel_bytes=921_600, jpeg_bytes=170_000, prepare_s=0.042, encode_s=0.003)
SMALL_PIXELS = replace(LARGE_PHOTO, prepare_s=0.0005)


def answer(device_ms: float = 5.0) -> list[Outcome]:
    times = Times(queue_ms=device_ms - 1, run_ms=1.0)
    return [Detected(stamp=Stamp("a"), times=times, faces=(), width=1, height=1)]


def photo(height: int = 480, width: int = 640) -> PreparedImage:
    pixels = np.zeros((height, width, 3), np.uint8)
    return PreparedImage(pixels, width * 4, height * 4, (640, 640), 40.0, "digest")


def measured(speed: float, num_in_flight: int = 1, delay_s: float = 0.005, noise_s: float = 0.0) -> Link:
    """A link of that speed after calls of 1 MB over it, which share it in turn."""
    link, noise, size = Link(), random.Random(1), 1_000_000
    link.answered_without_photos(delay_s + 0.010)
    link.answered_without_photos(delay_s)
    journeys: list[tuple[Journey, float]] = []
    sent = 0.0
    for _ in range(20):
        if len(journeys) == num_in_flight:
            journey, arrived = journeys.pop(0)
            now = arrived + delay_s + 0.005 + noise.random() * noise_s
            link.end(journey, now, answer())
        begun = max(0.0, sent - (num_in_flight - 1) * size / speed)
        sent = max(sent, begun) + size / speed
        journeys.append((link.begin(begun, size), sent))
    return link


@pytest.mark.parametrize("num_in_flight", [1, 4])
@pytest.mark.parametrize(("speed", "delay_s"), [(FAST_ETHERNET, 0.042), (GIGABIT, 0.005)])
def test_the_speed_of_a_link_is_found(speed: float, delay_s: float, num_in_flight: int) -> None:
    """Neither the delay, nor the detector's own time, nor calls that share the link make it seem slower."""
    found = measured(speed, num_in_flight, delay_s).bytes_per_s
    assert found == pytest.approx(speed, rel=0.25)


def test_a_question_that_waited_behind_photos_does_not_make_a_link_fast() -> None:
    """Then `auto` would go to and fro between pixels and JPEGs."""
    link = Link()
    link.answered_without_photos(0.5)
    for _ in range(5):
        link.end(link.begin(0.0, 1_000_000), 0.085, answer())
    assert link.bytes_per_s == pytest.approx(FAST_ETHERNET * 2, rel=0.01)


def test_a_busy_processor_does_not_make_a_link_slow() -> None:
    """Of several calls, the quick ones tell of the link."""
    found = measured(FAST_ETHERNET, noise_s=0.1).bytes_per_s
    assert found is not None
    assert found > FAST_ETHERNET * 0.7


def test_a_wait_for_the_device_is_not_taken_for_the_link() -> None:
    """Neither as a slow link, nor, when other calls' bytes arrive meanwhile, as a fast one."""
    waits, shared = Link(), Link()
    for _ in range(5):
        waits.end(waits.begin(0.0, 1_000_000), 1.0, answer(device_ms=992.0))
        journey = shared.begin(0.0, 1_000_000)
        for _ in range(9):
            shared.end(shared.begin(0.0, 1_000_000), 0.8, [])
        shared.end(journey, 0.8, answer(device_ms=720.0))
    assert waits.bytes_per_s == pytest.approx(GIGABIT, rel=0.01)
    assert shared.bytes_per_s == pytest.approx(FAST_ETHERNET, rel=0.01)


def test_a_link_is_unknown_until_photos_were_answered() -> None:
    """Failures and tiny calls tell nothing."""
    link = Link()
    lost = [Failed(stamp=Stamp("a"), reason=Failure.DETECTOR_LOST, detail="It went.")]
    for _ in range(10):
        link.end(link.begin(0.0, 1_000_000), 5.0, lost)
        link.end(link.begin(0.0, 500), 5.0, answer())
    assert link.bytes_per_s is None


@pytest.mark.parametrize(
    ("costs", "speed", "num_cores", "expected"),
    [
        (LARGE_PHOTO, FAST_ETHERNET, 2, "jpeg"),
        (SMALL_PIXELS, FAST_ETHERNET, 2, "jpeg"),
        (LARGE_PHOTO, FAST_ETHERNET / 3, 1, "jpeg"),
        (LARGE_PHOTO, GIGABIT, 2, "pixels"),
        (LARGE_PHOTO, 10 * GIGABIT, 16, "pixels"),
        (SMALL_PIXELS, 10 * GIGABIT, 2, "pixels"),
        (replace(LARGE_PHOTO, encode_s=0.2), FAST_ETHERNET, 2, "pixels"),
        (replace(LARGE_PHOTO, prepare_s=0.3), FAST_ETHERNET, 2, "pixels"),
    ],
    ids=[
        "slow link",
        "slow link, small pixels",
        "radio",
        "gigabit, busy cores",
        "fast link",
        "fast link, small pixels",
        "slow encoder",
        "cores are the limit",
    ],
)
def test_jpegs_are_chosen_where_they_pay(
    costs: Costs, speed: float, num_cores: int, expected: Encoding
) -> None:
    """A slow link and cores to spare."""
    assert better(costs, speed, num_cores, "pixels") == expected


@pytest.mark.parametrize(
    ("costs", "speed", "spare_cores", "expected"),
    [
        (SMALL_PIXELS, GIGABIT / 3, None, "jpeg"),
        (SMALL_PIXELS, GIGABIT / 3, 4.0, "jpeg"),
        (SMALL_PIXELS, GIGABIT / 3, 0.5, "jpeg"),
        (SMALL_PIXELS, GIGABIT / 3, 0.1, "pixels"),
        (SMALL_PIXELS, GIGABIT / 3, 0.0, "pixels"),
        (SMALL_PIXELS, FAST_ETHERNET, 0.1, "jpeg"),
        (SMALL_PIXELS, FAST_ETHERNET, 0.0, "jpeg"),
        (replace(SMALL_PIXELS, encode_s=0.010), FAST_ETHERNET, 4.0, "jpeg"),
        (replace(SMALL_PIXELS, encode_s=0.010), FAST_ETHERNET, 0.1, "pixels"),
    ],
    ids=[
        "not known",
        "idle cores",
        "half a core",
        "busy cores",
        "no core",
        "busy cores, slow link",
        "no core, slow link",
        "slow codec, idle cores",
        "slow codec, busy cores, slow link",
    ],
)
def test_a_busy_machine_of_the_detector_gets_pixels_where_decoding_is_slower_than_the_link(
    costs: Costs, speed: float, spare_cores: float | None, expected: Encoding
) -> None:
    """On a slow link, decoding on the rest of a core is still faster than waiting for the pixels."""
    assert better(costs, speed, 8, "pixels", spare_cores) == expected


def test_one_thread_decodes_a_photo_however_many_cores_are_spare() -> None:
    """A slow codec delays each photo."""
    slow_codec = replace(SMALL_PIXELS, encode_s=0.030)
    assert better(slow_codec, FAST_ETHERNET, 8, "jpeg", 8.0) == "jpeg"
    assert better(slow_codec, FAST_ETHERNET, 8, "pixels", 8.0) == "pixels"
    assert better(slow_codec, FAST_ETHERNET, 8, "jpeg", 0.3) == "pixels"


def test_a_choice_at_the_border_is_kept() -> None:
    """Noise in the measurement must not change it with every call."""
    kept = [
        speed
        for speed in range(1_000_000, 300_000_000, 1_000_000)
        if better(SMALL_PIXELS, speed, 4, "jpeg") == "jpeg"
        and better(SMALL_PIXELS, speed, 4, "pixels") == "pixels"
    ]
    assert len(kept) > 5
    assert max(kept) / min(kept) > 1.1


def test_a_setting_is_obeyed() -> None:
    """Whatever the link."""
    slow = measured(FAST_ETHERNET)
    assert WireChoice("pixels", 2, "here").choose(slow, "there", [photo()]) == "pixels"
    assert WireChoice("jpeg", 2, "here").choose(Link(), "here", [photo()]) == "jpeg"


def test_auto_follows_the_link() -> None:
    """Pixels while the speed is unknown, and to the same machine; the link remembers the choice."""
    auto = WireChoice("auto", 2, "here")
    unknown, slow = Link(), measured(FAST_ETHERNET)
    assert auto.choose(unknown, "there", [photo()]) == "pixels"
    assert auto.choose(slow, "here", [photo()]) == "pixels"
    assert auto.choose(slow, "there", [photo()]) == "jpeg"
    assert slow.encoding == "jpeg"


def test_auto_heeds_the_cores_of_the_detectors_machine() -> None:
    """The detector says what is spare; JPEGs that it decodes do not count as a load."""
    auto, link = WireChoice("auto", 8, "here"), measured(GIGABIT / 3)
    assert auto.choose(link, "there", [photo()], 0.05) == "pixels"
    assert auto.choose(link, "there", [photo()], 2.0) == "jpeg"
    assert auto.choose(link, "there", [photo()], 0.05) == "pixels"


def test_auto_learns_what_encoding_costs() -> None:
    """A machine that encodes slowly sends pixels."""
    auto, slow, sent = WireChoice("auto", 2, "here"), measured(FAST_ETHERNET), [photo()]
    assert auto.choose(slow, "there", sent) == "jpeg"
    for _ in range(15):
        auto.encoded(sent, [EncodedImage.of(sent[0])], took_s=0.2)
    assert auto.choose(slow, "there", sent) == "pixels"


def test_bytes_on_the_way_are_counted() -> None:
    """Pixels or JPEG."""
    made = EncodedImage.of(photo())
    assert num_bytes([photo(), made]) == 480 * 640 * 3 + len(made.data)
