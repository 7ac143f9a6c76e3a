"""Pretrained backbones."""

from __future__ import annotations

from typing import Annotated

import typer

from brainstage.cli.shared import Quiet, say

app = typer.Typer()
group = typer.Typer(help="Download pretrained backbones.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(group, name="models")


@group.command(epilog="Example: brainstage models fetch google/vit-base-patch16-224")
def fetch(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Hub ids, ORG/NAME or ORG/NAME@REVISION.")],
    quiet: Quiet = False,
) -> None:
    """Download backbones ahead of time.

    Files are checked by SHA-256; those in the cache are not downloaded again.
    """
    from brainstage.models.backbones import fetch

    for name in ids:
        say(str(fetch(name, quiet=quiet)), quiet)


@group.command(epilog="Example: brainstage models clear-features")
def clear_features(quiet: Quiet = False) -> None:
    """Delete the cached features of frozen backbones.

    They are computed again when needed.
    """
    from brainstage.core.cache import clear
    from brainstage.models.features import features_folder

    say(f"{clear(features_folder()) / 1e6:,.1f} MB removed from {features_folder()}", quiet)
