"""The documents' examples on one real Ray of this machine: commands, Python, the HTTP server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.faces import State
from cluster import BlockingFaceClient, load_settings
from tests.conftest import PHOTOS
from tests.documents import HERE, Block, blocks, blocks_to, rows, section

_TIMEOUT_S = 180


@pytest.fixture(scope="module")
def client() -> Iterator[BlockingFaceClient]:
    """A client on an embedded cluster with everything that Ray's own commands ask."""
    with BlockingFaceClient(load_settings(cluster={"dashboard": True})) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which a person would work: with a folder of photos and the photos of the examples."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "photos").symlink_to(PHOTOS)
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(PHOTOS / "astronaut.jpg", tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def variables(client: BlockingFaceClient) -> dict[str, str]:
    """The environment of a person whose settings name the cluster that all examples share."""
    address = client.status().address
    return os.environ | {
        "RAYFACE_CLUSTER__ADDRESS": address,
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "token",
        # The address of the cluster is a loopback address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def run(words: list[str], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _different(examples: list[Block]) -> list[Block]:
    """An example that stands on two pages runs once."""
    return list({(each.text, each.marker): each for each in examples}.values())


@pytest.mark.parametrize("block", _different(blocks_to("live")), ids=str)
def test_examples_run(block: Block, folder: Path, variables: dict[str, str]) -> None:
    """Each command ends with an exit code that its document names, prints text, and shows no traceback."""
    assert block.marker is not None
    if block.language == "python":
        programs = [["-c", block.text]]
    else:
        programs = [["-m", "cluster", *words[1:]] for words in block.commands if words[0] == "rayface"]
        assert len(programs) == len(block.commands), "this test runs nothing but rayface"
    for program in programs:
        done = run(program, folder, variables)
        assert done.returncode in block.marker.exit_codes, (program, done.stdout, done.stderr)
        assert done.stdout.strip()
        assert "Traceback" not in done.stdout + done.stderr


def test_the_readme_shows_what_a_person_sees(folder: Path, variables: dict[str, str]) -> None:
    """The command prints the table of the document; only scores and times may differ."""
    (shown,) = (each.text for each in blocks(HERE / "README.md") if each.language == "text")
    done = run(["-m", "cluster", "detect", "tests/photos"], folder, variables)
    assert done.returncode == 0, done.stderr
    assert _without_figures(done.stdout) == _without_figures(shown)


def test_the_server_answers_as_its_table_says(
    client: BlockingFaceClient, folder: Path, variables: dict[str, str]
) -> None:
    """Each request of the table gets the status code of its row."""
    table = rows(section(HERE / "docs" / "python.md", "Over HTTP"))
    asked = [cells[0].split("`")[1] for cells in table if re.match(r"`(GET|POST) ", cells[0])]
    assert len(asked) == 6
    with _server(variables) as address:
        for each in asked:
            method, path = each.split()
            photo = (folder / "a.jpg").read_bytes() if method == "POST" else None
            status, said = _ask(f"{address}{path}", photo)
            assert status == 200, (each, said)
        assert json.loads(_ask(f"{address}/faces", (folder / "a.jpg").read_bytes())[1])["faces"]
        assert json.loads(_ask(f"{address}/status")[1])["detectors"][0]["circuit"] == "closed"
        assert _ask(f"{address}/faces", b"no photo")[0] == 422


def test_the_status_is_shown_again_until_ctrl_c(folder: Path, variables: dict[str, str]) -> None:
    """`--watch` prints another status every 2 s, and Ctrl+C ends it without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", "status", "--watch", "--json"],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for _ in range(3):
            assert json.loads(process.stdout.readline())["detectors"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=_TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_rays_own_command_shows_the_machines(folder: Path, variables: dict[str, str]) -> None:
    done = run(["-m", "ray.scripts.scripts", "status"], folder, variables)
    assert done.returncode == 0, done.stderr
    assert "Active:" in done.stdout


def test_a_detector_is_removed_and_placed_again(
    client: BlockingFaceClient, folder: Path, variables: dict[str, str]
) -> None:
    """This test comes last, because it removes the detector that the other tests ask."""
    before = client.health().stamp.incarnation
    (example,) = (each for each in blocks_to("tested") if each.text == "rayface remove FaceDetector\n")
    done = run(["-m", "cluster", *example.commands[0][1:]], folder, variables)
    assert done.returncode == 0, done.stderr
    done = run(["-m", "cluster", "place", "--json"], folder, variables)
    assert done.returncode == 0, done.stderr
    (placed,) = json.loads(done.stdout)
    assert placed["state"] == State.READY
    assert client.health(60.0).stamp.incarnation != before


def _without_figures(text: str) -> list[str]:
    return [
        re.sub(r"\s+", " ", re.sub(r"\d+\.\d+", "0.0", line)).strip() for line in text.strip().splitlines()
    ]


@contextmanager
def _server(variables: dict[str, str]) -> Iterator[str]:
    """Start `python -m app.web` on a free port, and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "app.web"],
        cwd=HERE,
        env=variables | {"RAYFACE_APP_HOST": "127.0.0.1", "RAYFACE_APP_PORT": str(port)},
    )
    try:
        until = time.monotonic() + 60
        # The client of the server joins in the background, so at first it knows no detector.
        while time.monotonic() < until and _ask(f"{address}/health")[0] != 200:
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _ask(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer; the status is 0 if nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""
