"""`rayface doctor` as a person types it: before a cluster exists, with a wrong address, for a program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from cluster.cli import doctor as doctor_command
from cluster.cli.doctor import doctor, listen, needed_ports
from cluster.deployment import joining
from cluster.doctor import doctor as rooms
from cluster.doctor.doctor import Doctor
from cluster.doctor.host import facts
from cluster.errors import ClusterUnavailable, ConfigurationError
from cluster.node import checks
from cluster.node.findings import Finding, Verdict, ok, wrong
from cluster.protocol.identity import identity
from cluster.settings import HeadSettings, JoinSettings, Settings, load_settings

PROOF = {"ok": True, "provider": "CPUExecutionProvider", "ms_per_image": 70.0, "best_batch": 1}


class Modules:
    """Stands in for the processes that the checks start by `python -m …`.

    Attributes:
        head: what the head answers; None: it refuses the token.
        device: what the self-test of a device says.
    """

    def __init__(self) -> None:
        ours = facts()
        self.head: dict[str, Any] | None = {
            "ray_version": ours["ray"],
            "python_version": ours["python"],
            "visited": {"7380": "", "7381": ""},
            "clock_skew_s": 0.5,
            "rayface": identity().as_dict(),
        }
        self.device = PROOF

    def run(self, module: str, *arguments: str, **options: Any) -> CompletedProcess[str]:
        answer = {"actors.self_test": self.device, "cluster.deployment.callback_probe": self.head}[module]
        if answer is None:
            return CompletedProcess(module, 1, "", "InvalidAuthToken")
        return CompletedProcess(module, 0, json.dumps(answer), "")


class NoCluster:
    """A connection that nobody lets in: what lies behind the head is not looked at."""

    def __init__(self, settings: Settings) -> None:
        pass

    async def open(self) -> None:
        raise ClusterUnavailable("The cluster is not asked in these tests.")


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Modules:
    """This machine is well, its device too; it has a token, and no head of its own."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)

    def none_here(settings: Any) -> str:
        raise ClusterUnavailable("No Ray cluster can be joined at 'auto'.")

    made = Modules()
    monkeypatch.setattr(rooms, "examine", lambda *_, **__: [ok("python", "Python 3.11.7")])
    monkeypatch.setattr(joining, "resolve", none_here)
    monkeypatch.setattr(checks, "run_module", made.run)
    monkeypatch.setattr("actors.ownership.machine_folder", lambda: tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    # Ports of its own, so that two runs of these tests on one machine do not meet.
    first = next(first for first in range(20_000 + os.getpid() % 50 * 100, 30_000, 100) if _are_free(first))
    monkeypatch.setenv("RAYFACE_JOIN__FIRST_PORT", str(first))
    monkeypatch.setenv("RAYFACE_JOIN__FIRST_WORKER_PORT", str(first + 20))
    return made


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(doctor, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit | ConfigurationError)
    return done


def _are_free(first: int) -> bool:
    """Whether nobody listens at the ports of a node whose first one this is."""
    with contextlib.ExitStack() as stack:
        try:
            for port in range(first, first + 60):
                stack.enter_context(socket.create_server(("", port)))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_before_a_cluster_exists() -> None:
    done = run()
    assert done.exit_code == 3
    assert "wrong head: No Ray cluster" in done.output
    assert "(docs/doctor.md#head)" in done.output
    assert "1 wrong, 0 worth a look, 1 well." in done.output


def test_without_any_cluster_named_all_may_be_well(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text('[fallback]\npolicy = "never"\n')
    done = run("--config", str(config))
    assert done.exit_code == 0, done.output
    assert "each program starts an embedded one" in done.output


def test_a_program_gets_json_and_nothing_else() -> None:
    done = run("--json")
    found = json.loads(done.stdout)
    assert [each["name"] for each in found] == ["python", "head"]
    assert {"verdict", "evidence", "advice", "link", "where"} <= set(found[0])
    assert done.exit_code == 3


@pytest.mark.parametrize("address", ["nosuch.invalid:6379", "host:", "host:70000", ":1"])
def test_an_address_that_nobody_has(address: str) -> None:
    done = run(address, "--device", "cpu:77", "--json")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert done.exit_code == 3
    assert found["head"]["verdict"] == "wrong"
    assert found["head"]["advice"]
    assert found["device"]["verdict"] == "ok", "the device is looked at all the same"


def test_a_port_where_nobody_listens() -> None:
    done = run(f"127.0.0.1:{free_port()}", "--device", "cpu:77")
    assert done.exit_code == 3
    assert "the head does not answer at" in done.output


def test_wrong_use_is_told_in_a_sentence(tmp_path: Path) -> None:
    """`rayface` itself makes exit code 2 of it."""
    for arguments in (["--config", str(tmp_path / "none.toml")], ["h:1", "--device", "cuda:0"]):
        assert isinstance(run(*arguments).exception, ConfigurationError)
    assert run("--listen", "x").exit_code == 2
    assert run("--no-such").exit_code == 2


def test_a_bundle_of_what_is_broken(tmp_path: Path) -> None:
    """JSON on standard output stays JSON."""
    target = tmp_path / "bundle.zip"
    done = run("--json", "--bundle", str(target))
    found = json.loads(done.stdout)
    assert "Wrote" in done.stderr
    with zipfile.ZipFile(target) as archive:
        assert json.loads(archive.read("findings.json")) == found
        assert "status.json" not in archive.namelist(), "nobody could be asked"


def test_a_bundle_that_cannot_be_written_comes_after_the_findings(tmp_path: Path) -> None:
    done = run("--bundle", str(tmp_path / "no" / "such.zip"))
    assert isinstance(done.exception, ConfigurationError)
    assert "wrong head" in done.output


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.OK, 0), (Verdict.WARN, 1), (Verdict.WRONG, 3)])
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, verdict: Verdict, code: int) -> None:
    async def findings(self: Doctor) -> AsyncIterator[Finding]:
        self.found = [Finding("ray", verdict, "it is so", "do something")]
        yield self.found[0]

    monkeypatch.setattr(Doctor, "findings", findings)
    done = run()
    assert done.exit_code == code
    assert done.output.startswith(f"{verdict}")


def test_what_nobody_foresaw_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(settings: Any) -> str:
        raise KeyError("something new in Ray")

    monkeypatch.setattr(joining, "resolve", fails)
    done = run()
    assert done.exit_code == 1
    assert "something new in Ray" in done.output
    assert "Traceback" not in done.output


def look(head: str, *lends: str) -> dict[str, Finding]:
    async def found() -> list[Finding]:
        doctor = Doctor(load_settings(), head, lends, cast(Any, NoCluster))
        return [each async for each in doctor.findings()]

    return {each.name: each for each in asyncio.run(found())}


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every port of every machine answers."""
    monkeypatch.setattr(checks, "knock", lambda *_: "")
    monkeypatch.setattr(checks, "own_address", lambda head: "10.0.0.2")
    monkeypatch.setattr(rooms, "knock_all", lambda host, ports: dict.fromkeys(ports, ""))


@pytest.mark.usefixtures("reached")
def test_a_head_that_is_well() -> None:
    found = look("10.0.0.1:6379", "cpu:77")
    assert {each.verdict for each in found.values()} == {Verdict.OK}
    assert {"head", "token of the head", "versions", "way back", "way there", "clock", "device"} <= set(found)


@pytest.mark.usefixtures("reached")
@pytest.mark.parametrize(
    ("changes", "name", "says"),
    [
        ({"clock_skew_s": -90.0}, "clock", "90 s behind the head's"),
        ({"visited": {"7380": "no answer", "7381": "no answer", "7384": ""}}, "way back", "7380-7381: no"),
        ({"visited": None}, "way back", "no callback probe answered there"),
        ({"python_version": "3.99.0"}, "versions", "3.99.0 at the head"),
        ({"rayface": None}, "rayface", "version_skew"),
        ({"rayface": None, "visited": None}, "rayface", "nobody at the head says"),
    ],
)
def test_a_head_with_something_wrong(modules: Modules, changes: dict[str, Any], name: str, says: str) -> None:
    assert modules.head is not None
    modules.head |= changes
    found = look("10.0.0.1:6379", "cpu:77")[name]
    assert found.verdict is not Verdict.OK
    assert says in found.evidence


@pytest.mark.usefixtures("reached")
def test_ports_of_the_head_that_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that refuses has been reached: perhaps no process listens there now."""
    said = {10002: "Connection refused", 10003: "no answer (a firewall drops it)"}
    monkeypatch.setattr(rooms, "knock_all", lambda host, ports: {port: said.get(port, "") for port in ports})
    found = look("10.0.0.1:6379", "cpu:77")["way there"]
    assert found.verdict is Verdict.WRONG
    assert "10003" in found.evidence
    assert "10002" not in found.evidence


@pytest.mark.usefixtures("reached")
def test_a_name_that_means_loopback() -> None:
    """It is wrong for a machine that would join; for a driver beside the head it is all right."""
    assert look("127.0.0.1:6379", "cpu:77")["head"].verdict is Verdict.WRONG
    assert look("127.0.0.1:6379")["head"].verdict is Verdict.OK


@pytest.mark.usefixtures("reached")
def test_a_token_that_the_head_refuses(modules: Modules) -> None:
    modules.head = None
    found = look("10.0.0.1:6379", "cpu:77")["token of the head"]
    assert found.verdict is Verdict.WRONG
    assert "refuses our token" in found.evidence


@pytest.mark.usefixtures("reached")
def test_without_a_token_the_head_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert "rayface token save" in look("10.0.0.1:6379", "cpu:77")["token of the head"].advice


@pytest.mark.usefixtures("reached")
def test_a_port_that_is_taken_is_not_the_heads_fault() -> None:
    port = load_settings().join.first_port
    with socket.create_server(("", port)):
        found = look("10.0.0.1:6379", "cpu:77")
    assert found["ports"].verdict is Verdict.WRONG
    assert f"port {port} of this machine is taken" in found["ports"].evidence
    assert found["head"].verdict is Verdict.OK
    assert "way back" not in found, "nothing was tried"


def test_the_ports_of_the_page_are_knocked_at() -> None:
    assert needed_ports(HeadSettings()) == [6379, 6380, 6381, *range(10002, 10122)]
    assert needed_ports(JoinSettings()) == [7380, 7386, 7387, 7381, 7384, *range(11002, 11022)]


def test_knocking_says_which_port(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_settings().join.first_port
    said = {first + 1: "no answer"}
    monkeypatch.setattr(
        doctor_command, "knock_all", lambda host, ports: {port: said.get(port, "") for port in ports}
    )
    done = run("--knock", "win-host")
    assert done.exit_code == 3
    assert f"wrong win-host:{first + 1} no answer" in done.output
    assert f"ok    win-host:{first} is reached" in done.output


def test_listening_tells_who_came(capsys: pytest.CaptureFixture[str]) -> None:
    """One port is taken, and the other is listened at; the time is over when the clock says so."""
    port, busy = free_port(), socket.create_server(("", 0))
    now = [0.0]

    def knocked(listeners: list[socket.socket], timeout_s: float) -> list[socket.socket]:
        socket.create_connection(("127.0.0.1", port)).close()
        now[0] += timeout_s
        return select.select(listeners, [], [], 10.0)[0]

    with busy:
        listen([port, busy.getsockname()[1]], 2.5, lambda: now[0], knocked)
    out, err = capsys.readouterr()
    assert out.count(f"127.0.0.1 reached port {port}.") == 3, "once a second, and in the last half"
    assert "is taken" in err


def test_listening_needs_a_free_port() -> None:
    with socket.create_server(("", 0)) as busy, pytest.raises(ConfigurationError, match="--knock"):
        listen([busy.getsockname()[1]], 1.0)


def test_one_finding_a_line() -> None:
    assert str(doctor_command._line(wrong("disk", "full", "empty it").at("gpu"))).startswith(
        "wrong disk at gpu: full\n"
    )
