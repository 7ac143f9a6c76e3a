"""The study as one page: tables, charts, settings, data hash, commands, versions."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from brainstage.core.files import read_json_lines
from brainstage.core.schema import SYNTHETIC_NOTICE, score_in_words
from brainstage.report.methods import OF_NEW_NETWORKS
from brainstage.report.pages import data_uri, write_page
from brainstage.report.results import write_comparison, write_evaluation, write_sweep
from brainstage.studies.study import REPORTED, Study


def write_study(study: Study, command: list[str]) -> Path:
    """Write ``study.html`` into the study's folder, beside the files of its parts, and return it.

    Args:
        study: The study.
        command: The command that ran it.
    """
    write_comparison(study.comparison, study.folder)
    write_sweep(study.sweep)
    write_evaluation(study.evaluation, study.final.path, study.final.history)
    return write_page(study.folder / "study.html", "study.html", _content(study, command))


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
        "synthetic": SYNTHETIC_NOTICE if study.evaluation.synthetic else None,
        "study": study,
        "in_words": score_in_words,
        "reported": REPORTED if study.as_reported else {},
        "charts": {name: data_uri(file.read_bytes(), "png") for name, file in charts.items() if file.is_file()},
        "history": read_json_lines(study.final.history),
        "settings": _settings(study),
        "manifest": manifest,
        "commands": [shlex.join(command), *_commands(study)],
    }


def _settings(study: Study) -> dict[str, Any]:
    """Return the settings of the final training, of a pretrained backbone without those of new networks."""
    settings: dict[str, Any] = json.loads(study.final.config.read_text(encoding="utf-8"))
    unused = OF_NEW_NETWORKS if settings["backbone"] else ()
    return {name: value for name, value in settings.items() if name not in unused}


def _commands(study: Study) -> list[str]:
    """Return the commands that show each part."""
    runs = [str(study.folder / candidate.name) for candidate in study.comparison.candidates]
    split = study.comparison.leader.evaluation.split
    return [
        shlex.join(["brainstage", "compare", *runs, "--split", split]),
        shlex.join(["brainstage", "evaluate", str(study.final.path)]),
    ]
