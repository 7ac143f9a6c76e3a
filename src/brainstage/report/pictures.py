"""The chart of each result that is better seen as a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from brainstage.core.errors import DataError, RunError
from brainstage.core.files import read_json_lines
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.evaluation.slices import evaluate
from brainstage.report import charts
from brainstage.report.charts import Chart

if TYPE_CHECKING:
    from brainstage.audits.audit import Audit
    from brainstage.core.run import RunFolder
    from brainstage.datasets.table import SliceTable
    from brainstage.evaluation.slices import Evaluation

PAIRS = 6
"""Pairs of slices that an audit shows."""
SLICES = 6
"""Slices of a class that a slice table shows."""


NO_SPLIT = "protocol of the source's own split · leakage unknown: make_splits and audit give the verdict"


def plot(result: Any) -> Chart:
    """Return a result as a chart whose title names protocol and verdict.

    Raises:
        RunError, DataError: There is nothing to draw.
    """
    return PICTURES[type(result).__name__](result)


def _evaluation(result: Evaluation) -> Chart:
    title = f"{result.title} · {result.beside}"
    return charts.draw_confusion_matrix(result.scores.confusion, result.classes, title)


def _run(run: RunFolder) -> Chart:
    if not run.history.is_file():
        raise RunError(f"{run.path}: has no history of epochs to draw; evaluate(run).plot() draws its predictions")
    evaluation = evaluate(run)
    title = f"{evaluation.titled('training and validation')} · on the test slices: {evaluation.beside}"
    return charts.draw_curves(read_json_lines(run.history), title)


def _audit(result: Audit) -> Chart:
    """Draw test slices beside the most similar training slices."""
    if not result.closest:
        raise DataError("the data has no train and test side, so there are no pairs to draw")
    rows = np.random.default_rng(0).permutation(sorted(result.closest))[:PAIRS].tolist()
    patients, images = result.slices.patients, result.slices.images
    pairs = [(images[row], images[result.closest[row][0]]) for row in rows]
    same = [patients[row] is not None and patients[row] == patients[result.closest[row][0]] for row in rows]
    words = ["same person" if one else "another person" for one in same]
    verdict = f"protocol of the source's own split · {result.verdict}"
    return charts.draw_slices(
        [
            [(f"test {number}", pair[0]) for number, pair in enumerate(pairs, 1)],
            [(f"its nearest: {word}", pair[1]) for word, pair in zip(words, pairs, strict=True)],
        ],
        _stamped(result.slices, f"test slices over the most similar training slices · {verdict}"),
    )


def _slices(result: SliceTable) -> Chart:
    """Draw some slices of each class."""
    draw = np.random.default_rng(0)
    rows = []
    for name in result.classes:
        members = [row for row, label in enumerate(result.labels) if label == name]
        chosen = draw.permutation(members)[:SLICES].tolist()
        rows.append(
            [
                (name.replace("_", " ") if number == 0 else "", result.images[row])
                for number, row in enumerate(chosen)
            ]
        )
    if not rows:
        raise DataError("the data holds no slice with a label, so there is none to draw")
    return charts.draw_slices(rows, _stamped(result, f"slices drawn at random from each class · {NO_SPLIT}"))


def _stamped(slices: SliceTable, title: str) -> str:
    return f"{SYNTHETIC_NOTICE} · {title}" if slices.synthetic else title


PICTURES: dict[str, Callable[[Any], Chart]] = {
    "Audit": _audit,
    "Comparison": charts.draw_comparison,
    "Evaluation": _evaluation,
    "ExternalValidation": charts.draw_calibration,
    "PatientEvaluation": charts.draw_people,
    "ProtocolComparison": charts.draw_protocols,
    "RunFolder": _run,
    "SliceTable": _slices,
    "Sweep": charts.draw_sweep,
}
"""What draws each class, by its name, as in :mod:`brainstage.report.notebook`."""
