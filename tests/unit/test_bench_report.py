"""The report of `rayface bench`: stages, processor time, JSON, comparison, tables and exit codes."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from actors.faces import Failure, Outcome, Priority, Times
from actors.images import Limits
from cluster.bench import inputs
from cluster.bench.compare import compare, read_report
from cluster.bench.device import DeviceUse
from cluster.bench.load import Answered, Calls, Load
from cluster.bench.measure import Measured, Plan
from cluster.bench.report import report
from cluster.bench.stages import StageTotals, StageTracer
from cluster.bench.travel import Travel
from cluster.bench.usage import Spent, Usage, spent, usage
from cluster.bench.windows import Window
from cluster.cli import bench as bench_command
from cluster.cli.bench_view import comparison, tables
from cluster.cli.main import cli
from cluster.client.detector import Detector
from cluster.errors import ConfigurationError
from cluster.settings import CircuitSettings, load_settings
from cluster.telemetry.tracing import OFF
from tests.unit.fake_cluster import detected, failed, health


def one(load: Load, outcome: Outcome | None = None, latency_s: float = 0.1) -> Measured:
    """A measurement of ten seconds with a hundred calls."""
    window = Window(0.0, 10.0)
    for _ in range(100):
        window.add(Answered(0.0, latency_s, [outcome or detected(1)]))
    return Measured(
        load=load,
        calls=Calls(),
        window=window,
        num_windows=3,
        is_steady=True,
        device=DeviceUse(1, 0, 0.5, 50, 100, 125),
        spent=Spent({"client": 0.5, "others": 0.1}, 2, 5e6, None),
        stages=StageTotals({"prepare": 1.0, "wire": 2.0}, 100, 0),
        travel=Travel(("pixels",)),
        num_outstanding=1,
        grew=0,
    )


def made(*measured: Measured, **sections: Any) -> dict[str, Any]:
    return report(load_settings(**sections), "photos", Plan(), [health()], measured or [one(Load(1))])


def text(shown: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(shown)
    return out.getvalue()


def test_a_report_can_be_written_and_has_every_figure() -> None:
    found = json.loads(json.dumps(made()))
    (row,) = found["loads"]
    assert row["images_per_s"] == 10
    assert row["latency_ms"] == {"mean": 100, "p50": 100, "p90": 100, "p95": 100, "p99": 100}
    assert row["device"]["busy"] == 0.5
    assert row["device"]["fill"] == 0.8
    assert row["device"]["mean_batch"] == 2
    assert row["stage_ms"]["prepare"] == 10
    assert row["processor_ms_per_image"]["client"] == 50
    assert found["limit"]["kind"] == "callers"
    assert found["detectors"]["FaceDetector"]["provider"] == "CPUExecutionProvider"


def test_the_last_word_is_of_the_load_with_the_most_images() -> None:
    found = made(one(Load(1)), one(Load(8), latency_s=0.05), one(Load(rate=1.0)))
    assert found["limit"]["load"] == "1 caller"
    faulty = made(one(Load(1)), one(Load(8), failed(Failure.BUSY)))
    assert faulty["limit"]["load"] == "8 callers"
    assert faulty["limit"]["kind"] == "failures"


def test_failures_stand_above_the_figures() -> None:
    shown = text(tables(made(one(Load(8), failed(Failure.BUSY)))))
    assert shown.index("8 callers: 100 failed (busy): busy it was") < shown.index("images/s")


def test_what_is_not_steady_is_told() -> None:
    shown = text(tables(made(replace(one(Load(8)), is_steady=False))))
    assert "8 callers: not steady after 3 windows" in shown


def test_refusals_have_a_column_where_there_are_any() -> None:
    assert "refused" not in text(tables(made(one(Load(8)))))
    busy = replace(one(Load(8)), stages=StageTotals({}, 100, 37))
    shown = text(tables(made(busy)))
    assert "refused" in shown
    assert "37" in shown


def test_two_reports_are_compared_by_load(tmp_path: Path) -> None:
    earlier, now = made(one(Load(1)), one(Load(4))), made(one(Load(1), latency_s=0.2), one(Load(8)))
    now["settings"]["client"]["images_per_call"] = 1
    file = tmp_path / "earlier.json"
    file.write_text(json.dumps(earlier), encoding="utf-8")
    found = compare(read_report(file), now)
    assert set(found["ratios"]) == {"1 caller"}
    assert found["ratios"]["1 caller"]["p50"] == 2
    assert found["ratios"]["1 caller"]["images/s"] == 1
    assert (found["only_now"], found["only_earlier"]) == (["8 callers"], ["4 callers"])
    assert found["differences"] == {"settings.client.images_per_call": {"earlier": 8, "now": 1}}
    shown = text(comparison(found, "earlier.json"))
    assert "settings.client.images_per_call: 8 → 1" in shown
    assert "only now: 8 callers" in shown


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no JSON"),
        ("[]", "of another kind"),
        ('{"loads": [{"load": "1 caller"}]}', 'no "machine", "detectors", "settings", "bench"'),
        ('{"machine": {}, "detectors": {}, "settings": {}, "bench": {}}', 'no list "loads"'),
        ('{"machine": {}, "detectors": {}, "settings": {}, "bench": {}, "loads": [1]}', '"latency_ms"'),
    ],
)
def test_a_file_of_another_kind_is_refused(content: str, said: str, tmp_path: Path) -> None:
    """Before the load, and not after it."""
    file = tmp_path / "earlier.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="rayface bench --json") as refused:
        read_report(file)
    assert said in str(refused.value)
    done = CliRunner().invoke(cli, ["bench", "--compare", str(file)])
    assert isinstance(done.exception, ConfigurationError)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_report(tmp_path / "absent.json")


def test_the_table_and_the_last_sentence_name_the_wire() -> None:
    """And the speeds that were measured, not what a driver says of its interface."""
    spent = Spent({"client": 0.5}, 2, 11.2e6, 125e6)
    row = replace(one(Load(8)), spent=spent, travel=Travel(("jpeg",), 12.4e6))
    found = report(load_settings(), "photos", Plan(), [health(host="there")], [row])
    assert found["loads"][0]["network"] == {
        "wire": ["jpeg"],
        "sent_bytes_per_s": 11_200_000,
        "link_bytes_per_s": 12_400_000,
        "nominal_bytes_per_s": 125_000_000,
    }
    assert found["limit"]["kind"] == "link"
    assert "11.2 MB/s, 90 % of what it can carry" in found["limit"]["sentence"]
    assert found["limit"]["sentence"].endswith(
        "Photos travelled as JPEGs (client.wire is auto), and this machine sent 11.2 MB/s; the calls "
        "measured 12.4 MB/s on the way."
    )
    shown = text(tables(found))
    assert re.search(r"load +wire +sent MB/s +link MB/s *\n *8 callers +jpeg +11\.2 +12\.4", shown), shown


def test_how_photos_travel_is_read_from_the_links() -> None:
    """Detectors of this machine have no link that could be full."""
    here, there, silent = (Detector(name, CircuitSettings(), 0.0) for name in ("here", "there", "silent"))
    here.hear(0.0, health(host="here"))
    there.hear(0.0, health(host="there"))
    there.link.encoding = "jpeg"
    for each in (here, there):
        for _ in range(5):
            answer = replace(detected(1), times=Times(run_ms=10.0))
            each.link.end(each.link.begin(0.0, 1_000_000), 0.11, [answer])
    found = Travel.to([here, there, silent], "here")
    assert found.encodings == ("jpeg", "pixels")
    assert found.link_bytes_per_s == pytest.approx(10e6)
    assert Travel.to([here], "here") == Travel(("pixels",), None)
    both = Travel.during([Travel(("pixels",), 1e6), Travel(("jpeg",), 2e6)])
    assert both == Travel(("jpeg", "pixels"), 2e6)
    assert str(both) == "JPEGs and pixels"


def test_stages_add_up() -> None:
    """The wire is what a question takes beside queue and run of the image that was answered last."""
    now = 0.0
    tracer = StageTracer(OFF, lambda: now)
    with tracer.span("wait for room"):
        now += 0.001
    with tracer.span("prepare"):
        now += 0.01
    slow = replace(detected(1), times=Times(queue_ms=20, run_ms=30))
    with tracer.span("ask detector") as span:
        now += 0.1
        span.outcomes([detected(1), slow, failed(Failure.BUSY, 1.0)])
    spent_ms = tracer.totals().since(StageTotals({}, 0, 0)).ms_a_call()
    assert {name: round(ms, 3) for name, ms in spent_ms.items() if ms} == {
        "wait for room": 1,
        "prepare": 10,
        "wire": 50,
        "queue": 20,
        "run": 30,
    }
    assert tracer.totals().num_refused == 1


def test_processor_time_is_counted_by_kind() -> None:
    before = Usage(0.0, {1: ("client", 1.0), 2: ("detector", 5.0)}, 100.0, {"eth0": 0, "eth1": 0})
    after = Usage(
        10.0,
        {1: ("client", 6.0), 2: ("detector", 10.0), 3: ("Ray", 1.0)},
        115.0,
        {"eth0": 100, "eth1": 5_000_000},
    )
    found = spent(before, after)
    assert {kind: round(used, 3) for kind, used in found.cores.items()} == {
        "client": 0.5,
        "driver process": 0,
        "detector": 0.5,
        "Ray": 0.1,
        "others": 0.4,
    }
    assert found.sent_bytes_per_s == 500_000


def test_this_process_is_the_client() -> None:
    found = usage(())
    assert found.processes[os.getpid()][0] == "client"
    assert found.machine_s > 0
    assert "lo" not in found.sent


def test_made_up_photos_are_photos_of_that_size() -> None:
    from io import BytesIO

    from PIL import Image

    first, second = inputs.made_up_photos(0.3, num=2)
    assert first != second
    for each in (first, second):
        assert isinstance(each, bytes)
        width, height = Image.open(BytesIO(each)).size
        assert width * height == pytest.approx(0.3e6, rel=0.02)
        assert width / height == pytest.approx(4 / 3, rel=0.01)


def test_pixels_are_made_of_photos(photos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    paths = [str(tmp_path / "bad.jpg"), str(photos / "astronaut.jpg")]
    (pixels,) = inputs.pixels_of(paths, 160, Limits(10**8, 10**8), said.append)
    assert getattr(pixels, "shape", None) == (160, 160, 3)
    assert "bad.jpg is left out" in said[0]
    with pytest.raises(ConfigurationError):
        inputs.pixels_of(paths[:1], 160, Limits(10**8, 10**8), said.append)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--concurrency", "1", "--rate", "1"], "give one of them"),
        (["--concurrency", "1,x"], "no list of numbers"),
        (["--concurrency", "1.5"], "not whole"),
        (["--rate", "0"], "no list of numbers"),
        (["--pixels", "5"], "--pixels"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(cli, ["bench", *arguments])
    assert done.exit_code == 2
    assert said in done.output


def test_the_command_hands_on_what_it_was_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    async def measured(
        settings: Any, images: Any, about: str, loads: Any, calls: Any, plan: Any, tell: Any
    ) -> Any:
        asked.update(settings=settings, images=images, loads=loads, calls=calls, plan=plan)
        tell(loads[0], None)
        tell(loads[0], one(loads[0]).window)
        return made(*(one(each, failed(Failure.BUSY)) for each in loads))

    monkeypatch.setattr(bench_command, "measure_loads", measured)
    words = "bench --pixels 64 --rate 5,10 --images-per-call 2 --priority bulk --deadline 4 --warm-up 1"
    done = CliRunner().invoke(cli, [*words.split(), "--window", "2", "--max-windows", "7", "--json"])
    assert done.exit_code == 1, "failures are told by the exit code too"
    assert json.loads(done.stdout)["limit"]["kind"] == "failures"
    assert asked["loads"] == [Load(rate=5.0), Load(rate=10.0)]
    assert asked["calls"] == Calls(2, Priority.BULK, 4.0)
    assert asked["plan"] == Plan(1.0, 2.0, 7)
    assert asked["settings"].client.images_per_call == 2
    assert len(asked["images"]) == inputs.MAX_MADE
    CliRunner().invoke(cli, ["bench", "--pixels", "64", "--model", "yunet"])
    assert asked["settings"].detector.model == "yunet"


def test_a_file_that_does_not_exist_is_refused_before_the_start(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["bench", str(tmp_path / "none.jpg"), str(tmp_path / "nor.jpg")])
    assert isinstance(done.exception, ConfigurationError)
    assert "none.jpg cannot be used. The file cannot be read: No such file" in str(done.exception)


def test_a_cluster_that_ends_is_told_by_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ended(*_: Any) -> Any:
        return made(replace(one(Load(8)), window=Window(0.0, 10.0), num_outstanding=8, is_gone=True))

    monkeypatch.setattr(bench_command, "measure_loads", ended)
    done = CliRunner().invoke(cli, ["bench", "--pixels", "64"])
    assert done.exit_code == 3
    assert "No detector answers any more" in done.output


def test_a_model_is_not_chosen_for_detectors_that_run_already() -> None:
    done = CliRunner().invoke(cli, ["bench", "--model", "yunet", "--address", "head:6379"])
    assert done.exit_code == 2
    assert "run the model that they were started with" in done.output
