"""Outcomes for machines: a failure is never an empty list of faces (I1), and a missing part is said."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from threading import Thread
from typing import Any, cast

import pytest
from click.testing import CliRunner

from actors.faces import Damage, Detected, Failed, Failure, Outcome, Rejected, Rejection, Stamp
from app.web import handler
from cluster.cli.detect_output import _row
from cluster.cli.main import cli

STAMP = Stamp("a detector")
WHOLE = Detected(stamp=STAMP, faces=(), width=4, height=3)
PARTLY = Detected(stamp=STAMP, faces=(), width=4, height=3, damaged=Damage(0.999))
REJECTED = Rejected(stamp=STAMP, reason=Rejection.DAMAGED, detail="half")
FAILED = Failed(stamp=STAMP, reason=Failure.BUSY, detail="full")


@pytest.mark.parametrize(
    ("outcome", "faces", "damaged"),
    [(WHOLE, [], None), (PARTLY, [], {"decoded_share": 0.999}), (REJECTED, None, None), (FAILED, None, None)],
)
def test_faces_are_null_unless_the_photo_was_searched(outcome: Outcome, faces: Any, damaged: Any) -> None:
    row = json.loads(json.dumps(outcome.as_dict()))
    assert row["faces"] == faces
    assert row["damaged"] == damaged
    assert row.keys() == WHOLE.as_dict().keys()


@pytest.mark.parametrize(("outcome", "code"), [(PARTLY, 200), (REJECTED, 422), (FAILED, 503)])
def test_http_says_the_same(outcome: Outcome, code: int) -> None:
    class Service:
        def faces_of(self, photo: bytes) -> Outcome:
            return outcome

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(cast(Any, Service()), cast(Any, None)))
    serving = Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        asking = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        asking.request("POST", "/faces", b"a photo")
        answer = asking.getresponse()
        assert answer.status == code
        assert json.loads(answer.read()) == outcome.as_dict()
        asking.close()
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def test_the_table_marks_a_damaged_photo() -> None:
    assert "a.jpg  (damaged: 99 % of it searched)" in _row("a.jpg", PARTLY).plain
    assert "damaged" not in _row("a.jpg", WHOLE).plain


@pytest.mark.parametrize(("counts", "code"), [({"detected": 2, "damaged": 1}, 1), ({"detected": 2}, 0)])
def test_a_damaged_photo_makes_detect_end_with_1(
    counts: dict[str, int], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def detect(*_: object, **__: object) -> Counter[str]:
        return Counter(counts)

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr("cluster.cli.detect.detect", detect)
    monkeypatch.setattr("cluster.cli.kept_cluster.find_suitable", lambda *_: (None, ""))
    monkeypatch.setattr("cluster.cli.early_start.starting_early", lambda *_: nullcontext())
    assert CliRunner().invoke(cli, ["detect", str(tmp_path / "a.jpg")]).exit_code == code
