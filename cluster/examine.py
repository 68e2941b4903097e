"""What can be found out about this machine by itself: no cluster is needed, and nothing is changed.

The same runs on every machine of a cluster, as a small Ray task; so a doctor sees both sides of the wire.
"""

from __future__ import annotations

import importlib.metadata as packages
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from actors import models
from actors.device import Device
from actors.ownership import DeviceLock
from actors.session import ProviderNames, available_providers
from cluster import windows_facts
from cluster.detector_actor import DEVICES_VARIABLE
from cluster.errors import ConfigurationError
from cluster.findings import Finding, mind, ok, wrong
from cluster.settings import NodeSettings, Settings, load_settings, own_config
from cluster.token import read_token, token_file

_RUNTIMES = ("onnxruntime", "onnxruntime-directml", "onnxruntime-gpu")
_FEW_BYTES = 1_000_000_000
#: Ray gives out no more space on a disk that is fuller than this.
_FULL = 0.95
_SETUP = "Five minutes"
_TWO = "Two machines"


def facts() -> dict[str, Any]:
    """What this machine is, as values that can be compared with another's."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "ray": _version("ray"),
        "rayface": _version("rayface"),
        "onnxruntime": {name: found for name in _RUNTIMES if (found := _version(name))},
        "time": time.time(),
    }


def examine_here() -> dict[str, Any]:
    """What a machine of a cluster finds out about itself, by its own settings; runs there as a Ray task.

    Returns:
        `facts`, and `findings` as JSON-ready values.
    """
    lent = os.environ.get(DEVICES_VARIABLE)
    role = "join" if lent else "head"
    settings = load_settings(own_config("windows.toml" if lent else "head.toml"))
    found = examine(settings, lent.split(",") if lent else (), role)
    return {"facts": facts(), "findings": [each.as_dict() for each in found]}


def examine(settings: Settings, devices: Sequence[str] = (), role: str = "head") -> list[Finding]:
    """Every check of this machine.

    Args:
        settings: of whoever asks.
        devices: that it lends, or would.
        role: "head" or "join": which ports and folders it needs.
    """
    node: NodeSettings = settings.join if role == "join" else settings.head
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python_and_ray,
        _onnxruntime,
        _token,
        lambda: _model(settings),
        lambda: _providers(devices),
        lambda: _owners(devices, settings.join.node_lock if role == "join" else ""),
        windows_facts.adapters,
        windows_facts.session,
        windows_facts.firewall,
        lambda: _memory(node),
        lambda: _disk(node),
    ]
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except Exception as error:
            # A check that fails must not hide what the others find.
            name = getattr(check, "__name__", "a check").strip("_<>")
            found.append(mind(name, f"could not be checked: {error!r}", "Please report it."))
    return found


def _python_and_ray() -> Iterator[Finding]:
    ours = platform.python_version()
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        yield wrong("python", f"Python {ours}", "Use Python 3.11 to 3.14.", _SETUP)
    else:
        yield ok("python", f"Python {ours} on {platform.system()}")
    wanted = next(
        (found[1] for each in _requirements() if (found := re.match(r"ray\[default\]==([\d.]+)", each))), ""
    )
    installed = _version("ray")
    if wanted and installed != wanted:
        yield wrong(
            "ray",
            f"Ray {installed or 'is not installed'}, and this rayface needs {wanted}",
            f'Install it: pip install "ray[default]=={wanted}"; every machine needs the same.',
            _SETUP,
        )
    else:
        yield ok("ray", f"Ray {installed}, rayface {_version('rayface')}")


def _onnxruntime() -> Iterator[Finding]:
    here = {name: found for name in _RUNTIMES if (found := _version(name))}
    said = ", ".join(f"{name} {found}" for name, found in here.items()) or "none"
    if len(here) > 1:
        yield wrong(
            "onnxruntime",
            f"{said}: they share one folder, and one hides the other's providers",
            f"pip uninstall -y {' '.join(here)}, then install one again: onnxruntime-directml on Windows, "
            "onnxruntime elsewhere.",
            _TWO,
        )
    elif not here:
        yield wrong("onnxruntime", "it is not installed", "Set rayface up again: `python3 start.py`.", _SETUP)
    else:
        yield ok("onnxruntime", said)


def _token() -> Iterator[Finding]:
    try:
        read_token()
    except ConfigurationError as error:
        yield wrong("token", str(error).partition(". ")[0] + ".", str(error).partition(". ")[2], _TWO)
        return
    path = token_file()
    if os.environ.get("RAY_AUTH_TOKEN"):
        yield ok("token", "from RAY_AUTH_TOKEN")
    elif sys.platform != "win32" and path.stat().st_mode & 0o004:
        yield mind("token", f"{path} can be read by every user of this machine", f"chmod 600 {path}", _TWO)
    else:
        yield ok("token", f"in {path}")


def _model(settings: Settings) -> Iterator[Finding]:
    state, path = models.state(settings.detector)
    named = settings.detector.model if settings.detector.model_path is None else str(path)
    if state == "altered":
        yield wrong(
            "model",
            f"{named} is not what was published: the sha256 of {path} is another",
            f"Remove that file; `rayface models fetch {settings.detector.model}` gets it again.",
            _SETUP,
        )
    elif state == "missing":
        yield mind(
            "model",
            f"{named} is not here",
            f"It is fetched at its first use; `rayface models fetch {settings.detector.model}` does it now.",
            _SETUP,
        )
    else:
        yield ok("model", f"{named} is here, as published" if state == "whole" else f"{named} is your own")


def _providers(devices: Sequence[str]) -> Iterator[Finding]:
    if not devices:
        return
    there = available_providers()
    for device in devices:
        wanted = ProviderNames[Device.parse(device).provider]
        if wanted in there:
            yield ok("provider", f"{device} needs {wanted}, which this onnxruntime has")
        else:
            yield wrong(
                "provider",
                f"{device} needs {wanted}; this onnxruntime has only {', '.join(there)}",
                "On Windows install onnxruntime-directml, and nothing beside it.",
                _TWO,
            )


def _owners(devices: Sequence[str], node_lock: str) -> Iterator[Finding]:
    locks = [Device.parse(each).lock_name for each in devices]
    joined = bool(node_lock) and DeviceLock(node_lock).is_used()
    for name in [*locks, *([node_lock] if node_lock else [])]:
        holder = DeviceLock(name).holder()
        if holder is None:
            if name in locks:
                yield ok("owner", f"nobody has {name}")
        elif holder.is_alive() and name in locks and not joined:
            yield wrong(
                "owner",
                f"{name} belongs to {holder}, and no `rayface join` runs here",
                "End that process, or lend another device. If a join has just ended, wait half a minute.",
                "When something fails",
            )
        elif holder.is_alive():
            yield ok("owner", f"{name} belongs to {holder}")
        else:
            yield mind(
                "owner",
                f"the record of {name} speaks of {holder}, who is gone",
                "Nothing: the lock itself went with its process.",
            )


def _memory(node: NodeSettings) -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    free = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free"
    if memory.available < _FEW_BYTES:
        yield mind("memory", free, "End other programs; Ray ends its own processes when memory runs out.")
    else:
        yield ok("memory", free)
    shared = Path("/dev/shm")
    if sys.platform == "linux" and shared.is_dir():
        room = shutil.disk_usage(shared)
        wanted = node.object_store_bytes
        said = f"/dev/shm has {room.free / 1e6:.0f} MB free of {room.total / 1e6:.0f}; Ray's object store"
        # A node that runs has its store in there already.
        if room.free < wanted and not _ray_runs_here():
            yield wrong(
                "object store",
                f"{said} wants {wanted / 1e6:.0f} MB",
                "Remove what fills /dev/shm, or give it more (docker: shm_size), or set object_store_bytes.",
                "When something fails",
            )
        else:
            yield ok("object store", f"{said} may have {wanted / 1e6:.0f} MB")


def _disk(node: NodeSettings) -> Iterator[Finding]:
    folder = node.temp_dir or Path(tempfile.gettempdir())
    while not folder.exists():
        folder = folder.parent
    room = shutil.disk_usage(folder)
    full = 1 - room.free / room.total
    said = f"{folder} is {full:.0%} full"
    if full > _FULL:
        yield wrong(
            "disk",
            f"{said}: Ray gives out no more space above {_FULL:.0%}, and its logs end",
            "Make room there, or name another folder with head.temp_dir or join.temp_dir.",
            "When something fails",
        )
    else:
        yield ok("disk", said)


def _ray_runs_here() -> bool:
    return any(each.info["name"] in ("raylet", "raylet.exe") for each in psutil.process_iter(["name"]))


def _requirements() -> list[str]:
    try:
        return packages.requires("rayface") or []
    except packages.PackageNotFoundError:
        return []


def _version(name: str) -> str:
    try:
        return packages.version(name)
    except packages.PackageNotFoundError:
        return ""
