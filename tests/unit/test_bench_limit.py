"""The sentence that says what the limit is: each kind from figures of its own."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.bench.figures import Figures
from cluster.bench.limit import Kind, limit_of
from cluster.settings import load_settings

#: Nothing is full: one caller of a GPU elsewhere.
IDLE: dict[str, Any] = {
    "num_images": 400,
    "images_per_s": 40.0,
    "num_callers": 1,
    "device_busy": 0.3,
    "fill": 1.0,
    "is_here": False,
    "cores": {"client": 0.3, "driver process": 0.2, "detector": 0.0, "Ray": 0.1, "others": 0.1},
    "num_cores": 2,
    "prepare_cores": 0.2,
    "num_prepare_threads": 2,
    "stage_ms": {"wait for room": 0.0, "prepare": 5.0, "wire": 10.0, "queue": 1.0, "run": 5.0},
}
FULL = {"client": 1.7, "driver process": 0.2, "detector": 0.0, "Ray": 0.1, "others": 0.0}
ON_CPU = {"client": 0.6, "driver process": 0.1, "detector": 1.2, "Ray": 0.1, "others": 0.0}
OTHERS = {"client": 0.3, "driver process": 0.1, "detector": 0.0, "Ray": 0.1, "others": 1.5}
LATE = {"wait for room": 1.0, "prepare": 5.0, "wire": 90.0, "queue": 1.0, "run": 5.0}
AT_A_RATE: dict[str, Any] = {
    "num_callers": None,
    "rate": 40.0,
    "seconds": 6.0,
    "num_calls": 400,
    "is_here": True,
}
NO_ROOM = {"wait for room": 90.0, "prepare": 5.0, "wire": 10.0, "queue": 1.0, "run": 5.0}


@pytest.mark.parametrize(
    ("kind", "figures", "said"),
    [
        (Kind.FAILURES, {"failed": {"busy": 3, "deadline": 1}, "device_busy": 1.0}, "4 of 400 images failed"),
        (Kind.FAILURES, {"failed": {"busy": 3}}, "detector.max_queued_images or client.max_waiting_calls"),
        (Kind.FAILURES, {"failed": {"deadline": 3}}, "--deadline"),
        (Kind.FAILURES, {"failed": {"device_failed": 3}}, "`rayface doctor`"),
        (Kind.REJECTED, {"rejected": {"truncated": 2}}, "2 truncated"),
        (Kind.FALLBACK, {"num_by_fallback": 9}, "9 of 400"),
        (
            Kind.DEVICE,
            {"device_busy": 0.95, "fill": 0.5},
            "its batches are 50 % full",
        ),
        (Kind.DEVICE, {"device_busy": 0.95, "num_refused": 300}, "`rayface join`"),
        (Kind.SHARED_CORES, {"on_processor": True, "cores": ON_CPU}, "2.0 of 2 cores are busy"),
        (Kind.SHARED_CORES, {"on_processor": True, "device_busy": 0.96}, "because it is the device too"),
        (Kind.OTHER_PROGRAMS, {"cores": OTHERS}, "1.5 of them"),
        (Kind.OTHER_PROGRAMS, {"cores": OTHERS, "on_processor": True}, "1.5 of them"),
        (
            Kind.PREPARING,
            {"cores": FULL, "prepare_cores": 1.8, "device_busy": 0.6},
            "Preparing photos on this machine is the limit: 2.0 of 2 cores are busy, and the device is idle "
            "40 % of the time.",
        ),
        (
            Kind.PREPARE_THREADS,
            {"num_cores": 8, "prepare_cores": 1.9, "num_prepare_threads": 2},
            "Set client.num_prepare_threads to 8.",
        ),
        (
            Kind.PROCESS,
            {"num_cores": 8, "cores": IDLE["cores"] | {"driver process": 0.97}},
            "The driver process is the limit",
        ),
        (
            Kind.PROCESS,
            {"num_cores": 8, "cores": IDLE["cores"] | {"client": 1.2}},
            "beside preparing it uses 1.0 cores",
        ),
        (Kind.PROCESS, {"num_cores": 1, "cores": {"Ray": 0.5, "client": 0.45}}, "most of it goes to Ray"),
        (
            Kind.LINK,
            {"link_bytes_per_s": 12.4e6, "nominal_bytes_per_s": 125e6, "sent_bytes_per_s": 11.2e6},
            "11.2 MB/s, 90 % of what it can carry",
        ),
        (Kind.LINK, {"nominal_bytes_per_s": 12.5e6, "sent_bytes_per_s": 11.2e6}, "11.2 MB/s, 90 %"),
        (
            Kind.LINK,
            {"link_bytes_per_s": 12.4e6, "sent_bytes_per_s": 11.2e6, "wire": "pixels"},
            "Set client.wire to auto",
        ),
        (Kind.CALLERS, {"link_bytes_per_s": 12.4e6, "sent_bytes_per_s": 11.2e6, "is_here": True}, "Too few"),
        (Kind.WIRE, {"num_callers": 8, "stage_ms": LATE}, "90 of a call's 102 ms"),
        (Kind.REFUSALS, {"num_refused": 40}, "refused images 40 times"),
        (Kind.ADMISSION, {"num_callers": 200, "stage_ms": NO_ROOM}, "client.max_images_in_flight"),
        (Kind.RATE, AT_A_RATE | {"num_due": 400}, "all 40 images a second"),
        (Kind.DEVICE, AT_A_RATE | {"num_due": 900, "device_busy": 0.95}, "busy 95 % of the time"),
        # A call that begins just before the end is answered after it: of few calls, that is more than 5 %.
        (Kind.RATE, AT_A_RATE | {"num_due": 10, "num_calls": 9}, "all 40 images a second"),
        (Kind.CALLERS, AT_A_RATE | {"num_due": 10, "num_calls": 8}, "(8 of 10 calls that were due)"),
        (Kind.CALLERS, AT_A_RATE | {"num_due": 900, "num_calls": 400}, "(400 of 900 calls that were due)"),
        # What is answered a second is no measure of few calls: 8 images of one call are many in a window.
        (Kind.FEW_CALLS, AT_A_RATE | {"num_due": 2, "num_calls": 3}, "2 calls were due in 6 s, and 3 were"),
        (Kind.FEW_CALLS, AT_A_RATE | {"num_due": 1, "num_calls": 1}, "1 call was due in 6 s, and 1 was"),
        (Kind.FEW_CALLS, AT_A_RATE | {"num_images": 0, "num_due": 0, "num_calls": 0}, "--window"),
        (Kind.UNANSWERED, {"num_images": 0, "num_outstanding": 1, "seconds": 15.0}, "1 call had no answer"),
        (
            Kind.UNANSWERED,
            {"num_images": 0, "num_outstanding": 8, "seconds": 15.0},
            "No call was answered in 15 s, and 8 calls had no answer",
        ),
        (Kind.UNANSWERED, {"is_gone": True, "num_outstanding": 8}, "8 calls had no answer at the end."),
        (Kind.UNANSWERED, {"is_gone": True, "failed": {"no_cluster": 3}}, "3 images failed (3 no_cluster)"),
        (Kind.CALLERS, {}, 'in the stage "wire" (10.0 of 21.0 ms)'),
        (Kind.CALLERS, {"device_busy": None, "stage_ms": {}}, "Too few callers"),
        # One thread that waits for its answers is no slow link: more callers would help.
        (Kind.CALLERS, {"num_callers": 1, "stage_ms": LATE}, "--concurrency"),
    ],
)
def test_each_limit_has_its_sentence(kind: Kind, figures: dict[str, Any], said: str) -> None:
    found = limit_of(Figures(**(IDLE | figures)))
    assert found.kind is kind, found
    assert said in found.sentence
    assert found.sentence.endswith(".")


def test_what_a_sentence_advises_can_be_set() -> None:
    """Each `section.name` in a sentence is a setting."""
    import inspect
    import re

    from cluster.bench import limit

    named = set(re.findall(r"\b(?:client|detector|fallback)\.\w+", inspect.getsource(limit)))
    assert len(named) >= 6
    settings = load_settings()
    for each in named:
        section, _, name = each.partition(".")
        assert hasattr(getattr(settings, section), name), each
