"""Two machines with a slow cable between them: a head with a backend, and one that lends a simulated GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.simulated_device import OPENER
from tests.hosts.cable import Cable
from tests.hosts.lab import Network, in_namespace
from tests.hosts.machines import HERE, Machine, eventually

_HEAD, _GPU = "10.79.0.1", "10.79.0.2"


@dataclass
class LinkLab:
    """The machines; both are up, and the detector is ready.

    Attributes:
        head: the head's machine, where the backend is.
        gpu: the machine that lends the device.
    """

    head: Machine
    gpu: Machine

    def images_per_s(self, wire: str, num_images: int) -> dict[str, float | str]:
        """Let a backend on the head's machine stream photos, and return what `stream_over_link` prints."""
        variables = {
            "RAYFACE_CLUSTER__ADDRESS": "head:6379",
            "RAYFACE_CLIENT__WIRE": wire,
            # Both machines are this one: the detector would find the pixels in memory and not on the cable.
            "RAYFACE_CLIENT__MAX_SHARED_BYTES": "0",
        }
        done = subprocess.run(
            [
                *self.head.prefix,
                "env",
                *(f"{name}={value}" for name, value in (self.head.variables | variables).items()),
                sys.executable,
                "-m",
                "tests.hosts.stream_over_link",
                str(num_images),
            ],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}\n{self.gpu.said('join')[-3000:]}"
        words = done.stdout.split()
        return {
            "images_per_s": float(words[0]),
            "num_faces": float(words[1]),
            "wire": words[2],
            "mbit_s": float(words[3]),
        }


@contextmanager
def link_lab(
    make_machine: Callable[..., Machine], folder: Path, mbit_s: float, delay_ms: float
) -> Iterator[LinkLab]:
    """Make the machines and the cable, and end them.

    Args:
        make_machine: makes a machine's ports and folders.
        folder: for files of the test.
        mbit_s: speed of each direction of the cable.
        delay_ms: what each direction takes longer.
    """
    network = Network()
    cable: Cable | None = None
    machines: list[Machine] = []
    try:
        one, other = network.machine("head"), network.machine("gpu")
        cable = Cable(one, f"{_HEAD}/24", other, f"{_GPU}/24")
        cable.order(mbit_s=mbit_s, delay_ms=delay_ms)
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{_HEAD} head\n{_GPU} gpu\n")
        device = {"RAYFACE_DETECTOR__OPENER": OPENER, "PYTHONPATH": str(HERE)}
        ports = {
            "RAYFACE_HEAD__GCS_PORT": "6379",
            "RAYFACE_HEAD__FIRST_PORT": "6380",
            "RAYFACE_HEAD__FIRST_WORKER_PORT": "10002",
        }
        head = make_machine(**ports, **device)
        head.prefix = in_namespace(one, hosts, "head")
        gpu = make_machine(RAYFACE_JOIN__FIRST_PORT="7380", RAYFACE_JOIN__FIRST_WORKER_PORT="11002", **device)
        gpu.prefix = in_namespace(other, hosts, "gpu")
        machines = [head, gpu]
        head.start("head", "head", "--address", "head")
        gpu.start("join", "join", "head:6379", "--address", "gpu", "--device", "directml:911", "--wait")
        made = LinkLab(head, gpu)
        eventually(
            lambda: head.run("place", "--address", "head:6379").returncode == 0,
            240,
            lambda: head.said("head") + gpu.said("join")[-3000:],
        )
        yield made
    finally:
        for machine in reversed(machines):
            machine.close()
        if cable is not None:
            cable.close()
        network.close()
