"""`rayface bench` on a real Ray: an embedded one, and a live cluster. Short windows: only the form counts."""

from __future__ import annotations

import json
from pathlib import Path

from cluster import BlockingFaceClient
from tests.live.conftest import command

SHORT = ("--warm-up", "0.5", "--window", "1", "--max-windows", "3")


def test_an_embedded_ray_is_measured_and_compared(tmp_path: Path) -> None:
    """Made-up photos; the figures of all processes are there, and an equal run has the same settings."""
    options = ("bench", "--concurrency", "1,4", "--megapixels", "0.5", *SHORT, "--json")
    first = command(*options)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert [each["concurrency"] for each in found["loads"]] == [1, 4]
    for each in found["loads"]:
        assert each["outcomes"]["detected"] > 0
        assert each["latency_ms"]["p50"] <= each["latency_ms"]["p99"]
        assert 0 < each["device"]["busy"] <= 1
        assert each["device"]["fill"] > 0
        for kind in ("client", "detector", "driver process", "Ray"):
            assert each["cores"][kind] > 0, kind
        for stage in ("prepare", "wire", "run"):
            assert each["stage_ms"][stage] > 0, stage
    assert found["limit"]["sentence"]
    file = tmp_path / "earlier.json"
    file.write_text(first.stdout, encoding="utf-8")
    again = command(*options, "--compare", str(file))
    assert again.returncode == 0, again.stderr
    compared = json.loads(again.stdout)["compared"]
    assert compared["ratios"]["4 callers"]["images/s"] > 0
    assert compared["differences"] == {}


def test_a_live_cluster_is_measured(client: BlockingFaceClient, photos: Path) -> None:
    """The same with --address: photos in bulk at a rate, and the sentence at the end."""
    done = command(
        "bench",
        str(photos / "astronaut.jpg"),
        *("--address", client.status().address, "--rate", "4", "--images-per-call", "2"),
        *("--priority", "bulk", "--deadline", "20", *SHORT),
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "4 images/s" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("4 images/s: ")
    assert "Traceback" not in done.stdout + done.stderr


def test_failures_are_loud(client: BlockingFaceClient, tmp_path: Path) -> None:
    """Exit code 1, the reason with its sentence above the figures, and the last word is about it."""
    (tmp_path / "letter.jpg").write_text("not a photo", encoding="ascii")
    done = command("bench", str(tmp_path), "--address", client.status().address, "--concurrency", "1", *SHORT)
    assert done.returncode == 1, done.stderr
    assert "rejected (not_an_image)" in done.stdout
    assert "were rejected" in done.stdout.rstrip().splitlines()[-1]


def test_pixels_are_measured(client: BlockingFaceClient) -> None:
    address = client.status().address
    done = command("bench", "--pixels", "160", "--address", address, "--concurrency", "2", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "random pixels of 160 x 160" in done.stdout
