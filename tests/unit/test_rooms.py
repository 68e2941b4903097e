"""What the rooms and the wheel hold, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).parents[2]


def test_the_wheel_holds_two_rooms_and_what_they_need(tmp_path: Path) -> None:
    """`app` stays home: shipped, it would hide a user's own."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"actors", "cluster"}
    assert {"actors/golden.jpg", "cluster/configs/local.toml", "cluster/cli/main.py"} <= names


def test_importing_is_light() -> None:
    """A backend imports the client at once; Ray, ONNX Runtime, OpenCV and onnx come when they are used."""
    program = "import sys, cluster, actors.face_detector; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=HERE
    )
    assert {"ray", "onnxruntime", "cv2", "onnx"} & set(done.stdout.split()) == set()


def test_packages_are_those_of_each_system() -> None:
    """Ray exactly; DirectML and a cv2 with windows only on Windows; hashes, and no address of an index."""
    with (HERE / "pyproject.toml").open("rb") as file:
        needed = tomllib.load(file)["project"]["dependencies"]
    assert any(each.startswith("ray[default]==") for each in needed)
    for name in ("onnxruntime", "opencv-python-headless"):
        assert any(
            each.startswith(f"{name}>") and each.endswith("sys_platform != 'win32'") for each in needed
        )
    for name in ("onnxruntime-directml", "opencv-python"):
        assert any(
            each.startswith(f"{name}>") and each.endswith("sys_platform == 'win32'") for each in needed
        )
    pins = (HERE / "constraints.txt").read_text(encoding="utf-8")
    assert "--hash=sha256:" in pins
    assert "://" not in pins
