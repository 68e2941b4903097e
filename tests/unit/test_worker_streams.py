"""A full disk ends no process of Ray: what cannot be written to its log is lost."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys

import pytest

from cluster.node.worker_streams import LossyStream, let_writes_fail
from cluster.ray_variables import NODE_VARIABLES


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_full_disk_does_not_take_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", FullDisk())
    monkeypatch.setattr(sys, "stderr", FullDisk())
    with pytest.raises(OSError, match="No space"):
        sys.stdout.write(":job_id:01000000")
    let_writes_fail()
    sys.stdout.write(":job_id:01000000")
    sys.stdout.flush()
    sys.stderr.writelines(["one", "two"])


def test_what_can_be_written_is() -> None:
    stream = io.StringIO()
    lossy = LossyStream(stream)
    lossy.writelines(["one", "two"])
    lossy.flush()
    assert stream.getvalue() == "onetwo"
    assert lossy.writable()


def test_the_nodes_name_the_function() -> None:
    module, _, name = NODE_VARIABLES["__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is let_writes_fail
