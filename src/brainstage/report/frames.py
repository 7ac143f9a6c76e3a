"""Results as tables of pandas, which need not be installed for anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.errors import ConfigError

if TYPE_CHECKING:
    import pandas

    from brainstage.core.run import RunFolder
    from brainstage.datasets.splits import Splits
    from brainstage.evaluation.comparison import Comparison
    from brainstage.evaluation.patients import PatientEvaluation
    from brainstage.evaluation.slices import Evaluation
    from brainstage.stats.metrics import Score
    from brainstage.studies.protocols import ProtocolComparison

Row = dict[str, Any]


def to_pandas(result: Any) -> pandas.DataFrame:
    """Return a result as a table; a score has ``value``, ``low`` and ``high``, its 95 % interval.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ConfigError("to_pandas() needs pandas; install it with: pip install pandas") from error
    rows = FRAMES[type(result).__name__](result)
    return rows.to_pandas() if isinstance(rows, pa.Table) else pandas.DataFrame(list(rows))


def _scores(scores: Mapping[str, Score], **beside: Any) -> Iterator[Row]:
    for name, score in scores.items():
        yield {**beside, "score": name, **vars(score)}


def _evaluation(result: Evaluation) -> Iterator[Row]:
    yield from _scores(result.scores.overall, row="model", stage=None)
    for name, scores in result.scores.by_class.items():
        yield from _scores(scores, row="model", stage=name)
    for baseline in result.baselines.values():
        scores = {"accuracy": baseline.accuracy, "weighted_f1": baseline.weighted_f1}
        yield from _scores(scores, row=baseline.name, stage=None)


def _patient_evaluation(result: PatientEvaluation) -> Iterator[Row]:
    for view in result.views:
        for row, scores in view.rows.items():
            yield from _scores(scores, stages=view.name, row=row)


def _comparison(result: Comparison) -> Iterator[Row]:
    for candidate in result.candidates:
        for row in _scores(candidate.evaluation.scores.overall, run=candidate.name):
            behind = candidate.behind.get(row["score"])
            yield row | {f"behind_{name}": value for name, value in (vars(behind) if behind else {}).items()}


def _protocols(result: ProtocolComparison) -> Iterator[Row]:
    for row in result.rows:
        for side in ("official", "patient", "people"):
            yield from _scores(getattr(row, side), row=row.name, side=side)


def _splits(result: Splits) -> Iterator[Row]:
    for number, fold in enumerate(result.folds):
        for side, slice_ids in vars(fold).items():
            for slice_id in slice_ids:
                patient = result.patient_of.get(slice_id)
                yield {"fold": number, "side": side, "slice_id": slice_id, "patient_id": patient}


def _run(run: RunFolder) -> pa.Table:
    run.verify()
    return pq.read_table(run.predictions)


FRAMES: dict[str, Callable[[Any], pa.Table | Iterator[Row] | list[Row]]] = {
    "Audit": lambda result: result.table,
    "Comparison": _comparison,
    "Evaluation": _evaluation,
    "ExternalValidation": lambda result: result.predictions,
    "PatientEvaluation": _patient_evaluation,
    "Predictions": lambda result: result.table,
    "ProtocolComparison": _protocols,
    "RunFolder": _run,
    "SliceTable": lambda result: result.rows,
    "Splits": _splits,
    "Sweep": lambda result: list(result.trials),
}
"""The rows of each class, by its name, as in :mod:`brainstage.report.notebook`."""
