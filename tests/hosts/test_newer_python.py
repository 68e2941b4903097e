"""The unit tests under the Python of Debian 13, which is newer than the oldest one that we allow."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.hosts.debian import in_system, make_system
from tests.hosts.lab import need
from tests.hosts.machines import HERE, tell

#: Debian 13, and the first two numbers of its Python's version.
_SUITE, _PYTHON = "trixie", "3.13"
_NOT_CARRIED = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", ".coverage", "dist", "build")


def test_the_unit_tests_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The unit tests pass on a bare Debian 13, started by the command that a newcomer would type."""
    need("python", "debootstrap", "unshare", "chroot")
    root, begun = tmp_path / "debian", time.monotonic()
    try:
        make_system(root, _SUITE, "python3", "python3-pip")
        made_s = time.monotonic() - begun
        shutil.copytree(HERE, root / "checkout", ignore=shutil.ignore_patterns(*_NOT_CARRIED))
        line = 'cd /checkout && python3 --version && exec python3 start.py test "$@"'
        unit = ("-q", "-p", "no:cacheprovider", "-m", "not live and not hosts and not chaos")
        done = subprocess.run(
            in_system(root, "sh", "-c", line, "sh", *unit),
            env=os.environ | {"HOME": "/root"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-20000:]
    assert f"Python {_PYTHON}." in done.stdout
    passed = done.stdout.strip().splitlines()[-1]
    took_s = time.monotonic() - begun
    tell(capsys, f"Python {_PYTHON}: {passed}; {took_s:.0f} s in all, {made_s:.0f} s of it for Debian")
