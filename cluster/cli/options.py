"""Options that several commands have, and what they set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

model_option = click.option(
    "--model", help="A model by name (see `rayface models`), or the path of your own .onnx file."
)
address_option = click.option(
    "--address",
    help="The address of a running Ray (`auto`, HOST:PORT); without it, the cluster of `rayface up`, or "
    "else a Ray that ends with this run.",
)
config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="A settings file instead of configs/local.toml."
)


def settings_of_model(model: str | None) -> dict[str, Any]:
    """The settings of `[detector]` that `--model` stands for.

    Raises:
        click.UsageError: it is neither a model nor a file.
    """
    if model is None:
        return {}

    from actors import models

    if model in models.CATALOGUE:
        return {"model": model}
    if Path(model).expanduser().is_file():
        return {"model_path": model}
    raise click.UsageError(
        f"{model!r} is neither a model ({', '.join(models.CATALOGUE)}) nor a file. Choose a model, "
        "or give the path of an .onnx file."
    )
