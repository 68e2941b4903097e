"""Hints from around this machine: Docker, WSL, firewalls. They explain what a closed port only shows."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from cluster.doctor.findings import Finding, mind, ok

_ROOT = Path("/")
_DOCKER_DESKTOP = ("com.docker.backend.exe", "docker desktop.exe", "com.docker.backend")


def docker(root: Path = _ROOT) -> Iterator[Finding]:
    """Whether this is a container or has an engine beside it: names and ports then mean other things."""
    release = platform.release().lower()
    desktop = " of Docker Desktop" if "linuxkit" in release or "microsoft" in release else ""
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        yield ok(
            "docker",
            f"this is a container{desktop}: others reach it at published ports only, and by a name that must "
            "mean this machine on both sides",
        )
    elif "microsoft" in release:
        yield mind(
            "docker",
            "this is Linux in Windows (WSL), whose address other machines do not reach",
            "Run the head in Docker with published ports, or let WSL use the host's network "
            "(networkingMode=mirrored in .wslconfig).",
        )
    elif _runs(_DOCKER_DESKTOP):
        yield ok(
            "docker",
            "Docker Desktop runs here: a container knows this machine by another address than it has itself, "
            "so ray-head and win-host belong into the hosts file; ports are published at RAYFACE_BIND",
        )


def firewall(root: Path = _ROOT) -> Iterator[Finding]:
    """Linux's usual ones; their rules are root's, so only that they are there. Windows' is elsewhere."""
    if sys.platform == "win32":
        return
    if _says(root / "etc/ufw/ufw.conf", "enabled=yes"):
        yield ok("firewall", "ufw is on; the ports of the README must be let in (`ufw allow`)")
    if (root / "run/firewalld").exists():
        yield ok(
            "firewall", "firewalld is on; the ports of the README must be let in (`firewall-cmd --add-port`)"
        )


def is_secret_of_container(path: Path) -> bool:
    """Docker shows a secret with the modes of the host's file, which nobody inside can change."""
    return os.fspath(path).startswith("/run/secrets/")


def _says(file: Path, word: str) -> bool:
    try:
        return word in file.read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return False


def _runs(names: tuple[str, ...]) -> bool:
    return any((each.info["name"] or "").lower() in names for each in psutil.process_iter(["name"]))
