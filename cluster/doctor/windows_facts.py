"""What only Windows can tell: graphics adapters, the session, the firewall. Elsewhere these say nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from actors.device import Device
from cluster.doctor.findings import Finding, mind, ok

_DISPLAYS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_ASK_TIMEOUT_S = 20


def adapters(devices: Sequence[str] = ()) -> Iterator[Finding]:
    """By the registry; a device's number counts the adapters in DirectX's own order, which may be another."""
    if sys.platform != "win32":
        return
    names = _adapter_names()
    lent = [parsed for each in devices if (parsed := Device.parse(each)).provider == "directml"]
    beyond = [str(each) for each in lent if each.number >= len(names)]
    if not names and not lent:
        return
    if not names:
        yield mind("adapters", "Windows lists no graphics adapter", "Install the GPU's driver.")
    elif beyond:
        yield mind(
            "adapters",
            f"{', '.join(beyond)} is counted from 0, and Windows lists {len(names)}: {'; '.join(names)}",
            "Name a device that is there: --device directml:0 is the first.",
        )
    else:
        yield ok("adapters", "; ".join(names))


def session() -> Iterator[Finding]:
    """Services run in session 0, where some drivers show no GPU (DirectML#222)."""
    if sys.platform != "win32":
        return
    import ctypes

    number = ctypes.c_ulong()
    ctypes.windll.kernel32.ProcessIdToSessionId(os.getpid(), ctypes.byref(number))
    if number.value == 0:
        yield mind(
            "session",
            "this runs in session 0, where some drivers show no GPU",
            "Let it join at log-on: `rayface install HEAD` without --at-boot.",
        )
    else:
        yield ok("session", f"session {number.value}")


def firewall() -> Iterator[Finding]:
    """Whether there is a rule of the name that the README gives it."""
    if sys.platform != "win32":
        return
    command = ["netsh", "advfirewall", "firewall", "show", "rule", "name=rayface"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield mind("firewall", f"it could not be asked: {error}", "Let the ports of the README in.")
        return
    if done.returncode == 0 and "rayface" in done.stdout:
        yield ok("firewall", "it has a rule called rayface")
    else:
        yield mind(
            "firewall",
            "it has no rule called rayface, so the head may not reach this machine",
            "Add one, as administrator; the README has the command.",
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
