"""Private names of Ray: all in one file, each with its reason and its test, and Ray still has them."""

from __future__ import annotations

import ast
import importlib.util
import mmap
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from cluster import ray_internals
from cluster.ray_internals import allow_clusters, has_started, is_other_cluster, lacks_ports
from cluster.ray_variables import (
    CALL_VARIABLES,
    COMMAND_MODULE,
    DRIVER_VARIABLES,
    EMBEDDED_VARIABLES,
    NODE_VARIABLES,
    last_cluster_file,
    metrics_port_variables,
    storage_variables,
    temp_dir_variables,
)

HERE = Path(__file__).parents[2]
INTERNALS = [HERE / "cluster" / name for name in ("ray_internals.py", "ray_variables.py")]

#: What Ray's documentation describes for people to use.
PUBLIC_MODULES = {
    "ray",
    "ray.exceptions",
    "ray.util",
    "ray.util.metrics",
    "ray.util.scheduling_strategies",
}
PUBLIC_VARIABLES = {
    "RAY_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_USAGE_STATS_ENABLED",
}
PRIVATE_TEXT = re.compile(
    r"ray\._|ray\.core|ray\.experimental|ray\.scripts|internal_kv|CLUSTER_METADATA|WrongClusterID"
    r"|InvalidAuthToken|No available ports|Ray runtime started|\braylet(\.exe)?$|_METRIC_PORT"
)
PRIVATE_ATTRIBUTE = re.compile(
    r"internal_kv_\w+|check_alive|core_worker|gcs_client|global_worker|_actor_\w+|_ray_\w+"
)
PRIVATE_PACKAGE = re.compile(r"ray\.(core|experimental|scripts|dashboard)\b")
#: What `from ray.util import …` may not take.
NOT_PUBLIC = {"ray.util.state"}
#: Private names of Python's own modules `os` and `subprocess`.
NOT_RAYS = {"_exit", "_handle"}


def private_names(source: str) -> Iterator[str]:
    """Each private name of Ray in a source text."""
    tree = ast.parse(source)
    own = set(re.findall(r"\b(?:self|cls)\.(_\w+)", source)) | set(re.findall(r"def (_\w+)", source))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # Under another name, what follows could not be recognised.
            renamed = {each.name for each in node.names if each.name == "ray" and each.asname}
            yield from (each.name for each in node.names if _is_private(each.name) or each.name in renamed)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ray":
            full = (f"{node.module}.{each.name}" for each in node.names)
            yield from (
                each
                for each in full
                if _is_private(node.module)
                or "._" in each
                or PRIVATE_PACKAGE.match(each)
                or each in NOT_PUBLIC
            )
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            name = node.args[1]
            if isinstance(name, ast.Constant) and re.match(r"_[^_]", str(name.value)):
                yield ast.unparse(node)
        elif isinstance(node, ast.BinOp) and re.match(r"f?'RAY_", ast.unparse(node.left)):
            # A variable's name that is put together.
            yield ast.unparse(node)
        elif isinstance(node, ast.Compare) and any(isinstance(each, ast.In) for each in node.ops):
            # A text of Ray's that is looked for in an error.
            if re.match(r"(str|repr)\(err", ast.unparse(node.comparators[0])):
                yield ast.unparse(node)
        elif isinstance(node, ast.Attribute):
            whole = ast.unparse(node)
            is_own = ast.unparse(node.value) in ("self", "cls") or node.attr in own | NOT_RAYS
            is_foreign = re.match(r"_[^_]", node.attr) is not None and not is_own
            if is_foreign or PRIVATE_ATTRIBUTE.fullmatch(node.attr) or PRIVATE_PACKAGE.match(whole):
                yield whole
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if id(node) in docstrings:
                continue
            yield from (each for each in re.findall(r"\bRAY_\w+", text) if each not in PUBLIC_VARIABLES)
            if PRIVATE_TEXT.search(text):
                yield text


def _is_private(module: str) -> bool:
    return module.split(".")[0] == "ray" and module not in PUBLIC_MODULES


@pytest.mark.parametrize(
    "source",
    [
        "import ray._private.worker",
        "import ray._private.state as state",
        "from ray._raylet import GcsClient",
        "from ray.core.generated.common_pb2 import Address",
        "from ray.experimental.internal_kv import internal_kv_get_gcs_client",
        "from ray.util.state import list_actors",
        "from ray import core",
        "from ray import scripts",
        "from ray import _private",
        "from ray.util import state",
        "import ray as r\nr.core.generated",
        "getattr(handle, '_actor_id')",
        "class A:\n    def f(self, handle): self._actor_id = handle._actor_id",
        "os.environ['RAY_' + name]",
        "'ActorDiedError' in str(error)",
        "import ray\nray._private.worker.global_worker",
        "import ray\nray.experimental.internal_kv",
        "handle._actor_id.hex()",
        "worker.core_worker",
        "client.internal_kv_get(key)",
        "client.check_alive(nodes, 2.0)",
        "name = 'RAY_health_check_period_ms'",
        "variables = {'RAY_SOMETHING_NEW': '1'}",
        "f'RAY_gcs_storage={value}'",
        "[python, '-m', 'ray.scripts.scripts']",
        "get(b'CLUSTER_METADATA')",
        "'WrongClusterID' in str(error)",
        "name == 'raylet'",
        "{'DASHBOARD_METRIC_PORT': '1'}",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert list(private_names(source))


@pytest.mark.parametrize(
    "source",
    [
        "import ray\nray.get_runtime_context().gcs_address",
        "import ray.exceptions as rex",
        "from ray.util import metrics",
        "os.environ['RAY_ADDRESS']",
        "self._anything",
        "class A:\n    def _own(self): ...\n    def other(self, b): b._own()",
        '"""A docstring may name RAY_gcs_storage."""',
        "'Is a raylet in the way?'",
    ],
)
def test_a_public_name_is_not(source: str) -> None:
    assert not list(private_names(source))


def test_private_names_of_ray_stand_in_one_file() -> None:
    files = [path for wing in ("cluster", "actors", "app") for path in sorted((HERE / wing).rglob("*.py"))]
    assert len(files) > 50
    found = {
        str(path.relative_to(HERE)): names
        for path in files
        if path not in INTERNALS and (names := list(private_names(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
    for path in INTERNALS:
        assert list(private_names(path.read_text(encoding="utf-8")))


def entries() -> dict[str, str]:
    """What is said beside each private name: a comment above a value, or a docstring."""
    said: dict[str, str] = {}
    for path in INTERNALS:
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                said[node.name] = ast.get_docstring(node) or ""
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                first = node.lineno - 1
                while lines[first - 1].startswith("#:"):
                    first -= 1
                name = node.targets[0] if isinstance(node, ast.Assign) else node.target
                said[ast.unparse(name)] = "\n".join(lines[first : node.lineno - 1])
    del said["_NAMESPACE"]  # ours, not Ray's
    return said


@pytest.mark.parametrize("name", entries())
def test_each_entry_says_why_and_names_a_test_that_exists(name: str) -> None:
    said = entries()[name]
    assert "Why private: " in said, name
    (named,) = re.findall(r"Test: (\S+)::(\w+)", said)
    assert f"def {named[1]}(" in (HERE / named[0]).read_text(encoding="utf-8"), named


def ray_folder() -> Path:
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def in_core(text: str) -> bool:
    """Whether Ray's compiled core holds a text."""
    found = importlib.util.find_spec("ray._raylet")
    assert found is not None
    assert found.origin is not None
    with (
        Path(found.origin).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as core,
    ):
        return core.find(text.encode()) >= 0


#: Where Ray's Python reads the variables that its core does not read.
READ_BY = {
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "_private/utils.py",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "_private/accelerators/accelerator.py",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "_private/ray_constants.py",
    "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": "_private/ray_constants.py",
    "AUTOSCALER_METRIC_PORT": "autoscaler/_private/constants.py",
    "DASHBOARD_METRIC_PORT": "dashboard/consts.py",
    "RAY_TMPDIR": "_common/utils.py",
}


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            *CALL_VARIABLES,
            *EMBEDDED_VARIABLES,
            *DRIVER_VARIABLES,
            *NODE_VARIABLES,
            *storage_variables(Path("folder")),
            *metrics_port_variables(1, 2),
            *temp_dir_variables(Path("folder")),
        }
    ),
)
def test_ray_reads_the_variables_that_we_set(name: str) -> None:
    """A name that Ray has given up would do nothing, without a word."""
    if name in READ_BY:
        assert f'"{name}"' in (ray_folder() / READ_BY[name]).read_text(encoding="utf-8")
    else:
        # Its end belongs to it: one name may be the beginning of another.
        assert in_core(f"{name}\0")


def test_a_variable_that_ray_does_not_read_is_not_in_its_core() -> None:
    assert not in_core("RAY_no_such_variable\0")


def test_texts_that_we_look_for_are_in_rays_core() -> None:
    assert in_core("WrongClusterID")
    assert b"No available ports" in (ray_folder() / "core/src/ray/raylet/raylet").read_bytes()
    assert lacks_ports("Invalid: No available ports. Please specify a wider port range")
    assert is_other_cluster(RuntimeError("rpc error: WrongClusterID"))
    assert not is_other_cluster(RuntimeError("rpc error: Deadline Exceeded"))


def test_ray_start_says_when_the_node_is_in() -> None:
    text = (ray_folder() / "scripts/scripts.py").read_text(encoding="utf-8")
    assert text.count('startup_msg = "Ray runtime started."') == 2
    assert has_started("-----\nRay runtime started.\n-----")
    assert not has_started("Local node IP: 10.0.0.2")


def test_the_command_ray_is_the_module_that_we_start() -> None:
    (command,) = entry_points(group="console_scripts", name="ray")
    assert command.module == COMMAND_MODULE


def test_importing_it_does_not_import_ray() -> None:
    """The backend's process imports it too."""
    for path in INTERNALS:
        top = ast.parse(path.read_text(encoding="utf-8")).body
        imported = [ast.unparse(each) for each in top if isinstance(each, ast.Import | ast.ImportFrom)]
        assert not [each for each in imported if re.search(r"\bray\b", each)]
    assert ray_internals.__doc__


@pytest.mark.parametrize("is_allowed", [True, False])
def test_whether_clusters_are_allowed_decides_what_localhost_means(
    monkeypatch: pytest.MonkeyPatch, is_allowed: bool
) -> None:
    """Where they are not, localhost is 127.0.0.1; where they are, it is this machine's outer address."""
    from ray._private import ray_constants, services

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", not is_allowed)
    allow_clusters(is_allowed)
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda *_: "192.0.2.7")
    meant = services.get_node_ip_address()
    assert (meant != "127.0.0.1") is is_allowed


def test_a_head_notes_its_address_in_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.utils import get_ray_address_file

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert str(last_cluster_file(None)) == get_ray_address_file(None)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert str(last_cluster_file(None)) == get_ray_address_file(None)
    assert str(last_cluster_file(tmp_path)) == get_ray_address_file(str(tmp_path))
