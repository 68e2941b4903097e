"""The documents say what is so: commands, settings, links, and that a test runs each example."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cluster.cli.main import cli
from cluster.settings import load_settings
from tests import make_settings_page
from tests.documents import (
    HERE,
    RUNNABLE,
    SHOWN,
    Block,
    all_blocks,
    anchor,
    blocks_to,
    code,
    defines,
    headings,
    links,
    markers,
    pages,
    prose,
    rows,
    section,
)

COMMANDS = HERE / "docs" / "commands.md"
_TOKEN = "0123456789abcdef" * 4
#: Words at the beginning of a command that a document may tell a person to run.
_PROGRAMS = (
    "python3",
    "py",
    "docker",
    "ray",
    "curl",
    "netsh",
    "schtasks",
    "prometheus",
    "pip",
    "uv",
    "apt",
    "export",
)


def commands_of(group: click.Group, before: str = "rayface") -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name; a group that does something by itself too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        full = f"{before} {name}"
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield full, command
        if isinstance(command, click.Group):
            yield from commands_of(command, full)


def parsed(words: list[str]) -> None:
    """Let click parse `rayface …` and run nothing.

    Raises:
        click.UsageError: no such command, option, or number of arguments.
    """
    command: click.Command = cli
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            raise click.UsageError(f"there is no {rest[0]}")
        command, rest = found, rest[1:]
    command.make_parser(click.Context(command)).parse_args(list(rest))


def rayface_words(words: list[str]) -> list[str]:
    """`rayface …`, however it was started; empty for another program."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[:2] in (["python3", "start.py"], ["py", "start.py"]) and words[2:3] != ["test"]:
        return ["rayface", *words[2:]]
    is_ours = bool(words) and words[0] in ("rayface", ".venv/bin/rayface", ".venv\\Scripts\\rayface")
    return ["rayface", *words[1:]] if is_ours else []


def test_the_readme_is_short() -> None:
    """It is read before anything is known; what is more stands in docs/."""
    assert len((HERE / "README.md").read_bytes()) <= 6 * 1024


def test_the_readme_leads_to_every_page() -> None:
    there = {(HERE / each.partition("#")[0]).resolve() for each in links(HERE / "README.md")}
    assert {page.resolve() for page in pages()} - {(HERE / "README.md").resolve()} <= there


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that exists, and to a heading that stands there."""
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if heading:
            assert heading in [anchor(each) for each in headings(target)], f"{page.name}: no heading {link}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_heading_has_one_meaning(page: Path) -> None:
    """Two of the same anchor would lead to the first."""
    names = [anchor(each) for each in headings(page)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("block", all_blocks(), ids=str)
def test_every_example_says_how_it_is_tested(block: Block) -> None:
    assert block.language in (*RUNNABLE, *SHOWN), "a block without a language"
    if block.language in RUNNABLE:
        assert block.marker is not None, "no marker says which test runs this block"
        assert block.marker.kind in ("run", "live") or block.marker.about.strip(), "a marker without a reason"
    else:
        begins = tuple(f"{each} " for each in ("rayface", ".venv/bin/rayface", *_PROGRAMS))
        assert not any(line.startswith(begins) for line in block.text.splitlines()), "a command in disguise"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_tests_that_are_named_exist(page: Path) -> None:
    for marker in markers(page):
        for test in marker.tests:
            file, _, name = test.partition("::")
            if name:
                assert defines(HERE / file, name), f"{page.name}: there is no {test}"
            else:
                assert file == ".ci/run", f"{page.name}: {test} is no test"


@pytest.mark.parametrize(
    "block", [each for each in blocks_to("tested") if each.language in ("sh", "bat")], ids=str
)
def test_the_named_tests_say_the_words_of_the_command(block: Block) -> None:
    """A test that runs a command has its subcommand and its options in its file, as words of their own."""
    assert block.marker is not None
    files = {each.partition("::")[0] for each in block.marker.tests}
    said = "\n".join((HERE / each).read_text(encoding="utf-8") for each in files)
    missing = [
        word for word in block.key_words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", said)
    ]
    assert not missing, f"{block}: {', '.join(files)} does not say {missing}"


@pytest.mark.parametrize(
    "block", [each for each in blocks_to("tested") if each.marker and ".ci/run" in each.marker.tests], ids=str
)
def test_what_ci_runs_is_there(block: Block) -> None:
    script = (HERE / ".ci" / "run").read_text(encoding="utf-8")
    said = script.replace('"$bin/', ".venv/bin/").replace('"', "")
    for words in block.commands:
        command = " ".join(words)
        # CI runs a command in parts: the tests by their marks, each part with its own options.
        assert any(f"{line} ".startswith(f"{command} ") for line in said.splitlines()), command


@pytest.mark.parametrize("block", [each for each in all_blocks() if each.language in ("sh", "bat")], ids=str)
def test_commands_in_examples_exist(block: Block) -> None:
    """As click parses them; those of blocks that only other tests run are looked at too."""
    for words in block.commands:
        if ours := rayface_words(words):
            parsed(ours)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_commands_in_running_text_exist(page: Path) -> None:
    """Of ours with these options; any other stands in an example with a marker, somewhere."""
    examples = "\n".join(block.text for block in all_blocks() if block.marker is not None)
    for text in code(page):
        words = text.replace("…", "").replace("'", "").split()
        if len(words) < 2:
            continue
        if ours := rayface_words(words):
            parsed(ours)
        elif words[0] in _PROGRAMS or words[0].startswith(".venv/bin/"):
            assert text.rstrip(" …") in examples, f"{page.name}: no example has `{text}`"


@pytest.mark.parametrize("block", [each for each in blocks_to("run") if each.language == "sh"], ids=str)
def test_examples_run(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, with a token of its own, and an answer for a command that asks for one."""
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    path = tmp_path / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    if "token new" not in block.text:
        path.write_text(_TOKEN, encoding="ascii")
    for words in block.commands:
        ours = rayface_words(words)
        assert ours, f"{words[0]} is no command that this test can run"
        done = CliRunner().invoke(cli, ours[1:], input=f"{_TOKEN}\n")
        assert done.exit_code == 0, (done.output, done.exception)
        assert done.output.strip()


@pytest.mark.parametrize("block", [each for each in blocks_to("run") if each.language == "toml"], ids=str)
def test_settings_in_examples_are_settings(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(block.text, encoding="utf-8")
    assert load_settings(file) != load_settings()


@pytest.mark.parametrize("block", [each for each in all_blocks() if each.language == "python"], ids=str)
def test_python_in_examples_is_python(block: Block) -> None:
    """It compiles, and what it imports of ours is there; a live test runs it."""
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] != "ray":
            module = importlib.import_module(node.module)
            assert [each.name for each in node.names if not hasattr(module, each.name)] == []


def test_what_the_unit_tests_run_they_can_run() -> None:
    assert {block.language for block in blocks_to("run")} <= {"sh", "toml"}
    assert {block.language for block in blocks_to("live")} <= {"sh", "python"}


def test_every_command_has_its_section_and_every_section_its_command() -> None:
    commands = dict(commands_of(cli))
    named = {each for each in headings(COMMANDS, level=2) if each.startswith("rayface ")}
    assert named == set(commands)


@pytest.mark.parametrize(
    ("name", "command"), list(commands_of(cli)), ids=lambda each: getattr(each, "name", each)
)
def test_the_options_of_a_command_are_all_explained(name: str, command: click.Command) -> None:
    options = {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    table = rows(section(COMMANDS, name))
    said = {each for cells in table for each in re.findall(r"`(--[\w-]+)[^`]*`", cells[0])}
    assert said == options
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and parameter.required:
            assert (parameter.metavar or str(parameter.name).upper()) in section(COMMANDS, name)


def test_the_settings_page_is_made_from_the_settings() -> None:
    page = make_settings_page.PAGE.read_text(encoding="utf-8")
    assert page == make_settings_page.page(), "make it again: .venv/bin/python -m tests.make_settings_page"


def test_the_settings_page_writes_no_value_in_one_way() -> None:
    page = make_settings_page.page()
    assert "`None` as a default" in page
    assert "| `None` |" in page
    assert "| None |" not in page
    assert '"none"' not in page


def test_settings_in_running_text_exist() -> None:
    """`section.name` in a document, where the section is one of the settings'."""
    known = {
        f"{section}.{name}"
        for section, field in type(load_settings()).model_fields.items()
        for name in getattr(field.annotation, "model_fields", {})
    }
    sections = {each.partition(".")[0] for each in known}
    for page in pages():
        for text in code(page):
            if re.fullmatch(r"\w+\.(?!log|__)\w+", text) and text.partition(".")[0] in sections - {
                "detector",
                "client",
            }:
                assert text in known, f"{page.name}: {text}"


def test_the_eight_questions_have_their_answers() -> None:
    """A file and what to look at in it, each of which is there."""
    table = rows(section(HERE / "docs" / "architecture.md", "Eight questions"))
    assert [cells[0].split()[0] for cells in table] == [
        "Who",
        "Where",
        "What",
        "Who",
        "Where",
        "What",
        "Where",
        "What",
    ]
    for cells in table:
        files, names = (re.findall(r"`([^`]+)`", cell) for cell in cells[2:])
        assert files
        for file, name in zip(files, names, strict=True):
            assert defines(HERE / file, name), f"{cells[0]}: {file} has no {name}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_files_and_folders_that_are_named_exist(page: Path) -> None:
    """Those of this repository; what an example makes is not among them."""
    for text in code(page):
        if re.fullmatch(r"(?:actors|app|cluster|configs|docs|tests|\.ci)/[\w./-]*", text):
            assert (HERE / text).exists(), f"{page.name} names {text}, which is not there"


def test_no_page_names_a_machine() -> None:
    """Of those who wrote it, or an index of packages."""
    for page in pages():
        assert not re.search(r"(?<![\w.])/(?:work|root)\b|index-url +https?:", prose(page)), page.name
