"""The doctor's checks of this machine alone: they need no cluster, and change nothing.

They also run on every machine of a cluster, as a small Ray task: a doctor sees both sides of the wire.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from actors.device import Device
from actors.ownership import DeviceLock
from actors.session import ProviderNames, available_providers
from actors.settings import DetectorSettings
from cluster.doctor import platform_hints
from cluster.node.checks import check_model, check_token
from cluster.node.contract import DEVICES_VARIABLE
from cluster.node.findings import Finding, ok, warn, wrong
from cluster.ray_variables import NODE_PROCESS_NAMES
from cluster.settings import NodeSettings, Settings, load_settings, own_config

_RUNTIMES = ("onnxruntime", "onnxruntime-directml", "onnxruntime-gpu")
_MIN_MEMORY_BYTES = 1_000_000_000
#: Ray gives out no more space on a disk that is fuller than the first share; the second is worth a look.
_FULL, _NEARLY_FULL = 0.95, 0.9


def facts() -> dict[str, Any]:
    """Versions and clock of this machine, as JSON-ready values to compare with another machine's."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "ray": _version("ray"),
        "rayface": _version("rayface"),
        "onnxruntime": {name: found for name in _RUNTIMES if (found := _version(name))},
        "time": time.time(),
    }


def examine_here(detector: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Examine a machine of a cluster by its own settings; runs there as a Ray task.

    Args:
        detector: the settings with which the asking machine would place a detector, as JSON-ready values;
            None takes this machine's own.

    Returns:
        `facts`, and `findings` as JSON-ready values.
    """
    lent = os.environ.get(DEVICES_VARIABLE)
    role = "join" if lent else "head"
    settings = load_settings(own_config("windows.toml" if lent else "head.toml"))
    if detector is not None:
        settings = settings.model_copy(update={"detector": DetectorSettings.model_validate(detector)})
    found = examine(settings, lent.split(",") if lent else (), role, needs_model=bool(lent))
    return {"facts": facts(), "findings": [each.as_dict() for each in found]}


def examine(
    settings: Settings, devices: Sequence[str] = (), role: str = "head", *, needs_model: bool = True
) -> list[Finding]:
    """Make every check of this machine.

    Args:
        settings: of this machine.
        devices: those that it lends, or would lend.
        role: "head" or "join": says which ports and folders it needs.
        needs_model: whether this machine ever looks at photos itself.
    """
    node: NodeSettings = settings.join if role == "join" else settings.head
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "python": _python_and_ray,
        "onnxruntime": _onnxruntime,
        "token": check_token,
        "model": lambda: [check_model(settings.detector, is_needed=needs_model)],
        "provider": lambda: _providers(devices, settings.detector.opener),
        "owner": lambda: _owners(devices, settings.join.node_lock if role == "join" else ""),
        "adapters": lambda: platform_hints.adapters(devices),
        "session": platform_hints.session,
        "docker": platform_hints.docker,
        "firewall": lambda: (
            *(platform_hints.windows_firewall() if devices else ()),
            *platform_hints.linux_firewall(),
        ),
        "memory": _memory,
        "object store": lambda: _object_store(node),
        "disk": lambda: _disk(node),
    }
    found: list[Finding] = []
    for name, check in checks.items():
        try:
            found += check()
        except Exception as error:
            # A check that fails must not hide what the others find.
            found.append(warn(name, f"could not be checked: {error!r}", "Please report this."))
    return found


def _python_and_ray() -> Iterator[Finding]:
    ours = platform.python_version()
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        yield wrong("python", f"Python {ours}, which rayface does not support", "Use Python 3.11 to 3.14.")
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
        )
    else:
        yield ok("ray", f"Ray {installed}, rayface {_version('rayface')}")


def _onnxruntime() -> Iterator[Finding]:
    here = {name: found for name in _RUNTIMES if (found := _version(name))}
    names = ", ".join(f"{name} {found}" for name, found in here.items()) or "none"
    if len(here) > 1:
        yield wrong(
            "onnxruntime",
            f"{names}: they share one folder, and one hides the other's providers",
            f"Run pip uninstall -y {' '.join(here)}, then install one again: onnxruntime-directml on "
            "Windows, onnxruntime elsewhere.",
        )
    elif not here:
        yield wrong("onnxruntime", "it is not installed", "Set rayface up again: `python3 start.py`.")
    else:
        yield ok("onnxruntime", names)


def _providers(devices: Sequence[str], opener: str | None) -> Iterator[Finding]:
    if not devices:
        return
    if opener is not None:
        yield ok("provider", f"{opener} opens the device; the providers of onnxruntime do not matter")
        return
    there = available_providers()
    for device in devices:
        wanted = ProviderNames[Device.parse(device).provider]
        if wanted in there:
            yield ok("provider", f"{device} needs {wanted}; this onnxruntime has {', '.join(there)}")
        else:
            yield wrong(
                "provider",
                f"{device} needs {wanted}; this onnxruntime has only {', '.join(there)}",
                "On Windows, install onnxruntime-directml and no onnxruntime beside it.",
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
            )
        elif holder.is_alive():
            yield ok("owner", f"{name} belongs to {holder}")
        else:
            # Nothing to worry about: the lock itself ended with its process.
            yield ok("owner", f"nobody has {name}; its record still names {holder}, who is gone")


def _memory() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    free = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free"
    if memory.available < _MIN_MEMORY_BYTES:
        yield warn("memory", free, "End other programs: Ray ends its own processes when memory runs out.")
    else:
        yield ok("memory", free)


def _object_store(node: NodeSettings) -> Iterator[Finding]:
    """The room for Ray's object store: shared memory on Linux, elsewhere the folder of Ray's session."""
    wanted, shared = node.object_store_bytes, Path("/dev/shm")
    is_shared = sys.platform == "linux" and shared.is_dir()
    folder = shared if is_shared else _session_folder(node)
    usage = shutil.disk_usage(folder)
    full = 1 - usage.free / max(1, usage.total)
    evidence = (
        f"{folder} has {usage.free / 1e6:.0f} MB free of {usage.total / 1e6:.0f}; "
        f"Ray's object store may have {wanted / 1e6:.0f} MB"
    )
    more = "give it more (docker: shm_size)" if is_shared else "name another folder with temp_dir"
    if full > _FULL:
        yield wrong("object store", f"{evidence}: it is full", f"Remove what fills it, or {more}.")
    elif full > _NEARLY_FULL:
        yield warn("object store", f"{evidence}: it is nearly full", f"Remove what fills it, or {more}.")
    elif usage.total < wanted or (usage.free < wanted and not _ray_runs_here()):
        # If Ray runs here already, its store is part of what is used.
        advice = "or set object_store_bytes; Ray would put its store on the disk, which is slow."
        yield warn("object store", f"{evidence}: that does not fit", f"{more[0].upper()}{more[1:]}, {advice}")
    else:
        yield ok("object store", evidence)


def _disk(node: NodeSettings) -> Iterator[Finding]:
    folder = _session_folder(node)
    usage = shutil.disk_usage(folder)
    full = 1 - usage.free / max(1, usage.total)
    evidence = f"{folder} is {full:.0%} full"
    advice = "Make room there, or name another folder with head.temp_dir or join.temp_dir."
    if full > _FULL:
        yield wrong(
            "disk", f"{evidence}: Ray gives out no more space above {_FULL:.0%}, and its logs end", advice
        )
    elif full > _NEARLY_FULL:
        yield warn("disk", f"{evidence}: Ray gives out no more space above {_FULL:.0%}", advice)
    else:
        yield ok("disk", evidence)


def _session_folder(node: NodeSettings) -> Path:
    """The folder of Ray's session, or the nearest folder above it that exists."""
    folder = (node.temp_dir or Path(tempfile.gettempdir())).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _ray_runs_here() -> bool:
    return any(each.info["name"] in NODE_PROCESS_NAMES for each in psutil.process_iter(["name"]))


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
