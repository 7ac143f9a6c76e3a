"""Results as files: JSON for programs, charts for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brainstage.core.files import read_json_lines, write_json
from brainstage.report import charts

if TYPE_CHECKING:
    from brainstage.evaluation.comparison import Comparison
    from brainstage.evaluation.patients import PatientEvaluation
    from brainstage.evaluation.slices import Evaluation
    from brainstage.studies.protocols import ProtocolComparison
    from brainstage.training.sweep import Sweep


def write_evaluation(evaluation: Evaluation, folder: Path, history: Path | None = None) -> list[Path]:
    """Write ``metrics.json`` and ``confusion_matrix.png``, and ``curves.png`` where there is a history.

    Args:
        evaluation: The scores; a side other than ``test`` gets its name into the file names.
        folder: Where to.
        history: The run's ``history.jsonl``.

    Returns:
        The files.
    """
    files = [_file(evaluation, folder, "metrics.json"), _file(evaluation, folder, "confusion_matrix.png")]
    write_json(files[0], evaluation.to_dict())
    title = f"{evaluation.title} · {evaluation.beside}"
    charts.draw_confusion_matrix(evaluation.scores.confusion, evaluation.classes, title).save(files[1])
    if history is not None and history.is_file():
        files.append(folder / "curves.png")
        what = evaluation.titled(f"training and {evaluation.selection}")
        title = f"{what} · on the {evaluation.split} slices: {evaluation.beside}"
        charts.draw_curves(read_json_lines(history), title).save(files[-1])
    return files


def write_patient_evaluation(evaluation: PatientEvaluation, folder: Path) -> Path:
    """Write ``patient_metrics.json`` and return it; a side other than ``test`` gets its name into the file's."""
    file = _file(evaluation, folder, "patient_metrics.json")
    write_json(file, evaluation.to_dict())
    return file


def _file(evaluation: Evaluation | PatientEvaluation, folder: Path, name: str) -> Path:
    """Return the file of an evaluation, which has the name of its side before it unless that is ``test``."""
    return folder / (name if evaluation.split == "test" else f"{evaluation.split}_{name}")


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write ``comparison.json`` and ``comparison.png``."""
    write_json(folder / "comparison.json", comparison.to_dict())
    charts.draw_comparison(comparison).save(folder / "comparison.png")


def write_protocols(comparison: ProtocolComparison) -> None:
    """Write ``protocols.json`` and ``protocols.png`` into the comparison's folder."""
    write_json(comparison.folder / "protocols.json", comparison.to_dict())
    charts.draw_protocols(comparison).save(comparison.folder / "protocols.png")


def write_sweep(sweep: Sweep) -> None:
    """Write ``sweep.png`` into the sweep's folder, and ``importance.png`` where the importance is known."""
    charts.draw_sweep(sweep).save(sweep.folder / "sweep.png")
    if sweep.importance:
        charts.draw_importance(sweep).save(sweep.folder / "importance.png")
