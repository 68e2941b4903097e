"""Plants faults in a working cluster, and mends them as the doctor advises.

Each fault is a generator. It plants the fault and yields a look; then it does what the advice says, and
yields another look. A look is a function that runs the doctor and returns the doctor's findings.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from actors.models import cache_dir
from tests.chaos.device import tell
from tests.chaos.site import Site
from tests.hosts.lab import sh
from tests.hosts.machines import HERE, Machine, eventually

Findings = list[dict[str, Any]]
Look = Callable[[], Findings]
Planted = Generator[Look, None, None]

#: A Ray that rayface does not use, one version away from ours.
OTHER_RAY = "2.59.0"
QUARANTINE_S = 15.0


def doctor(machine: Machine, *arguments: str, **changes: str | None) -> Findings:
    """Run `rayface doctor --json` on that machine."""
    done = machine.run("doctor", *arguments, "--json", changes=changes)
    assert "Traceback" not in done.stderr, done.stderr
    findings: Findings = json.loads(done.stdout)
    verdicts = {each["verdict"] for each in findings}
    expected = 3 if "wrong" in verdicts else 1 if "warn" in verdicts else 0
    assert done.returncode == expected, (done.returncode, verdicts)
    return findings


def at_head(site: Site) -> Findings:
    """The findings of the doctor on the backend's machine."""
    return doctor(site.head, "--address", site.address)


def at_gpu(site: Site, machine: Machine | None = None, **changes: str | None) -> Findings:
    """The findings of the doctor on the machine with the GPU, or on another one in its place."""
    machine = machine or site.gpu
    # Outside the tests, every head has the same ports.
    heads = {
        name: value for name, value in site.head.variables.items() if "HEAD__" in name and "PORT" in name
    }
    return doctor(machine, site.address, "--device", f"directml:{machine.ports}", **{**heads, **changes})


def version_skew(site: Site) -> Planted:
    """A machine where another Ray was installed by hand."""
    folder = site.device / "other-ray"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    sh(*pip, folder, f"ray=={OTHER_RAY}", timeout_s=300)
    machine = site.another()
    yield lambda: at_gpu(site, machine, PYTHONPATH=f"{folder}{os.pathsep}{HERE}")
    shutil.rmtree(folder)
    yield lambda: at_gpu(site, machine, PYTHONPATH=f"{folder}{os.pathsep}{HERE}")


def missing_token(site: Site) -> Planted:
    """A new machine on which nobody has saved the token."""
    yield from _token(site, None)


def wrong_token(site: Site) -> Planted:
    """A machine that still has another cluster's token."""
    yield from _token(site, "0123456789abcdef" * 4)


def _token(site: Site, kept: str | None) -> Planted:
    machine = site.another()
    home = machine.folder / "home"
    changes: dict[str, str | None] = {
        "HOME": str(home),
        "RAY_AUTH_TOKEN": None,
        "RAYFACE_CACHE_DIR": str(cache_dir()),
    }
    if kept is not None:
        assert machine.run("token", "save", typed=f"{kept}\n", changes=changes).returncode == 0
    yield lambda: at_gpu(site, machine, **changes)
    token = site.head.variables["RAY_AUTH_TOKEN"]
    assert machine.run("token", "save", typed=f"{token}\n", changes=changes).returncode == 0
    yield lambda: at_gpu(site, machine, **changes)


def blocked_port(site: Site) -> Planted:
    """The GPU machine's firewall blocks connections to its object manager; connections from it still work."""
    rule = ["INPUT", "-p", "tcp", "--syn", "--dport", str(site.gpu.ports + 11), "-j", "DROP"]
    sh(*site.gpu.prefix, "iptables", "-A", *rule)
    try:
        yield lambda: [*at_gpu(site), *at_head(site)]
    finally:
        sh(*site.gpu.prefix, "iptables", "-D", *rule)
    yield lambda: [*at_gpu(site), *at_head(site)]


def silent_provider(site: Site) -> Planted:
    """The runtime opens the model on the CPU although the GPU was asked for, and says nothing."""
    tell(site.device, provider="CPUExecutionProvider")
    site.kill_actor()
    yield lambda: at_head(site)
    tell(site.device)
    yield lambda: at_head(site)


def lying_device(site: Site) -> Planted:
    """A GPU driver that computes nothing and reports no error."""
    tell(site.device, garbage="zeros")
    yield lambda: at_head(site)
    tell(site.device)
    yield lambda: at_head(site)


def second_owner(site: Site) -> Planted:
    """Another process of that machine already has the device open."""
    machine = site.another()
    name = f"directml-{machine.ports}"
    holds = f"from actors.ownership import DeviceLock as L; L({name!r}).acquire('an old worker'); input()"
    with subprocess.Popen([sys.executable, "-c", holds], cwd=HERE, stdin=subprocess.PIPE) as other:
        try:
            yield lambda: at_gpu(site, machine)
        finally:
            other.kill()
    yield lambda: at_gpu(site, machine)


def altered_model(site: Site) -> Planted:
    """The weights on the disk differ from the published ones."""
    machine = site.another()
    cache = machine.folder / "cache"
    shutil.copytree(cache_dir(), cache)
    weights = next((cache / "weights").glob("centerface*.onnx"))
    with weights.open("ab") as file:
        file.write(b"x")
    yield lambda: at_gpu(site, machine, RAYFACE_CACHE_DIR=str(cache))
    weights.unlink()
    # A package index cannot be reached from the namespace, but from this system it can.
    inside, machine.prefix = machine.prefix, ()
    done = machine.run("models", "fetch", "centerface", changes={"RAYFACE_CACHE_DIR": str(cache)})
    assert done.returncode == 0, done.stderr
    machine.prefix = inside
    yield lambda: at_gpu(site, machine, RAYFACE_CACHE_DIR=str(cache))


def full_object_store(site: Site) -> Planted:
    """The file system of Ray's object store is full."""
    machine = site.another()
    shared = machine.folder / "shm"
    shared.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", shared)
    try:
        inside = f'mount --bind {shared} /dev/shm; exec "$@"'
        machine.prefix = (*machine.prefix, "unshare", "--mount", "sh", "-c", inside, "sh")
        with (shared / "somebody's").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 204_000_000)
        yield lambda: at_gpu(site, machine)
        (shared / "somebody's").unlink()
        yield lambda: at_gpu(site, machine)
    finally:
        sh("umount", shared)


def head_gone(site: Site) -> Planted:
    """The backend's machine was switched off."""
    head = site.head.started[0]
    head.terminate()
    head.wait(60)
    done = site.head.run("status", "--address", site.address)
    assert done.returncode == 3, done
    assert "Traceback" not in done.stderr
    yield lambda: [*at_gpu(site), *at_head(site)]
    site.head.start("head again", "head", "--address", site.address.partition(":")[0])
    yield lambda: [*at_gpu(site), *at_head(site)]


def clock_skew(site: Site) -> Planted:
    """A machine whose clock somebody set by hand, to a wrong time."""
    machine = site.another()
    # Not faketime: under it Ray's own processes do not start.
    ahead = "import time\nright = time.time\ntime.time = lambda: right() + 90.0\n"
    (machine.folder / "sitecustomize.py").write_text(ahead)
    yield lambda: at_gpu(site, machine, PYTHONPATH=f"{machine.folder}{os.pathsep}{HERE}")
    yield lambda: at_gpu(site, machine)


def poison_photo(site: Site) -> Planted:
    """A photo on which the GPU's driver dies."""
    tell(site.device, poison=[7_000_003])
    file = site.call("poison", "interactive", 3, 7_000_000)
    eventually(lambda: any(row["number"] == 7_000_003 for row in site.answers(file)), 90, site.said)
    yield lambda: at_head(site)
    tell(site.device)
    yield lambda: at_head(site)


def mended(site: Site, plant: Callable[[Site], Planted]) -> contextlib.closing[Planted]:
    """The generator; it removes its fault at the end, also when the test fails."""
    return contextlib.closing(plant(site))


def bundle(machine: Machine, target: Path, **changes: str | None) -> int:
    """Run `rayface doctor --bundle`, and return the exit code."""
    return machine.run("doctor", "--bundle", str(target), changes=changes).returncode
