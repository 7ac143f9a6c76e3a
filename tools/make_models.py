"""Remake the models that come with the package, their manifests and cards.

    python tools/make_models.py [patient] [compact]

reads the public dataset (BRAINSTAGE_DATA, or what `brainstage data fetch` downloaded), cross-validates each recipe
over people, fits it and writes src/brainstage/models/weights/NAME. Ten minutes on a laptop.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainstage import cross_validate, evaluate_patients, load_recipe, load_slices, train
from brainstage.core.files import sha256
from brainstage.core.progress import terminal
from brainstage.core.run import RunFolder
from brainstage.core.schema import read_metadata, short_names
from brainstage.datasets.splits import Splits
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import PatientEvaluation
from brainstage.evaluation.slices import evaluate
from brainstage.inference.predictor import Predictor, prediction_table
from brainstage.models.folder import WEIGHTS
from brainstage.models.weights import bundled_folder
from brainstage.report.cards import Card, write_card

KEPT = ("recipe", "protocol", "selection", "leakage", "optimistic", "data_hash", "synthetic", "versions")

PATIENT = Card(
    name="brainstage patient",
    what=(
        "Stages a person from axial brain slices, one or many: histograms of edge directions by place and level, "
        "ridge regression fitted to the levels at hand, proportional odds. It holds the edge histograms of its "
        "200 training people (64 cells of 16×16 pixels a slice, 8 bits a number) and no picture."
    ),
    fitted_on="all 200 people",
    judged=(
        "Out of fold: five times five folds of people, each predicted by a model fitted on the others. The recipe "
        "was tuned on these same folds, so its figures are optimistic; chosen inside the folds, "
        "`benchmarks/patient.py` has them lower (docs/decisions/patient.md)."
    ),
    limits=(
        "Two Moderate people: nothing can be claimed for that stage.",
        "Heads must be skull-stripped, registered and cut as in the training data. Out-of-distribution slices "
        "are refused; mirrored heads and heads of another study are not recognised as such.",
        "One study (OASIS-1, T1-weighted); age and sex are not known here and were not matched between stages.",
        "The dataset's own slices show the people it was fitted on: its predictions for them test nothing.",
    ),
)
COMPACT = Card(
    name="brainstage compact",
    what=(
        "Stages one slice: a small residual network (0.41 million parameters) from scratch. It is here to show "
        "what the official split rewards; for people not in the training set take `patient`."
    ),
    fitted_on="the 5,120 slices of the official training side, which show all 200 people",
    judged=(
        "First row: the official test side, which shows the same heads as the training side. The others: out of "
        "fold over people (protocol patient), the recipe fitted anew for each fold."
    ),
    limits=(
        "It recognises the people of its training set; on others it is hardly better than always predicting Non.",
        "Its scores are not calibrated probabilities.",
        *PATIENT.limits[:3],
    ),
)


def main() -> None:
    """Judge, fit and write the models named, or both."""
    makers = {"patient": make_patient, "compact": make_compact}
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(makers)}; without one all")
    slices = load_slices(progress=terminal)
    with tempfile.TemporaryDirectory() as folder:
        for name in parser.parse_args().names or makers:
            makers[name](slices, Path(folder))


def make_patient(slices: SliceTable, out: Path) -> None:
    """Write the patient model."""
    run = cross_validate(slices, "patient", name="patient", out=out, progress=terminal)
    whole, single = evaluate_patients(run), evaluate_patients(one_slice_each(slices, run, out))
    performance = (
        f"On people not in the training set (protocol patient, out of fold): from all slices {in_words(whole)}; "
        f"from one slice, drawn at random, {in_words(single)}. Always predicting Non has 0.50. "
        f"{sets_in_words(whole)}"
    )
    figures = {**rows(whole, "all slices"), **rows(single, "one slice")}
    figures |= rows(whole, "linear baseline, all slices", "linear baseline")
    write(run, PATIENT, {"performance": performance, "figures": figures})


def make_compact(slices: SliceTable, out: Path) -> None:
    """Write the network, fitted to the recipe's last epoch on all official training rows."""
    run = train(slices, load_recipe("compact", validation_share=0.0), name="compact", out=out, progress=terminal)
    official = evaluate(run).scores.overall
    crossed = cross_validate(slices, "compact", name="folds", out=out, progress=terminal)
    folds, by_slice = evaluate_patients(crossed), evaluate(crossed)
    performance = (
        f"On people not in the training set (protocol patient, out of fold): from all slices {in_words(folds)}. "
        f"Always predicting Non has 0.50. The official split's {official['accuracy'].value:.2f} is of people in "
        "the training set."
    )
    figures = {
        name: {score: value.to_dict() for score, value in scores.items()}
        for name, scores in (
            ("official test slices, 4 stages", official),
            ("slices of people not in the training set, 4 stages", by_slice.scores.overall),
        )
    }
    about = {"performance": performance, "figures": figures | rows(folds, "people, all slices")}
    write(run, COMPACT, about | {"optimistic": folds.optimistic})


def one_slice_each(slices: SliceTable, run: RunFolder, out: Path) -> Path:
    """Write predictions of one slice of each test person, drawn at random in each fold, read alone."""
    splits = Splits.load(run.splits, slices)
    draw = np.random.default_rng(0)
    tables = []
    for number, fold in enumerate(splits.folds):
        of: dict[str | None, list[str]] = {}
        for slice_id in fold.test:
            of.setdefault(splits.patient_of[slice_id], []).append(slice_id)
        chosen = [str(draw.choice(ids)) for ids in of.values()]
        model = RunFolder(run.path / "folds" / f"{number:02d}")
        predictor = Predictor.open(model.path)
        scores, threshold = predictor.predict_features(
            predictor.extract_features([slices.images[slices.row_of[slice_id]] for slice_id in chosen])
        )
        about = read_metadata(pq.read_table(run.predictions))
        name = sha256(model.model / WEIGHTS)
        split = ["test"] * len(chosen)
        tables.append(
            prediction_table(
                slices,
                chosen,
                scores,
                split=split,
                fold=number,
                model=name,
                metadata=about,
                conformal_threshold=threshold,
            )
        )
    pq.write_table(pa.concat_tables(tables), out / "one_slice.parquet")
    return out / "one_slice.parquet"


def rows(evaluation: PatientEvaluation, name: str, row: str = "model") -> dict[str, Any]:
    """Return the figures of each view."""
    return {
        f"{name}, {view.name}": {score: value.to_dict() for score, value in view.rows[row].items()}
        for view in evaluation.views
    }


def in_words(evaluation: PatientEvaluation) -> str:
    """Return accuracy of four stages and AUROC of any dementia in words."""
    four, *_, two = (view.rows["model"] for view in evaluation.views)
    accuracy, auroc = four["accuracy"], two["auroc_ovr"]
    return (
        f"accuracy {accuracy.value:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}] of four stages and "
        f"AUROC {auroc.value:.2f} [{auroc.low:.2f}, {auroc.high:.2f}] for any dementia"
    )


def sets_in_words(evaluation: PatientEvaluation) -> str:
    """Return in words how often sets hold the stage; whole stacks and single slices differ little in it."""
    if evaluation.sets is None:
        return ""
    coverage, stages = evaluation.sets.coverage, evaluation.sets.by_stage
    shares = zip(short_names(list(stages)), stages.values(), strict=True)
    by_stage = ", ".join(f"{name} {share.value:.2f}" for name, share in shares)
    interval = f"[{coverage.low:.2f}, {coverage.high:.2f}]"
    return f"Its 90 % sets hold the stage of {coverage.value:.2f} {interval} of people ({by_stage})."


def write(run: RunFolder, card: Card, about: dict[str, Any]) -> None:
    """Write a model's folder: weights, manifest, card."""
    target = RunFolder(bundled_folder(run.path.name))
    shutil.rmtree(target.path, ignore_errors=True)
    shutil.copytree(run.model, target.model)
    manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
    about = {**{key: manifest[key] for key in KEPT if key in manifest}, **about}
    target.write_manifest(about)
    size = sum(file.stat().st_size for file in target.model.iterdir())
    print(write_card(target.path, card, {**about, "hash": sha256(target.model / WEIGHTS)}), f"{size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
