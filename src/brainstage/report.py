"""The study as one HTML file that needs nothing else: tables, charts, settings, data hash, commands, versions."""

from __future__ import annotations

import base64
import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from brainstage.files import read_json_lines, write_text
from brainstage.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE
from brainstage.study import REPORTED, Study


def write_study(study: Study, command: list[str]) -> Path:
    """Write ``study.html`` into the study's folder and return it.

    Args:
        study: What was found.
        command: The command that made it.
    """
    template = files("brainstage").joinpath("templates/study.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    target = study.folder / "study.html"
    write_text(target, page.render(_content(study, command)))
    return target


def _content(study: Study, command: list[str]) -> dict[str, Any]:
    manifest = json.loads(study.final.manifest.read_text(encoding="utf-8"))
    charts = {
        "comparison": study.folder / "comparison.png",
        "sweep": study.folder / "sweep" / "sweep.png",
        "importance": study.folder / "sweep" / "importance.png",
        "curves": study.final.curves,
        "confusion": study.final.confusion_matrix,
    }
    return {
        "notice": RESEARCH_NOTICE,
        "synthetic": SYNTHETIC_NOTICE if study.evaluation.synthetic else None,
        "study": study,
        "reported": REPORTED if study.as_reported else {},
        "charts": {name: _data_uri(file) for name, file in charts.items() if file.is_file()},
        "history": read_json_lines(study.final.history),
        "settings": json.loads(study.final.config.read_text(encoding="utf-8")),
        "manifest": manifest,
        "commands": [shlex.join(command), *_commands(study)],
    }


def _data_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")


def _commands(study: Study) -> list[str]:
    """Return the commands that show each part again."""
    runs = [str(study.folder / candidate.name) for candidate in study.comparison.candidates]
    split = study.comparison.leader.evaluation.split
    return [
        shlex.join(["brainstage", "compare", *runs, "--split", split]),
        shlex.join(["brainstage", "evaluate", str(study.final.path)]),
    ]
