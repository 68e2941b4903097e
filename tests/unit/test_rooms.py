"""What the packages, the wheel and the committed files hold, and what importing costs."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

HERE = Path(__file__).parents[2]


def committed_texts() -> Iterator[tuple[Path, str]]:
    """The text files that are committed, without Git: where the tests run, there may be none."""
    folders = (".ci", "actors", "app", "cluster", "configs", "docs", "tests")
    files = [file for folder in folders for file in (HERE / folder).rglob("*")]
    files += [*HERE.glob("*.*"), HERE / "Dockerfile", HERE / "LICENSE", HERE / "NOTICE"]
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts and file != Path(__file__):
            content = file.read_bytes()
            if b"\0" not in content:
                yield file.relative_to(HERE), content.decode("utf-8")


def package_hosts() -> set[str]:
    """Patterns of the servers of packages: the usual ones, and those that pip is told of on this machine."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(pip, check=True, capture_output=True, text=True).stdout
    hosts = set(re.findall(r"https?://(?:[^/@\s']*@)?([\w.-]+\.\w+)", told))
    return {re.escape(host) for host in hosts} | {r"(?:pypi|pythonhosted|npmjs)\.(?:org|com)\b"}


def test_no_file_names_a_folder_of_one_machine_or_a_server_of_packages() -> None:
    """A developer's paths are wrong elsewhere; packages come from wherever each person's pip looks."""
    folders = re.compile(rf"(?<![\w.])(?:/(?:work|root)/|{re.escape(str(HERE))}/)")
    hosts = re.compile("|".join(sorted(package_hosts())))
    found = [
        f"{file}:{number}: {line.strip()[:100]}"
        for file, text in committed_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if folders.search(line) or hosts.search(line)
    ]
    assert found == []


def test_the_wheel_holds_two_packages_and_what_they_need(tmp_path: Path) -> None:
    """`app` stays out: shipped, it would hide a user's own. Type checkers are told that the types count."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True)
    (file,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        known = Parser().parsestr(wheel.read(metadata).decode("utf-8"))
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"actors", "cluster"}
    assert {"actors/golden.jpg", "cluster/configs/local.toml", "cluster/cli/main.py"} <= names
    assert {"actors/py.typed", "cluster/py.typed"} <= names
    assert known.get_all("Provides-Extra") == ["heic", "tracing"]
    says = "import cluster; print(cluster.__file__, cluster.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", says],
        env=os.environ | {"PYTHONPATH": str(file)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [f"{file}/cluster/__init__.py", known["Version"]]


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


#: `"-m", "MODULE"` in a list, and the checks' own `run_module("MODULE"`.
_MODULE = re.compile(r'(?:"-m",|run_module\()\s*"([\w.]+)"')


def test_modules_that_are_named_in_strings_exist() -> None:
    """Compose files, image, sources and tests run `python -m MODULE`; only this finds a wrong name early."""
    files = [*HERE.glob("docker-compose*.yml"), HERE / "Dockerfile", HERE / "start.py"]
    files += [each for room in ("actors", "app", "cluster", "tests") for each in (HERE / room).rglob("*.py")]
    named = {name for file in files for name in _MODULE.findall(file.read_text(encoding="utf-8"))}
    ours = {name for name in named if name.split(".")[0] in ("actors", "app", "cluster", "tests")}
    assert {"cluster.deployment.callback_probe", "actors.self_test", "app.web", "cluster"} <= ours
    assert [name for name in sorted(ours) if importlib.util.find_spec(name) is None] == []
