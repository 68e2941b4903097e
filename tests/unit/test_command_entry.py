"""Ctrl-C while a command still loads: one word and code 130, no traceback."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
#: Presses Ctrl-C at the moment at which Python loads the named module, then runs the command.
INTERRUPTED = """
import importlib.abc, signal, sys

module = sys.argv.pop(1)

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
import runpy
runpy.run_module("cluster", run_name="__main__")
"""


def interrupted(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that is interrupted while it loads that module."""
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("cluster.cli.main", ["--version"]),
        ("click", ["status"]),
        ("cluster.cli.bench", ["bench"]),
        ("cluster.settings", ["bench"]),
        ("cluster.cli.photo_paths", ["detect", "photo.jpg"]),
        ("cluster.cli.up", ["down"]),
    ],
)
def test_ctrl_c_while_a_command_loads_stops_it(module: str, arguments: list[str]) -> None:
    done = interrupted(module, *arguments)
    assert done.stderr.strip() == "Stopped."
    assert done.returncode == 130
    assert done.stdout == ""


def test_the_commands_begin_where_ctrl_c_is_heard() -> None:
    """The program `rayface` begins there, and nothing that takes long is loaded before it."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"rayface": "cluster.cli.entry:main"}
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, cluster.cli.entry; print(*sorted(sys.modules), sep='\\n')"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()
    ours = [name for name in loaded if name.partition(".")[0] in ("actors", "click", "cluster")]
    assert ours == ["cluster", "cluster.cli", "cluster.cli.entry"]
