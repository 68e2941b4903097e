"""The command `rayface`: its subcommands and exit codes. See `rayface --help`."""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from actors.errors import ModelUnavailable
from cluster.cli.entry import end_interrupted
from cluster.cli.lazy import LazyGroup
from cluster.cli.options import address_option, config_option, model_option, settings_of_model
from cluster.errors import ConfigurationError, DeviceTaken, RayfaceError

# `detect` starts a process before it loads the settings and what else takes long to load.
if TYPE_CHECKING:
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
@click.option(
    "--timings", is_flag=True, help="Show on standard error where the time to the first outcome went."
)
@address_option
@config_option
def detect(
    paths: tuple[str, ...],
    as_json: bool,
    annotate: Path | None,
    model: str | None,
    min_score: float | None,
    timings: bool,
    address: str | None,
    config: Path | None,
) -> None:
    """Find the faces in photos.

    PATHS are files, folders (with all folders in them), patterns like 'holiday/**/*.jpg', or - for a list on
    standard input, one path a line.

    Exit code: 0 every photo got a detection (with or without faces), 1 some were rejected, failed or damaged,
    2 wrong use, 3 no detector could be asked, or the cluster of `rayface up` ended meanwhile.
    """
    from cluster.cli.early_start import starting_early

    early = click.get_current_context().with_resource(starting_early(address, config))

    import asyncio

    from cluster.cli import detect as detect_command
    from cluster.cli.kept_cluster import find_suitable
    from cluster.cli.photo_paths import find_photos
    from cluster.settings import load_settings

    def warn(sentence: str) -> None:
        click.echo(sentence, err=True)

    detector = settings_of_model(model)
    if min_score is not None:
        detector["score_threshold"] = min_score
    try:
        settings = load_settings(
            config,
            **({"detector": detector} if detector else {}),
            **({"cluster": {"address": address}} if address else {}),
        )
        _show_licence(settings)
        if "-" in paths:
            photos, num_photos = find_photos(paths, sys.stdin, warn), None
        else:
            found = list(find_photos(paths, (), warn))
            photos, num_photos = iter(found), len(found)
        if num_photos == 0:
            raise ConfigurationError(_NO_PHOTO)
        kept = None
        if settings.cluster.address is None:
            kept, problem = find_suitable(settings)
            if problem:
                warn(f"{problem} This run starts a Ray of its own.")
        counts = asyncio.run(
            detect_command.detect(
                photos,
                num_photos,
                settings,
                as_json=as_json,
                annotate=annotate,
                timings=timings,
                kept=kept,
                early=early,
            )
        )
    except RayfaceError as error:
        _end(error)
    if not counts:
        _end(ConfigurationError(_NO_PHOTO))
    if counts["rejected"] or counts["failed"] or counts["damaged"]:
        sys.exit(EXIT_SOME_NOT_DETECTED)


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
        ready = models.ready_model(settings.detector, tell=lambda sentence: click.echo(sentence, err=True))
    except (RayfaceError, ModelUnavailable) as error:
        _end(error)
    click.echo(f"{ready.label} is ready: {ready.prepared}")


def main() -> None:
    """Run the command; an error that rayface raises becomes a sentence and an exit code, not a traceback."""
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
        error.show()
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
        click.echo(f"Note the licence of {entry.name}: {entry.licence}.", err=True)


def _end(error: Exception) -> NoReturn:
    click.echo(f"Error: {error}", err=True)
    if isinstance(error, DeviceTaken):
        sys.exit(EXIT_TAKEN)
    sys.exit(EXIT_WRONG_USE if isinstance(error, ConfigurationError) else EXIT_NOTHING_COULD_BE_ASKED)


if __name__ == "__main__":
    main()
