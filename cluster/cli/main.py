"""The command `rayface`: its subcommands and exit codes. See `rayface --help`."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from actors.errors import ModelUnavailable
from cluster.cli.entry import end_interrupted
from cluster.cli.lazy import LazyGroup
from cluster.cli.options import address_option, config_option, model_option, settings_of_model
from cluster.cli.printable import say
from cluster.errors import ConfigurationError, DeviceTaken, RayfaceError

# `detect` starts a process before it loads the settings and what else takes long to load.
if TYPE_CHECKING:
    from cluster.node.kept import KeptCluster
    from cluster.settings import Settings

EXIT_SOME_NOT_DETECTED = 1
EXIT_WRONG_USE = 2
EXIT_NOTHING_COULD_BE_ASKED = 3
EXIT_TAKEN = 4

_NO_PHOTO = "There is no photo to look at. Name photos, folders with photos, or a pattern that matches some."


@click.group(
    cls=LazyGroup,
    modules={
        "head": "cluster.cli.node",
        "join": "cluster.cli.node",
        "token": "cluster.cli.node",
        "install": "cluster.cli.node",
        "uninstall": "cluster.cli.node",
        "place": "cluster.cli.cluster",
        "remove": "cluster.cli.cluster",
        "status": "cluster.cli.cluster",
        "circuit": "cluster.cli.cluster",
        "doctor": "cluster.cli.doctor",
        "bench": "cluster.cli.bench",
        "up": "cluster.cli.up",
        "down": "cluster.cli.up",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="rayface", prog_name="rayface")
def cli() -> None:
    """Face detection for a photo library, on Ray."""


@cli.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, as results come.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out files and folders whose name, path below the folder, or whole path matches. May be given "
    "several times.",
)
@click.option(
    "--include-hidden",
    is_flag=True,
    help="Look at hidden files and folders too (.*, @eaDir, #recycle and the like).",
)
@click.option(
    "--annotate",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write copies with the faces drawn into this folder.",
)
@model_option
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The least score of a face, between 0 and 1.",
)
@click.option("--max-faces", type=click.IntRange(min=1), help="The most faces of a photo, best first.")
@click.option(
    "--timings", is_flag=True, help="Show on standard error where the time to the first outcome went."
)
@address_option
@config_option
def detect(
    paths: tuple[str, ...],
    as_json: bool,
    exclude: tuple[str, ...],
    include_hidden: bool,
    annotate: Path | None,
    model: str | None,
    min_score: float | None,
    max_faces: int | None,
    timings: bool,
    address: str | None,
    config: Path | None,
) -> None:
    """Find the faces in photos.

    PATHS are files, folders (with all folders in them), patterns like 'holiday/**/*.jpg', or - for a list on
    standard input, one path a line. Links to folders are followed; each folder is looked through once. Hidden
    files and folders in a folder are left out.

    Exit code: 0 every photo got a detection (with or without faces), 1 some were rejected, failed or
    damaged, or something that was asked for could not be looked at, 2 wrong use, 3 no detector could be
    asked, or the cluster of `rayface up` ended meanwhile.
    """
    from cluster.cli.early_start import starting_early

    early = click.get_current_context().with_resource(starting_early(address, config))

    from cluster.cli import detect as detect_command
    from cluster.cli.folder_walk import Rules
    from cluster.cli.kept_cluster import find_suitable
    from cluster.cli.photo_paths import PhotoFinder
    from cluster.settings import load_settings

    detector = settings_of_model(model)
    if min_score is not None:
        detector["score_threshold"] = min_score
    if max_faces is not None:
        detector["max_faces"] = max_faces
    finder = PhotoFinder(Rules(exclude, include_hidden))

    def kept_cluster() -> KeptCluster | None:
        if settings.cluster.address is not None:
            return None
        kept, problem = find_suitable(settings)
        if problem:
            say(problem if kept else f"{problem} This run starts a Ray of its own.")
        return kept

    def say_left_out() -> None:
        for sentence in finder.left_out.sentences():
            say(sentence)

    try:
        settings = load_settings(
            config,
            **({"detector": detector} if detector else {}),
            **({"cluster": {"address": address}} if address else {}),
        )
        _show_licence(settings)
        is_list = "-" in paths
        if is_list:
            names, num_names = finder.find(paths, _lines_of_stdin()), None
        else:
            found = list(finder.find(paths, ()))
            names, num_names = iter(found), len(found)
            say_left_out()
        counts = detect_command.detect(
            names,
            num_names,
            settings,
            as_json=as_json,
            annotate=annotate,
            timings=timings,
            find_kept=kept_cluster,
            early=early,
        )
        if is_list:
            say_left_out()
    except RayfaceError as error:
        _end(error)
    if not counts:
        _end(ConfigurationError(_NO_PHOTO))
    if any(counts[each] for each in ("rejected", "failed", "damaged", "not_drawn")):
        sys.exit(EXIT_SOME_NOT_DETECTED)


def _lines_of_stdin() -> Iterator[str]:
    """The lines of standard input; bytes that are no Unicode become lone surrogates, as in other paths."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape", newline="\n")
    # It is None where it is closed.
    yield from sys.stdin or ()


@cli.group(invoke_without_command=True, name="models")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def models_command(context: click.Context, as_json: bool) -> None:
    """List the models, their licences, and which are here already."""
    if context.invoked_subcommand:
        return
    from rich.console import Console
    from rich.table import Table

    from actors import models

    rows = [
        {
            "name": entry.name,
            "family": entry.family,
            "licence": entry.licence,
            "commercial": entry.commercial,
            "kept": models.is_kept(entry.name),
            "source": entry.source,
            "sha256": entry.sha256,
            "note": entry.note,
        }
        for entry in models.CATALOGUE.values()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("model", "family", "licence", "here", "note", box=None, header_style="bold")
    for row in rows:
        table.add_row(
            *(str(row[key]) for key in ("name", "family", "licence")),
            "yes" if row["kept"] else "no",
            str(row["note"]),
        )
    Console(highlight=False).print(table)
    click.echo(f"Kept in {models.cache_dir()}")


@models_command.command()
@click.argument("name", default="centerface")
def fetch(name: str) -> None:
    """Fetch, check and prepare a model now, so that it works offline afterwards."""
    from actors import models
    from cluster.settings import load_settings

    if name not in models.CATALOGUE:
        raise click.UsageError(f"No model is called {name!r}; choose one of {', '.join(models.CATALOGUE)}.")
    try:
        settings = load_settings(detector={"model": name})
        _show_licence(settings)
        ready = models.ready_model(settings.detector, tell=say)
    except (RayfaceError, ModelUnavailable) as error:
        _end(error)
    click.echo(f"{ready.label} is ready: {ready.prepared}")


def main() -> None:
    """Run the command; an error that rayface raises becomes a sentence and an exit code, not a traceback."""
    if sys.stdout is None:
        _end(ConfigurationError("Standard output is closed; open it, or send it to a file."))
    for stream in (sys.stdout, sys.stderr):
        # An old Windows console cannot print every character; a question mark is better than an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Pillow warns of photos above 89 megapixels; we have our own limit, and name each photo above it.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        # click itself would exit with code 1 after an interruption, and 1 has another meaning here.
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        # It may quote a file name that the shell put in place of a pattern, as in `detect *`.
        said = io.StringIO()
        error.show(said)
        say(said.getvalue().rstrip("\n"))
        sys.exit(error.exit_code)
    except RayfaceError as error:
        _end(error)
    except (click.Abort, KeyboardInterrupt):
        end_interrupted()
    except BrokenPipeError:
        # The program that read our output has ended (`rayface detect … | head`).
        sys.stderr.close()
        sys.exit(EXIT_SOME_NOT_DETECTED)


def _show_licence(settings: Settings) -> None:
    from actors import models

    entry = models.CATALOGUE.get(settings.detector.model)
    if entry is not None and not entry.commercial and settings.detector.model_path is None:
        say(f"Note the licence of {entry.name}: {entry.licence}.")


def _end(error: Exception) -> NoReturn:
    say(f"Error: {error}")
    if isinstance(error, DeviceTaken):
        sys.exit(EXIT_TAKEN)
    sys.exit(EXIT_WRONG_USE if isinstance(error, ConfigurationError) else EXIT_NOTHING_COULD_BE_ASKED)


if __name__ == "__main__":
    main()
