"""What is said of the bundled models, wherever it is said."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from brainstage.cli import app
from brainstage.datasets.sources import load_slices
from brainstage.models.weights import BUNDLED, bundled_folder
from brainstage.serve.registry import ModelRegistry

ROOT = Path(__file__).parents[1]
OWN = ("official test slices", "linear baseline")
"""Rows of figures that may stand without the word optimistic, because nothing was chosen on what they are of."""


@pytest.mark.parametrize("name", BUNDLED)
def test_figures_that_were_not_chosen_inside_the_folds_are_called_optimistic(name, real_folder, tmp_path):
    """Every place that quotes a bundled model: manifest, card, predict with its details, JSON, the API, README."""
    manifest = json.loads((bundled_folder(name) / "manifest.json").read_text(encoding="utf-8"))
    rows = [row for row in manifest["figures"] if not row.startswith(OWN)]
    assert rows
    assert all(row.startswith("optimistic: ") for row in rows)
    assert not any("optimistic" in row for row in manifest.get("nested", {}))
    own = {
        f"{score['value']:.{digits}f} [{score['low']:.2f}, {score['high']:.2f}]"
        for row in rows
        for score in manifest["figures"][row].values()
        for digits in (2, 3)
        if score["value"] is not None
    }
    nested = {
        f"{score['value']:.{digits}f} [{score['low']:.2f}, {score['high']:.2f}]"
        for scores in manifest.get("nested", {}).values()
        for score in scores.values()
        for digits in (2, 3)
    }
    scan = tmp_path / "slice.png"
    Image.fromarray(load_slices(real_folder).images[0]).save(scan)
    shown, reply = (
        CliRunner().invoke(app, ["predict", name, str(scan), option]).stdout for option in ("--details", "--json")
    )
    reply = json.loads(reply)
    registry = ModelRegistry([name])
    [model] = registry.describe()
    registry.close()
    sentences = [
        *(bundled_folder(name) / "README.md").read_text(encoding="utf-8").splitlines(),
        *" ".join(shown.split()).split("· "),
        reply["notice"],
        *reply["details"],
        model["performance"],
        *model["details"],
        *(ROOT / "README.md").read_text(encoding="utf-8").split("\n\n"),
    ]
    quoting = [one for one in sentences if any(figure in one for figure in own - nested)]
    assert quoting  # the card has them
    assert [one for one in quoting if "optimistic" not in one] == []
