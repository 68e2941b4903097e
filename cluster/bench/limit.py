"""What the limit is: one sentence, chosen from measured figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cluster.bench.figures import BUSY, Figures

#: From this share on, the link counts as full: the headers of the packets need the rest.
_LINK_FULL = 0.8
#: Share of a call's time from which a wait is named as the limit.
_LONG_WAIT = 0.4
#: Share of the images that the detector may refuse as busy before that is named.
_MANY_REFUSED = 0.05
#: Share of the cores that programs beside the bench may use before they are named.
_OTHERS = 0.3
#: Share of the rate that must be reached for it to count as kept.
_KEPT = 0.95
#: Calls that must be due to tell whether a rate is kept: with fewer, one call more or less decides.
_MIN_DUE = 10


class Kind(StrEnum):
    """What can be the limit."""

    UNANSWERED = "unanswered"
    FAILURES = "failures"
    REJECTED = "rejected"
    FALLBACK = "fallback"
    DEVICE = "device"
    SHARED_CORES = "shared_cores"
    OTHER_PROGRAMS = "other_programs"
    PREPARING = "preparing"
    PREPARE_THREADS = "prepare_threads"
    PROCESS = "process"
    LINK = "link"
    WIRE = "wire"
    REFUSALS = "refusals"
    ADMISSION = "admission"
    RATE = "rate"
    FEW_CALLS = "few_calls"
    CALLERS = "callers"


#: Kinds in which the other figures say little.
FAULTS = (Kind.UNANSWERED, Kind.FAILURES, Kind.REJECTED, Kind.FALLBACK)


@dataclass(frozen=True, slots=True)
class Limit:
    """What the limit is.

    Attributes:
        kind: one of the kinds.
        sentence: for people: what it is, the figures that show it, and what to do next.
    """

    kind: Kind
    sentence: str


def limit_of(figures: Figures) -> Limit:
    """Choose the limit: the first that applies of no answers, faults, a kept rate, what is full, and waits.

    Args:
        figures: of one load.
    """
    found = next(limit for choose in _IN_ORDER if (limit := choose(figures)) is not None)
    if not figures.encodings or found.kind in FAULTS:
        return found
    return Limit(found.kind, f"{found.sentence} {_travelled(figures)}")


def _unanswered(it: Figures) -> Limit | None:
    if it.is_gone:
        failed = f", and {sum(it.failed.values())} images failed ({_listed(it.failed)})" if it.failed else ""
        return Limit(
            Kind.UNANSWERED,
            f"No detector answers any more, so the measurement ended: {_calls(it.num_outstanding)} had no "
            f"answer at the end{failed}. The cluster has ended, or this machine lost it. Run `rayface "
            "status`, start the cluster again, and measure again.",
        )
    if it.num_images or not it.num_outstanding:
        return None
    return Limit(
        Kind.UNANSWERED,
        f"No call was answered in {it.seconds:.0f} s, and {_calls(it.num_outstanding)} had no answer at the "
        "end, so nothing is measured. A call takes longer than that, or the detector hangs: run `rayface "
        "status`, or measure with longer windows (--window).",
    )


def _faults(it: Figures) -> Limit | None:
    if it.failed:
        most = max(it.failed, key=lambda reason: it.failed[reason])
        advice = _ADVICE_FOR.get(most, "Run `rayface status` and `rayface doctor`: they say what is wrong.")
        return Limit(
            Kind.FAILURES,
            f"{sum(it.failed.values())} of {it.num_images} images failed ({_listed(it.failed)}), so the "
            f"other figures say little. {advice}",
        )
    if it.rejected:
        return Limit(
            Kind.REJECTED,
            f"{sum(it.rejected.values())} of {it.num_images} images were rejected ({_listed(it.rejected)}): "
            "these files are at fault, and no detector saw them. Leave them out and measure again.",
        )
    if it.num_by_fallback:
        return Limit(
            Kind.FALLBACK,
            f"The processor of this machine answered {it.num_by_fallback} of {it.num_images} images in "
            "place of a detector, so the figures are not the device's. Run `rayface status` to see why the "
            "circuit is open, or set fallback.policy to never and measure again.",
        )
    return None


def _rate(it: Figures) -> Limit | None:
    if it.rate is None or it.num_due is None:
        return None
    if it.num_due < _MIN_DUE:
        return Limit(
            Kind.FEW_CALLS,
            f"Too few calls were made to tell what the limit is: {_calls(it.num_due)} "
            f"{'was' if it.num_due == 1 else 'were'} due in {it.seconds:.0f} s, and {it.num_calls} "
            f"{'was' if it.num_calls == 1 else 'were'} answered. Measure with longer windows (--window).",
        )
    # A call that begins just before the end is answered after it, and is not late.
    if it.num_calls < min(_KEPT * it.num_due, it.num_due - 1):
        return None
    return Limit(
        Kind.RATE,
        f"The rate that was asked for is the limit: all {it.rate:g} images a second are answered{_idle(it)}. "
        "Ask for a higher --rate.",
    )


def _device(it: Figures) -> Limit | None:
    if not it.on_processor:
        if not it.device_is_busy:
            return None
        filled = "" if it.fill is None else f", and its batches are {_percent(it.fill)} full"
        return Limit(
            Kind.DEVICE,
            f"The device is the limit: it is busy {_percent(it.device_busy)} of the time{filled}. "
            "Lend another device with `rayface join`, choose a faster model, or set a smaller "
            "detector.input_size.",
        )
    if not it.cores_are_busy and not it.device_is_busy:
        return None
    if it.cores.get("others", 0.0) >= _OTHERS * it.num_cores:
        return None
    return Limit(
        Kind.SHARED_CORES,
        f"The processor of this machine is the limit, because it is the device too: {_cores(it)} are "
        f"busy. The detector uses {it.cores.get('detector', 0.0):.1f} and the client "
        f"{it.cores.get('client', 0.0):.1f} of them. Let a machine with a GPU join (`rayface join`), or give "
        "this one more cores.",
    )


def _processor(it: Figures) -> Limit | None:
    idle = (
        ""
        if it.device_busy is None
        else f", and the device is idle {_percent(1 - it.device_busy)} of the time"
    )
    if it.cores_are_busy:
        if it.cores.get("others", 0.0) >= _OTHERS * it.num_cores:
            return Limit(
                Kind.OTHER_PROGRAMS,
                f"Other programs on this machine are the limit: {_cores(it)} are busy, "
                f"{it.cores['others']:.1f} of them with programs that do not belong to the bench{idle}. "
                "End those programs, and measure again.",
            )
        if it.prepare_cores >= it.cores.get("client", 0.0) / 2:
            return Limit(
                Kind.PREPARING,
                f"Preparing photos on this machine is the limit: {_cores(it)} are busy{idle}. Give the "
                "backend more cores. For a scan, other machines can help: set client.prepare to cluster.",
            )
    elif it.prepare_cores >= BUSY * it.num_prepare_threads and it.num_prepare_threads < it.num_cores:
        return Limit(
            Kind.PREPARE_THREADS,
            f"The threads that prepare photos are the limit: all {it.num_prepare_threads} are busy{idle}, "
            f"but only {_cores(it)} are. Set client.num_prepare_threads to {it.num_cores}.",
        )
    for kind in ("driver process", "client", "detector", "Ray"):
        # What prepares photos uses many cores at once; the rest of each process has one busy thread.
        used = it.cores.get(kind, 0.0) - (it.prepare_cores if kind == "client" else 0.0)
        if used >= BUSY and (kind != "detector" or not it.on_processor):
            return Limit(Kind.PROCESS, f"{_PROCESSES[kind].format(used=used)}{idle}. {_PROCESS_ADVICE[kind]}")
    if it.cores_are_busy:
        most = max(it.cores, key=lambda kind: it.cores[kind])
        return Limit(
            Kind.PROCESS,
            f"The processor of this machine is the limit: {_cores(it)} are busy{idle}; most of it goes to "
            f"{'Ray' if most == 'Ray' else f'the {most}'} ({it.cores[most]:.1f} cores). Send more images in "
            "a call (client.images_per_call), or give this machine more cores.",
        )
    return None


def _wire(it: Figures) -> Limit | None:
    sent = f"this machine sends {_mb_per_s(it.sent_bytes_per_s)}"
    fewer = "Use a faster link (a cable in place of radio), or set a smaller detector.input_size."
    if it.wire == "pixels":
        fewer = f"Set client.wire to auto: photos then travel as JPEGs over a slow link. {fewer}"
    if it.link_share is not None and it.link_share >= _LINK_FULL:
        return Limit(
            Kind.LINK,
            f"The link is the limit: {sent}, {_percent(it.link_share)} of what it can carry. {fewer}",
        )
    many = it.num_callers is None or it.num_callers >= 4
    if not it.is_here and many and it.share("wire") >= _LONG_WAIT:
        return Limit(
            Kind.WIRE,
            f"The way to the detector is the limit: it takes {it.stage_ms['wire']:.0f} of a call's "
            f"{it.call_ms:.0f} ms, and {sent}{_idle(it)}. {fewer}",
        )
    return None


def _queues(it: Figures) -> Limit | None:
    if it.num_images and it.num_refused >= _MANY_REFUSED * it.num_images:
        return Limit(
            Kind.REFUSALS,
            f"The detector's queue is the limit: it refused images {it.num_refused} times while "
            f"{it.num_images} were answered. Ask with fewer callers, or set a larger "
            "detector.max_queued_images.",
        )
    if it.share("wait for room") >= _LONG_WAIT:
        return Limit(
            Kind.ADMISSION,
            f"The room in the client is the limit: a call waits {it.stage_ms['wait for room']:.0f} of its "
            f"{it.call_ms:.0f} ms until fewer than {it.max_images_in_flight} images are under way"
            f"{_idle(it)}. Set a larger client.max_images_in_flight.",
        )
    return None


def _callers(it: Figures) -> Limit:
    if it.rate is not None:
        return Limit(
            Kind.CALLERS,
            f"{it.images_per_s:.1f} of {it.rate:g} images a second are answered ({it.num_calls} of "
            f"{_calls(it.num_due or 0)} that were due), and nothing that is measured is full; a call takes "
            f"longest in the stage {_longest(it)}{_idle(it)}. Measure with "
            "--concurrency and longer windows (--window).",
        )
    return Limit(
        Kind.CALLERS,
        f"Too few callers are the limit: nothing is full{_idle(it)}, and a call takes longest in the stage "
        f"{_longest(it)}. Ask with a higher --concurrency, or with more images in a call "
        "(--images-per-call).",
    )


_IN_ORDER: Sequence[Callable[[Figures], Limit | None]] = (
    _unanswered,
    _faults,
    _rate,
    _device,
    _processor,
    _wire,
    _queues,
    _callers,
)

_PROCESSES: Mapping[str, str] = {
    "driver process": "The driver process is the limit: it uses {used:.1f} cores",
    "client": "The client's process is the limit: beside preparing it uses {used:.1f} cores",
    "detector": "The detector's process is the limit: it uses {used:.1f} cores",
    "Ray": "Ray's own processes are the limit: they use {used:.1f} cores",
}
_MORE_IMAGES = "Send more images in a call (client.images_per_call)"
_PROCESS_ADVICE: Mapping[str, str] = {
    "driver process": f"{_MORE_IMAGES}, or run a second backend: each has a driver process of its own.",
    "client": f"{_MORE_IMAGES}, or run a second backend process.",
    "detector": f"{_MORE_IMAGES}, or lend a device on a further machine with `rayface join`.",
    "Ray": f"{_MORE_IMAGES}.",
}
_ADVICE_FOR: Mapping[str, str] = {
    "busy": "More was asked than the queues hold: ask with fewer callers or a lower --rate, or set a larger "
    "detector.max_queued_images or client.max_waiting_calls.",
    "deadline": "They were not answered in time: ask for less, or give them a longer --deadline.",
}


def _idle(it: Figures) -> str:
    if it.device_busy is None:
        return ""
    return f" (the device is idle {_percent(1 - it.device_busy)} of the time)"


def _travelled(it: Figures) -> str:
    said = f"Photos travelled as {it.encodings} (client.wire is {it.wire})"
    if it.is_here:
        return f"{said} within this machine."
    said += f", and this machine sent {_mb_per_s(it.sent_bytes_per_s)}"
    if it.link_bytes_per_s is not None:
        said += f"; the calls measured {_mb_per_s(it.link_bytes_per_s)} on the way"
    return f"{said}."


def _mb_per_s(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.1f} MB/s"


def _calls(num: int) -> str:
    return f"{num} call{'' if num == 1 else 's'}"


def _longest(it: Figures) -> str:
    if not it.call_ms:
        return "that is not known"
    name = max(it.stage_ms, key=lambda stage: it.stage_ms[stage])
    return f'"{name}" ({it.stage_ms[name]:.1f} of {it.call_ms:.1f} ms)'


def _cores(it: Figures) -> str:
    return f"{it.busy_cores:.1f} of {it.num_cores} cores"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{share * 100:.0f} %"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{num} {reason}" for reason, num in sorted(counts.items(), key=lambda each: -each[1]))
