"""Remake the models that come with the package, their manifests and cards.

    python benchmarks/patient.py --write nested.json
    python tools/make_models.py --nested nested.json [patient] [compact]

reads the public dataset (BRAINSTAGE_DATA, or what `brainstage data fetch` downloaded), cross-validates each recipe
over people, fits it and writes src/brainstage/models/weights/NAME. Ten minutes on a laptop.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainstage import cross_validate, evaluate_patients, load_recipe, load_slices, train
from brainstage.core.files import sha256
from brainstage.core.progress import progress_bar
from brainstage.core.run import RunFolder
from brainstage.core.schema import read_metadata, short_names
from brainstage.datasets.splits import Splits
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import PatientEvaluation
from brainstage.evaluation.slices import evaluate
from brainstage.inference.prediction_table import prediction_table
from brainstage.inference.predictor import Predictor
from brainstage.models.folder import WEIGHTS
from brainstage.models.weights import bundled_folder
from brainstage.report.cards import NEW_PEOPLE, OPTIMISTIC, Card, write_card
from brainstage.report.checklists import write_checklists
from brainstage.report.run_facts import facts_of_run

KEPT = ("recipe", "protocol", "selection", "leakage", "data_hash", "synthetic", "versions")
POPULATION = "the 200 of the OASIS-1 study"
"""Of whom the prediction sets are a statement."""
PEOPLE = (
    "Its people are 200 of the OASIS-1 study (Marcus et al. 2007, J. Cogn. Neurosci. 19, 1498): 100 Non, 70 "
    "Very mild, 28 Mild, 2 Moderate. The 100 with dementia are older than 60; how old the other 100 are, and "
    "who is a man and who a woman, the public slices do not tell. Wide ventricles come with age too."
)
REFERENCE = {
    "count": 200,
    "study": "OASIS-1 (Marcus et al. 2007, J. Cogn. Neurosci. 19, 1498)",
    "stages": {"Non_Demented": 100, "Very_Mild_Demented": 70, "Mild_Demented": 28, "Moderate_Demented": 2},
    "ages": "The 100 with dementia are older than 60; how old the other 100 are, the public slices do not tell.",
    "sexes": "Who is a man and who a woman, the public slices do not tell.",
}
"""The people of a bundled model, as the page describes them."""
ACQUISITIONS = (
    "Each scan is looked at as it is and as four simulated acquisitions would show it (noise, sharpness, contrast, "
    "brightness, position, size); the prediction is their mean."
)

PATIENT = Card(
    name="brainstage patient",
    what=(
        "Stages a person from axial brain slices, one or many: histograms of edge directions by place and level "
        "and of grey values by level, ridge regression fitted to the levels at hand, proportional odds. It is "
        "fitted to nine acquisitions of each person, of which eight are simulated, so that another scanner's "
        "noise, contrast or position changes its predictions little. It holds the histograms of its 200 "
        "training people (edges in 64 cells of 16×16 pixels and 24 grey values a slice, 8 bits a number) and no "
        "picture."
    ),
    fitted_on="all 200 people",
    judged=(
        "Out of fold: five times five folds of people, each predicted by a model fitted on the others. First "
        "the procedure, kind of features, strength and target chosen inside the folds "
        "(`benchmarks/patient.py`); the model here is what the procedure chooses from all 200 people. Then that "
        "recipe as it is: it was chosen with all 200 people in view, so its figures are optimistic."
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
        "First row: the official test side, which shows the same heads as the training side. Second: the "
        "nearest training slice there, without any training. The others: out of fold over people (protocol "
        "patient), the recipe fitted anew for each fold; its settings were chosen with these people in view, so "
        "these figures are optimistic."
    ),
    limits=(
        "It recognises the people of its training set; on others it is hardly better than always predicting Non.",
        "Its scores are not calibrated probabilities.",
        *PATIENT.limits[:3],
    ),
)


def main() -> None:
    """Judge, fit and write the models named, or both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help="patient or compact; without one both")
    parser.add_argument(
        "--nested", type=Path, help="the file that benchmarks/patient.py --write wrote; for patient"
    )
    arguments = parser.parse_args()
    names = arguments.names or ["patient", "compact"]
    if "patient" in names and not arguments.nested:
        parser.error("patient needs --nested FILE; python benchmarks/patient.py --write FILE makes it")
    slices = load_slices(progress=progress_bar)
    with tempfile.TemporaryDirectory() as folder:
        if "patient" in names:
            make_patient(slices, Path(folder), json.loads(arguments.nested.read_text(encoding="utf-8")))
        if "compact" in names:
            make_compact(slices, Path(folder))


def make_patient(slices: SliceTable, out: Path, nested: dict[str, Any]) -> None:
    """Write the patient model; ``nested`` has the figures of the procedure, chosen inside the folds."""
    run = cross_validate(slices, "patient", name="patient", out=out, progress=progress_bar)
    whole, single = evaluate_patients(run), evaluate_patients(one_slice_each(slices, run, out))
    own = f"{OPTIMISTIC}: the recipe as it is"
    figures = {**rows(whole, f"{own}, all slices"), **rows(single, f"{own}, one slice")}
    figures |= rows(whole, "linear baseline, all slices", "linear baseline")
    details = [
        "These figures are of the procedure (protocol patient, no person on both sides): kind of features, "
        "strength and target were chosen among other people than those whom it was asked about. The model here is "
        "what the procedure chooses from all 200 people.",
        f"That recipe as it is was chosen with all 200 people in view, so its own figures are optimistic: "
        f"{in_words(scores_of(whole))}; from one slice, drawn at random, {in_words(scores_of(single))}. "
        f"{sets_in_words(whole)}",
        PEOPLE,
        ACQUISITIONS,
    ]
    four, two = (nested["figures"][f"chosen inside the folds, {view}"] for view in ("4 stages", "2 stages"))
    about = {
        "performance": (
            "On people whom it had not seen this procedure told any dementia from none with AUROC "
            f"{interval(two['auroc_ovr'])} and named the right one of four stages for "
            f"{interval(four['accuracy'])} of them; always answering Non is right for 0.50."
        ),
        "population": POPULATION,
        "people": REFERENCE,
        "details": details,
        "nested": nested["figures"],
        "figures": figures,
    }
    write(run, PATIENT, about)
    facts = facts_of_run(run, evaluate(run), whole, slices, nested["figures"])
    chosen = (
        "Kind of features, strength and target are those that inner folds choose on all 200 people "
        "(`benchmarks/patient.py`); the figures that stand first are of this choice, made inside each fold. The "
        "recipe as it is was chosen with all people in view, so its own figures are optimistic."
    )
    facts = replace(facts, method=replace(facts.method, selection=chosen))
    write_checklists(facts, bundled_folder("patient"))


def make_compact(slices: SliceTable, out: Path) -> None:
    """Write the network, fitted to the recipe's last epoch on all official training rows."""
    run = train(
        slices, load_recipe("compact", validation_share=0.0), name="compact", out=out, progress=progress_bar
    )
    official = evaluate(run)
    crossed = cross_validate(slices, "compact", name="folds", out=out, progress=progress_bar)
    folds, by_slice = evaluate_patients(crossed), evaluate(crossed)
    nearest = official.baselines["nearest_training_slice"]
    figures = {
        name: {score: value.to_dict() for score, value in scores.items()}
        for name, scores in (
            ("official test slices, 4 stages", official.scores.overall),
            (
                "official test slices, nearest training slice",
                {"accuracy": nearest.accuracy, "weighted_f1": nearest.weighted_f1},
            ),
            (f"{OPTIMISTIC}: slices of {NEW_PEOPLE}, 4 stages", by_slice.scores.overall),
        )
    }
    accuracy = official.scores.overall["accuracy"]
    about = {
        "performance": (
            f"It knows the people of its training set: it is right on {accuracy.value:.3f} of their other "
            f"slices, and the most similar training slice on {nearest.accuracy.value:.3f} without any training. "
            f"On other people {in_words(scores_of(folds))}, which is optimistic, for its settings were chosen "
            "with them in view; always answering Non is right for 0.50."
        ),
        "people": REFERENCE,
        "details": [PEOPLE],
        "figures": figures | rows(folds, f"{OPTIMISTIC}: {NEW_PEOPLE}, all slices"),
    }
    write(run, COMPACT, about)
    write_checklists(facts_of_run(crossed, by_slice, folds, slices), bundled_folder("compact"))


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
        found = predictor.predict_features(
            predictor.extract_features([slices.images[slices.row_of[slice_id]] for slice_id in chosen])
        )
        about = read_metadata(pq.read_table(run.predictions))
        name = sha256(model.model / WEIGHTS)
        split = ["test"] * len(chosen)
        tables.append(
            prediction_table(
                slices,
                chosen,
                found.probabilities,
                split=split,
                fold=number,
                model=name,
                metadata=about,
                conformal_threshold=found.conformal_threshold,
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


def scores_of(evaluation: PatientEvaluation) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scores of four stages and of any dementia."""
    four, *_, two = (view.rows["model"] for view in evaluation.views)
    return four["accuracy"].to_dict(), two["auroc_ovr"].to_dict()


def in_words(scores: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """Return accuracy of four stages and AUROC of any dementia in words."""
    accuracy, auroc = scores
    return f"AUROC {interval(auroc)} for any dementia, accuracy {interval(accuracy)} of four stages"


def interval(score: dict[str, Any]) -> str:
    """Return a score with its interval."""
    return f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


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
