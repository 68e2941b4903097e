"""Hints from this machine's platform: Docker, WSL, firewalls, graphics adapters, the Windows session.

They explain why a port is closed. A hint that is about another system than this one yields nothing.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from actors.device import Device
from cluster.node.findings import Finding, ok, warn

_ROOT = Path("/")
_DISPLAYS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_ASK_TIMEOUT_S = 20
_DOCKER_DESKTOP = ("com.docker.backend.exe", "docker desktop.exe", "com.docker.backend")


def docker(root: Path = _ROOT) -> Iterator[Finding]:
    """Whether this is a container, WSL, or has Docker Desktop: names and ports then mean other things."""
    release = platform.release().lower()
    desktop = " of Docker Desktop" if "linuxkit" in release or "microsoft" in release else ""
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        yield ok(
            "docker",
            f"this is a container{desktop}: other machines reach it only at published ports, and by a name "
            "that must mean this machine on both sides",
        )
    elif "microsoft" in release:
        yield warn(
            "docker",
            "this is Linux in Windows (WSL), and other machines do not reach its address",
            "Run the head in Docker with published ports, or let WSL use the host's network "
            "(networkingMode=mirrored in .wslconfig).",
        )
    elif _runs(_DOCKER_DESKTOP):
        yield ok(
            "docker",
            "Docker Desktop runs here: a container knows this machine by another address than it has itself, "
            "so ray-head and win-host must stand in the hosts file; ports are published at RAYFACE_BIND",
        )


def linux_firewall(root: Path = _ROOT) -> Iterator[Finding]:
    """Whether ufw or firewalld is on. Only root can read their rules, so nothing is said about those."""
    if sys.platform == "win32":
        return
    if _says(root / "etc/ufw/ufw.conf", "enabled=yes"):
        yield ok("firewall", "ufw is on; let in the ports of docs/two-machines.md (`ufw allow`)")
    if (root / "run/firewalld").exists():
        yield ok(
            "firewall",
            "firewalld is on; let in the ports of docs/two-machines.md (`firewall-cmd --add-port`)",
        )


def _says(file: Path, word: str) -> bool:
    try:
        return word in file.read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return False


def _runs(names: tuple[str, ...]) -> bool:
    return any((each.info["name"] or "").lower() in names for each in psutil.process_iter(["name"]))


def adapters(devices: Sequence[str] = ()) -> Iterator[Finding]:
    """The adapters in Windows' registry; DirectX may number them otherwise, so only the count is checked."""
    if sys.platform != "win32":
        return
    names = _adapter_names()
    lent = [parsed for each in devices if (parsed := Device.parse(each)).provider == "directml"]
    beyond = [str(each) for each in lent if each.number >= len(names)]
    if not names and not lent:
        return
    if not names:
        yield warn("adapters", "Windows lists no graphics adapter", "Install the GPU's driver.")
    elif beyond:
        yield warn(
            "adapters",
            f"{', '.join(beyond)} is counted from 0, and Windows lists {len(names)}: {'; '.join(names)}",
            "Name a device that is there: --device directml:0 is the first.",
        )
    else:
        yield ok("adapters", "; ".join(names))


def session() -> Iterator[Finding]:
    """Whether this runs in session 0, as services do; some drivers show no GPU there (DirectML#222)."""
    if sys.platform != "win32":
        return
    import ctypes

    number = ctypes.c_ulong()
    ctypes.windll.kernel32.ProcessIdToSessionId(os.getpid(), ctypes.byref(number))
    if number.value == 0:
        yield warn(
            "session",
            "this runs in session 0, where some drivers show no GPU",
            "Let it join at log-on: `rayface install HEAD` without --at-boot.",
        )
    else:
        yield ok("session", f"session {number.value}")


def windows_firewall() -> Iterator[Finding]:
    """Whether Windows' firewall has the rule that docs/two-machines.md adds, by its name."""
    if sys.platform != "win32":
        return
    command = ["netsh", "advfirewall", "firewall", "show", "rule", "name=rayface"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield warn("firewall", f"it could not be asked: {error}", "Let in the ports of docs/two-machines.md.")
        return
    if done.returncode == 0 and "rayface" in done.stdout:
        yield ok("firewall", "it has a rule called rayface")
    else:
        yield warn(
            "firewall",
            "it has no rule called rayface, so the head may not reach this machine",
            "Add one as administrator; docs/two-machines.md has the command.",
        )


def _adapter_names() -> list[str]:
    if sys.platform != "win32":
        return []
    import winreg

    names = []
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _DISPLAYS) as displays:
            for number in range(winreg.QueryInfoKey(displays)[0]):
                try:
                    with winreg.OpenKey(displays, winreg.EnumKey(displays, number)) as adapter:
                        name = winreg.QueryValueEx(adapter, "DriverDesc")[0]
                        names.append(f"{name} (driver {winreg.QueryValueEx(adapter, 'DriverVersion')[0]})")
                except OSError:
                    continue
    except OSError:
        return []
    return names
