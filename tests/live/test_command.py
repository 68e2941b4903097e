"""`rayface` as a separate process, as a person or a script uses it."""

from __future__ import annotations

import base64
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.live.conftest import HERE, command, ray_processes, rows

DETECT = [sys.executable, "-m", "cluster", "detect"]
NO_INDEX = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "",
    "PIP_INDEX_URL": "http://127.0.0.1:9/",
    "PIP_EXTRA_INDEX_URL": "",
}


def test_json_has_one_object_a_photo_and_nothing_else(photos: Path) -> None:
    """Exit code 0, outcomes in order with the fields of docs/commands.md, no bar and no colours in a pipe."""
    done = command("detect", str(photos), "--json")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert [Path(row["image"]).name for row in found] == sorted(path.name for path in photos.glob("*.jpg"))
    assert [len(row["faces"]) for row in found] == [1, 1, 0, 0, 1, 7, 0]
    first = found[0]
    assert (first["status"], first["reason"]) == ("detected", None)
    assert first["served_by"] == "FaceDetector on CPUExecutionProvider"
    (face,) = first["faces"]
    assert (len(face["box"]), len(face["landmarks"]), len(face["landmarks"][0])) == (4, 5, 2)
    assert 0 < face["score"] <= 1
    assert "\x1b" not in done.stdout + done.stderr
    assert "warn" not in done.stderr.lower()


def test_bad_photos_are_listed_with_their_reason(photos: Path, tmp_path: Path) -> None:
    """I3: exit code 1; each bad photo gets a reason, the good one is detected and drawn."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "letter.jpg").write_text("not a photo", encoding="ascii")
    (tmp_path / "cut.jpg").write_bytes((photos / "astronaut.jpg").read_bytes()[:20_000])
    drawn = tmp_path / "drawn"
    done = command(
        "detect", str(tmp_path), "missing.jpg", str(photos / "astronaut.jpg"), "--annotate", str(drawn)
    )
    assert done.returncode == 1
    for said in ("zero_sized", "not_an_image", "truncated", "unreadable", "1 detected (1 faces), 4 rejected"):
        assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert [path.name for path in drawn.iterdir()] == ["astronaut.jpg"]
    assert (drawn / "astronaut.jpg").read_bytes() != (photos / "astronaut.jpg").read_bytes()


def test_json_has_the_exact_names(photos: Path, tmp_path: Path) -> None:
    """No emoji in place of `:100:`, and two names that are no Unicode stay two."""
    names = [b"12:100:00.jpg", b"caf\xe8.jpg", b"caf\xe9.jpg", b"\x1b[2J\n.jpg"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(
            (photos / "grace_hopper.jpg").read_bytes()
        )
    (tmp_path / "linked").symlink_to(photos)
    done = command(
        "detect", "--json", str(tmp_path), "--exclude", "linked/[a-fm-z]*", str(tmp_path / "*.bmp")
    )
    assert done.returncode == 1, "no file matches the pattern"
    *found, linked, pattern = rows(done.stdout)
    exact = [
        base64.b64decode(row["path_bytes"]) if "path_bytes" in row else row["image"].encode() for row in found
    ]
    assert sorted(exact) == sorted(os.fsencode(tmp_path) + b"/" + name for name in names)
    assert [(row["status"], len(row["faces"])) for row in found] == [("detected", 1)] * 4
    assert linked["image"] == str(tmp_path / "linked" / "grace_hopper.jpg")
    assert (pattern["status"], pattern["reason"], pattern["faces"]) == ("rejected", "no_photos", None)


def test_no_ray_is_started_in_vain(tmp_path: Path) -> None:
    """Each name has its outcome all the same. An address where nobody listens would give code 3."""
    done = command("detect", str(tmp_path), "missing.jpg", "nothing/*.jpg", "--address", "127.0.0.1:9")
    assert done.returncode == 1, done.stderr
    assert "1 photos and 2 other names in " in done.stdout
    assert "0 detected (0 faces), 3 rejected, 0 failed" in done.stdout


def test_answers_come_while_the_list_goes_on(photos: Path) -> None:
    """`-`: a person who types paths sees each answer before giving the next path."""
    with subprocess.Popen(
        [*DETECT, "--json", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name in ("astronaut.jpg", "coffee.jpg", "camera.jpg"):
            process.stdin.write(f"{photos / name}\n")
            process.stdin.flush()
            (row,) = rows(process.stdout.readline())
            assert Path(row["image"]).name == name
        process.stdin.close()
        assert process.wait(60) == 0


def test_ctrl_c_ends_a_list_that_nobody_goes_on_with(photos: Path) -> None:
    """The thread that waits for the next line does not delay the end; no process of Ray is left."""
    with subprocess.Popen(
        [*DETECT, "--json", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{photos / 'coffee.jpg'}\n")
        process.stdin.flush()
        assert rows(process.stdout.readline())
        ours = ray_processes(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert psutil.wait_procs(ours, timeout=20)[1] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["detect"], "Missing argument"),
        (["detect", "--modle", "yunet", "x.jpg"], "--model"),
        (["detect", "--model", "nonesuch", "x.jpg"], "neither a model"),
        (["detect", "--config", "nowhere.toml", "x.jpg"], "nowhere.toml"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments: list[str], said: str) -> None:
    """The command ends quickly with a sentence and without a traceback."""
    done = command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_model_is_exit_code_3(tmp_path: Path, photos: Path) -> None:
    """When no photo could be asked, the message says what is missing and what to do."""
    done = command("detect", str(photos), variables=NO_INDEX | {"RAYFACE_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 3, done.stderr
    assert "could not be fetched" in done.stderr
    assert "--model PATH" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("named", ["--address", "RAY_ADDRESS", "by the note of a head that is gone"])
def test_no_cluster_is_exit_code_3(photos: Path, tmp_path: Path, named: str) -> None:
    """Nobody listens at this address. Ray itself would wait there, and for "auto" without end."""
    if named != "--address" and any(each.name() == "gcs_server" for each in psutil.process_iter()):
        pytest.skip("Another Ray runs on this machine, and that is what Ray finds for `auto`.")
    (tmp_path / "ray").mkdir()
    variables = {"RAY_TMPDIR": str(tmp_path), "RAY_ADDRESS": ""}
    if named == "RAY_ADDRESS":
        variables["RAY_ADDRESS"] = "127.0.0.1:9"
    else:
        (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    address = "127.0.0.1:9" if named == "--address" else "auto"
    done = command("detect", str(photos), "--address", address, variables=variables)
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_cluster_at_all_is_exit_code_3(photos: Path, tmp_path: Path) -> None:
    """No Ray was ever started on this machine."""
    done = command("detect", str(photos), "--address", "auto", variables={"RAY_TMPDIR": str(tmp_path)})
    assert done.returncode == 3
    assert "Check that its head runs" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_commands_at_once(photos: Path) -> None:
    """Each command has its own embedded Ray; they do not disturb each other."""
    both = [
        subprocess.Popen([*DETECT, "--json", str(photos)], stdout=subprocess.PIPE, text=True, cwd=HERE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [sum(len(row["faces"]) for row in rows(text)) for text in said] == [10, 10]


def test_a_person_sees_a_bar_and_ctrl_c_ends_it_all(photos: Path) -> None:
    """On a terminal the command shows progress. Ctrl+C ends it with code 130 and a word; no Ray is left."""
    try:
        parent, child = pty.openpty()
    except OSError:
        pytest.skip("this system has no pseudo-terminals (a bare chroot without /dev/pts)")
    many = [str(photos / "montage_faces.jpg")] * 3000
    process = subprocess.Popen(
        [*DETECT, *many],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=HERE,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(child)
    said = b""
    ours: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 120
        while b"/s" not in said and time.monotonic() < deadline:
            said += os.read(parent, 65536)
        assert b"/s" in said
        ours = ray_processes(process.pid)
        assert ours
        process.send_signal(signal.SIGINT)
        os.set_blocking(parent, False)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            try:
                said += os.read(parent, 65536)
            except (BlockingIOError, OSError):
                continue
        assert process.returncode == 130
        assert b"Traceback" not in said
        assert psutil.wait_procs(ours, timeout=20)[1] == []
    finally:
        os.close(parent)
        for left in [*ours, process]:
            if left.pid in psutil.pids() and isinstance(left, psutil.Process) and left.is_running():
                left.kill()
        if process.poll() is None:
            process.kill()
