"""Debian systems in a folder, made of Debian's own packages, with the package settings of this machine."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.hosts.lab import sh


def make_system(root: Path, suite: str, *packages: str) -> None:
    """Install a minimal Debian and these packages into a folder; takes about a minute.

    The system gets this machine's certificates and pip configuration, so its pip finds the same packages.
    """
    chosen = ",".join(("ca-certificates", *packages))
    sh("debootstrap", "--variant=minbase", f"--include={chosen}", suite, root, *_mirror(), timeout_s=900)
    for file in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf", "/etc/hosts"):
        _copy(Path(file), root)
    (root / "etc" / "pip.conf").write_text(_pip_configuration(root))


def in_system(root: Path, *command: str) -> list[str]:
    """The command that runs another one as root of that system; its processes and mounts end with it."""
    prepare = f'mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && exec chroot {root} "$@"'
    namespaces = ("--mount", "--pid", "--fork", "--kill-child")
    return ["unshare", *namespaces, "sh", "-c", prepare, "sh", *command]


def _mirror() -> list[str]:
    """The address from which this machine gets its Debian packages; empty leaves it to debootstrap."""
    for name in ("sources.list.d/debian.sources", "sources.list"):
        file = Path("/etc/apt") / name
        text = file.read_text() if file.is_file() else ""
        if found := re.search(r"^(?:URIs:|deb )\s*(?:\[.*?\] )?(\S+)", text, re.M):
            return [found[1]]
    return []


def _pip_configuration(root: Path) -> str:
    """Write this machine's pip configuration as one file; copy each file that it names into the system."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    lines = ["[global]"]
    for line in told.stdout.splitlines():
        name, _, quoted = line.partition("=")
        if not name.startswith("global."):
            continue  # of one command, or a variable, which the system's processes inherit
        words = str(ast.literal_eval(quoted)).split()
        for word in words:
            _copy(Path(word), root)
        # The first value stands beside the name: pip 23.0 takes a path on the next line for a wrong one.
        lines.append(f"{name.removeprefix('global.')} = " + "\n    ".join(words))
    return "\n".join(lines) + "\n"


def _copy(file: Path, root: Path) -> None:
    if file.is_absolute() and file.is_file():
        target = root / str(file).lstrip(os.sep)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
