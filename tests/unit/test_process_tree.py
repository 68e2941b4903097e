"""A process tree ends with all that it started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.node.process_tree import ProcessTree


@pytest.mark.skipif(sys.platform != "linux", reason="Windows has Job Objects for this")
def test_a_process_whose_environment_is_lost_is_ended_too(tmp_path: Path) -> None:
    """Ray's agents write over their environment, where the mark of the tree is, when they set their title."""
    starts = "import subprocess as s; print(s.Popen(['sleep', '600'], env={}).pid, flush=True)"
    output = tmp_path / "output"
    with output.open("wb") as file:
        tree = ProcessTree([sys.executable, "-c", starts], dict(os.environ), file)
    psutil.Process(tree.pid).wait(30)
    orphan = psutil.Process(int(output.read_text()))
    other = subprocess.Popen(["sleep", "600"])
    try:
        assert tree.end(1.0) == ["sleep"]
        psutil.wait_procs([orphan], timeout=5)
        assert not orphan.is_running()
        assert other.poll() is None, "a process outside the tree was ended"
    finally:
        other.kill()
        other.wait()
