"""What a BIDS App writes for readers: a page for each participant, the table of all, and what the dataset is."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainstage.cohorts.derivatives import SOURCE_NAME, TEMPLATE_SPACE, relative_link
from brainstage.cohorts.sources import DESCRIPTION
from brainstage.core.files import make_folder, write_json, write_text
from brainstage.core.parallel import THIS_MACHINE, Workers
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import PROB_PREFIX, RESEARCH_NOTICE, SET_PREFIX, SYNTHETIC_NOTICE, short_names
from brainstage.inference.scan_results import ScanResult
from brainstage.report.bids_methods import cited, methods
from brainstage.report.cohort_card import BIDS_VERSION
from brainstage.report.pages import write_page
from brainstage.report.quality_page import cuts_picture
from brainstage.studies.bids_app import BidsApp

IGNORED = ("sub-*.html", "validation")
"""Files that no part of BIDS describes."""
NOT_AVAILABLE = "n/a"
_STATUSES = {
    "predicted": "the model predicted a stage",
    "refused": "readable, but not to be staged; the reason says why",
    "failed": "not readable, or missing; the reason says why",
}
_BOOLEAN = {"true": "yes", "false": "no"}
_MEASURED: dict[str, dict[str, Any]] = {
    "similarity": {"Description": "Correlation with the template that the scan was registered to"},
    "outside": {"Description": "Share of the scan's brightness outside of the template's brain"},
    "levels": {"Description": "Number of the training data's axial levels that the scan shows"},
    "skull_stripped": {"Description": "Whether the skull was taken off by brainstage", "Levels": _BOOLEAN},
    "orientation": {"Description": "Directions of the voxel axes as found, as RAS: right, anterior, superior"},
}


def run_participants(
    app: BidsApp, *, workers: Workers = THIS_MACHINE, progress: Progress = silent
) -> list[ScanResult]:
    """Run the participant level: write all there is of the selected participants, whatever is missing.

    Any number of processes may do so at once for one folder, each for participants of its own.

    Args:
        app: The dataset, the model and the folder.
        workers: Where scans are processed; those of a cluster must see all folders under the same paths.
        progress: How to show progress.

    Returns:
        What became of each scan.

    Raises:
        RunError: A file cannot be written.
    """
    write_dataset_files(app)
    results = app.process(workers=workers, done=partial(write_participant_page, app), progress=progress)
    write_phenotype(app)
    return results


def write_dataset_files(app: BidsApp) -> None:
    """Write ``dataset_description.json``, ``README.md`` and ``.bidsignore``: the same in every job.

    Raises:
        RunError: The folder is not writable.
    """
    folder = make_folder(app.folder.path)
    text = methods(app.predictor, app.skull)
    write_json(folder / DESCRIPTION, _description(app, cited(text)))
    ignored = (*IGNORED, "phenotype/") if app.dataset.has_sessions else IGNORED  # BIDS allows it one row a person
    write_text(folder / ".bidsignore", "\n".join(ignored) + "\n")
    content = {
        "name": app.dataset.description["Name"],
        "space": TEMPLATE_SPACE,
        "has_sessions": app.dataset.has_sessions,
        "methods": text,
        "references": cited(text),
        "synthetic": SYNTHETIC_NOTICE if app.dataset.source.synthetic else None,
    }
    write_page(folder / "README.md", "derivatives.md", content)


def write_participant_page(app: BidsApp, participant_id: str) -> Path:
    """Write the page of a participant, ``sub-<label>.html``, and return it.

    It shows the check cuts, the stages and what was measured of each scan that was processed.

    Raises:
        RunError: The folder is not writable.
    """
    results = app.results_of(participant_id)
    text = methods(app.predictor, app.skull)
    content = {
        "participant": f"sub-{participant_id}",
        "scans": [_scan(app, result) for result in results],
        "model": next((result for result in results if result.title), None),
        "methods": text,
        "references": cited(text),
        "synthetic": SYNTHETIC_NOTICE if app.dataset.source.synthetic else None,
    }
    return write_page(app.folder.page(participant_id), "participant.html", content)


def write_phenotype(app: BidsApp) -> Path:
    """Write ``phenotype/brainstage.tsv``, a row for each scan that was processed in any job, and its dictionary.

    Jobs that end at the same time each write the whole table. Whoever finds more results after writing than before
    writes it again, so that the last one is complete without a lock.

    Raises:
        RunError: The folder is not writable.
    """
    columns = _columns(app)
    make_folder(app.folder.phenotype.parent)
    write_json(app.folder.phenotype.with_suffix(".json"), {"MeasurementToolMetadata": _TOOL, **columns})
    names = ["participant_id", *columns]
    joined, results = None, app.all_results()
    while joined != results:
        rows = [names, *([_cell(_row(result).get(name)) for name in names] for result in results)]
        write_text(app.folder.phenotype, "".join("\t".join(row) + "\n" for row in rows))
        joined, results = results, app.all_results()
    return app.folder.phenotype


_TOOL = {"Description": f"brainstage {version('brainstage')}: predicted stages of dementia. {RESEARCH_NOTICE}"}


def _columns(app: BidsApp) -> dict[str, dict[str, Any]]:
    """Return what each column of the table is, but for the first."""
    classes = app.predictor.classes
    names = dict(zip(classes, short_names(classes), strict=True))
    return {
        **({"session_id": {"Description": "The session"}} if app.dataset.has_sessions else {}),
        "status": {"Description": "What became of the scan", "Levels": _STATUSES},
        "reason": {"Description": "Why there is no prediction"},
        "stage": {"Description": f"Most probable stage. {RESEARCH_NOTICE}", "Levels": names},
        **{
            PROB_PREFIX + name: {"Description": f"Probability of the stage {word}, from 0 to 1"}
            for name, word in names.items()
        },
        **{
            SET_PREFIX + name: {
                "Description": f"Whether the stage {word} is in the 90 % prediction set: it cannot be ruled out",
                "Levels": _BOOLEAN,
            }
            for name, word in names.items()
        },
        "stability": {
            "Description": "Share of simulated acquisitions in which the same stage is the most probable"
        },
        "spread": {"Description": "Standard deviation of its probability over these acquisitions"},
        "slices": {"Description": "Number of slices that the prediction is made from"},
        **_MEASURED,
    }


def _row(result: ScanResult) -> dict[str, Any]:
    return {
        **{name: result.measured[name] for name in _MEASURED},
        **result.prediction,
        "participant_id": f"sub-{result.participant_id}",
        "session_id": result.session_id and f"ses-{result.session_id}",
        "status": result.status,
        "reason": result.reason,
    }


def _cell(value: Any) -> str:
    """Return a cell of a TSV file."""
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())


def _scan(app: BidsApp, result: ScanResult) -> dict[str, Any]:
    """Return what the page shows of a scan."""
    classes = app.predictor.classes
    prediction = result.prediction
    stages = [
        {
            "name": word,
            "probability": prediction[PROB_PREFIX + name],
            "in_set": prediction[SET_PREFIX + name],
            "likeliest": name == prediction["stage"],
        }
        for name, word in zip(classes, short_names(classes), strict=True)
        if prediction and prediction[PROB_PREFIX + name] is not None
    ]
    return {"result": result, "stages": stages, "picture": cuts_picture(app.folder.cohort.part(result.scan_id))}


def _description(app: BidsApp, references: list[str]) -> dict[str, Any]:
    source = app.dataset.description
    link = relative_link(app.dataset.folder, app.folder.path)
    origin = {"URL": link, "DOI": source.get("DatasetDOI")}
    return {
        "Name": f"brainstage: predicted stages of dementia for {source['Name']}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "brainstage",
                "Version": version("brainstage"),
                "Description": f"model {app.predictor.about.get('recipe')}, weights {app.predictor.hash}",
            }
        ],
        "SourceDatasets": [{name: value for name, value in origin.items() if value}],
        "DatasetLinks": {SOURCE_NAME: link},
        "ReferencesAndLinks": references,
    }
