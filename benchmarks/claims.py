"""Claim: recipes that score well on the public split recognise people, they do not stage them.

    python benchmarks/claims.py [--rows nearest linear compact] [--weights vit=FOLDER] [--figure claims.png]

Each row is trained and tested three times: on the public split, on a split by slice of our own, and on folds of
people. Nothing is chosen on the way: every recipe is trained on all training slices, to the last epoch of its
schedule, and looks at its test slices once. Pretrained weights are looked for in the cache and on the Hugging Face
hub, or in a folder named with ``--weights``; where there are none, the row says so. The page
docs/explanation/claims.md quotes the table and the figure.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from matplotlib.figure import Figure
from sklearn.model_selection import train_test_split
from transformers import MobileNetV2ForImageClassification

from brainstage.core.arrays import Float64Array
from brainstage.core.config import TrainConfig
from brainstage.core.errors import BrainstageError
from brainstage.core.files import atomic
from brainstage.core.hub import download
from brainstage.core.schema import PROB_PREFIX
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import Fold, Splits, make_splits
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.slices import read_side
from brainstage.inference.classifiers import SliceClassifier
from brainstage.inference.predictor import Predictor
from brainstage.models.backbones import backbones_folder, find_backbone
from brainstage.models.engines.torch import TorchEngine
from brainstage.models.folder import CONFIG, WEIGHTS
from brainstage.models.recipes import load_recipe
from brainstage.report.charts import BLUE, ORANGE
from brainstage.stats import metrics
from brainstage.studies.protocols import shuffle_people
from brainstage.training.baselines import linear_baseline, nearest_training_slice
from brainstage.training.inputs import prepare
from brainstage.training.provenance import optimism
from brainstage.training.train import train
from brainstage.training.trainer import fit_network, uses_bf16

SEED = 0
"""Of our own split, and of the stages dealt out at random."""
FOLDS = 5
"""Of people."""
OFFICIAL, BY_SLICE, PATIENT = "official", "by slice", "patient"
COLUMNS = {
    OFFICIAL: "the public split",
    BY_SLICE: "a split by slice of our own, 80 to 20, stratified",
    PATIENT: "five folds of people",
}
HUB = {
    "resnet": "microsoft/resnet-18",
    "mobilenet": "google/mobilenet_v2_1.0_224",
    "vit": "google/vit-base-patch16-224",
    "report": str(load_recipe("report").backbone),
}
"""Where the pretrained rows' weights come from."""

Predict = Callable[[SliceTable, Splits], Float64Array]
"""From the data and its folds to probabilities of the test slices, fold after fold."""
PredictFold = Callable[[SliceTable, Splits, int], Float64Array]
"""The same for the fold of a number."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    predict: Predict | None  # None: its weights are not here
    config: TrainConfig | None = None  # says on which slices the settings were chosen
    shuffled: bool = False  # whether stages are dealt out to people at random
    one_fold: bool = False  # whether training takes so long that one fold of people must do
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """The accuracy of a row under one protocol."""

    score: metrics.Score
    marks: str


def main() -> None:
    """Print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"folds of people that are trained, of {FOLDS}")
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="NAME=FOLDER", help=f"pretrained: {', '.join(HUB)}"
    )
    parser.add_argument("--figure", type=Path, help="PNG file to draw")
    options = parser.parse_args()
    start = time.perf_counter()
    slices = load_slices(options.data)
    given = {name: folder for name, _, folder in (pair.partition("=") for pair in options.weights)}
    if not set(given) <= set(HUB):
        parser.error(f"--weights: expected NAME=FOLDER with a name of {', '.join(HUB)}")
    print_header(slices)
    drawn: dict[str, dict[str, Cell]] = {}
    rows = [make(find_weights(name, given)) for name, make in ROWS.items() if name in options.rows]
    for row in rows:
        if row.predict is None:
            print(f"{row.name:{WIDTH}}needs weights from the hub: not run here", flush=True)
            continue
        began = time.perf_counter()
        drawn[row.name] = judge(row, row.predict, slices, options.folds)
        print_row(row, drawn[row.name], time.perf_counter() - began)
    print_notes(rows, drawn, time.perf_counter() - start)
    if options.figure:
        draw(options.figure, drawn, largest_share(slices))


# --- protocols --------------------------------------------------------------------------------------------------


def make_protocols(slices: SliceTable, folds: int = FOLDS) -> dict[str, Splits]:
    """Return the folds of each column; no slice is held out to choose anything on."""
    config = load_recipe("compact", validation_share=0.0)
    official = make_splits(slices, config)
    ids = [slice_id for slice_id, row in slices.row_of.items() if slices.labels[row] is not None]
    stages = [slices.labels[slices.row_of[slice_id]] for slice_id in ids]
    rest, test = train_test_split(ids, test_size=0.2, stratify=stages, random_state=SEED)
    people = make_splits(slices, config.replace(protocol="patient", folds=FOLDS))
    return {
        OFFICIAL: official,
        BY_SLICE: replace(official, folds=(Fold(tuple(rest), (), tuple(test)),)),
        PATIENT: replace(people, folds=people.folds[:folds]),
    }


def judge(row: Row, predict: Predict, slices: SliceTable, folds: int) -> dict[str, Cell]:
    """Return a row's accuracy under each protocol."""
    slices = shuffle_people(slices, SEED) if row.shuffled else slices
    protocols = make_protocols(slices, 1 if row.one_fold else folds)
    return {
        column: Cell(accuracy(slices, splits, predict(slices, splits)), marks_of(row, slices, splits))
        for column, splits in protocols.items()
    }


def accuracy(slices: SliceTable, splits: Splits, probabilities: Float64Array) -> metrics.Score:
    """Return the share of test slices that are right, with an interval over people."""
    rows = [slices.row_of[slice_id] for fold in splits.folds for slice_id in fold.test]
    people = [str(slices.patients[row]) for row in rows]
    scores = metrics.score(slices.targets(rows), probabilities, slices.classes, groups=people)
    return scores.overall["accuracy"]


def marks_of(row: Row, slices: SliceTable, splits: Splits) -> str:
    """Return the signs beside a figure, which :data:`MARKS` explains."""
    config = row.config.replace(protocol=splits.protocol) if row.config else None
    tuned = config is not None and any(optimism(config, slices, fold) for fold in splits.folds)
    return "*" * tuned + "+" * (splits.protocol == "patient" and len(splits.folds) < FOLDS)


# --- rows -------------------------------------------------------------------------------------------------------


def fold_by_fold(predict: PredictFold) -> Predict:
    """Return a prediction of all folds from that of one."""
    return lambda slices, splits: np.concatenate(
        [predict(slices, splits, number) for number in range(len(splits.folds))]
    )


def predict_largest(slices: SliceTable, splits: Splits, number: int) -> Float64Array:
    """Answer the most frequent stage of the training slices."""
    fold = splits.folds[number]
    stage = metrics.majority(targets(slices, fold.train), len(slices.classes))
    return np.tile(np.eye(len(slices.classes))[stage], (len(fold.test), 1))


def predict_nearest(slices: SliceTable, splits: Splits) -> Float64Array:
    """Answer the stage of the training slice with the most similar pixels."""
    return probabilities_of(nearest_training_slice(slices, dict(enumerate(splits.folds)), {}), slices)


def predict_linear(slices: SliceTable, splits: Splits) -> Float64Array:
    """Predict by logistic regression on coarse pixels."""
    return probabilities_of(linear_baseline(slices, splits, {}), slices)


def probabilities_of(table: pa.Table, slices: SliceTable) -> Float64Array:
    """Return the probabilities in a prediction table that has test slices alone."""
    return np.stack([table[PROB_PREFIX + name].to_numpy() for name in slices.classes], axis=1).astype(np.float64)


def predict_by_recipe(config: TrainConfig) -> Predict:
    """Return how a network predicts that is trained as ``brainstage train`` does it."""

    def predict(slices: SliceTable, splits: Splits, number: int) -> Float64Array:
        asked = config.replace(protocol=splits.protocol, fold=number)
        with tempfile.TemporaryDirectory() as folder:
            return read_side(train(slices, asked, name="run", out=folder, splits=splits)).probabilities

    return fold_by_fold(predict)


CNN = load_recipe("compact", validation_share=0.0, image_size=64, crop_share=1.0, max_shift=0)
"""What the small CNN takes from the package: whole slices of 64×64 pixels, without augmentation."""
CNN_EPOCHS, CNN_BATCH = 15, 32


def predict_by_cnn(slices: SliceTable, splits: Splits, number: int) -> Float64Array:
    """Train a plain CNN with Adam, as many notebooks and papers do."""
    fold = splits.folds[number]
    torch.manual_seed(number)
    preprocessing, training, _ = prepare(slices, fold, CNN)
    batch = training.__getitems__(list(range(len(training))))
    network = small_cnn(len(slices.classes)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(CNN_EPOCHS):
        for rows in torch.split(torch.randperm(len(training)), CNN_BATCH):
            with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16(CNN)):
                logits = network(batch["pixel_values"][rows])
                loss = torch.nn.functional.cross_entropy(logits, batch["labels"][rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network.eval()
    pixels = preprocessing.normalise(preprocessing.resize(images(slices, fold.test)))
    with torch.inference_mode():
        return network(torch.from_numpy(pixels)).softmax(dim=1).double().numpy()


def small_cnn(classes: int) -> Any:
    """Return three convolutions with pooling and two dense layers, for 64×64 pixels; 0.55 million parameters."""
    layers: list[torch.nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [torch.nn.Conv2d(before, after, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    dense = [torch.nn.Linear(64 * 8 * 8, 128), torch.nn.ReLU(), torch.nn.Dropout(0.25)]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), *dense, torch.nn.Linear(128, classes))


MOBILENET = Preprocessing(224, crop_share=0.875, mean=(0.5,) * 3, std=(0.5,) * 3, resample=2)
"""What the hub's image processor of MobileNetV2 does; the package does not read that kind itself."""


def predict_by_mobilenet(folder: Path, config: TrainConfig) -> Predict:
    """Return how a MobileNetV2 predicts whose every weight is fine-tuned."""

    def predict(slices: SliceTable, splits: Splits, number: int) -> Float64Array:
        fold = splits.folds[number]
        _, training, _ = prepare(slices, fold, config, MOBILENET)
        model = fit_network(open_mobilenet(folder, slices.classes), training, None, config).model
        engine = TorchEngine(model.cpu().float().eval())
        predictor = Predictor(SliceClassifier(engine, MOBILENET), "", {})
        return predictor.predict_proba(images(slices, fold.test)).astype(np.float64)

    return fold_by_fold(predict)


def open_mobilenet(folder: Path, classes: tuple[str, ...]) -> Any:
    """Return the pretrained network with a new head; weights in pickles are refused."""
    torch.manual_seed(SEED)
    model = MobileNetV2ForImageClassification.from_pretrained(
        folder,
        num_labels=len(classes),
        ignore_mismatched_sizes=True,
        use_safetensors=True,
        local_files_only=True,
    )
    model.config.id2label = dict(enumerate(classes))
    return model


def images(slices: SliceTable, slice_ids: Sequence[str]) -> list[Any]:
    """Return the pictures of some slices."""
    return [slices.images[slices.row_of[slice_id]] for slice_id in slice_ids]


def targets(slices: SliceTable, slice_ids: Sequence[str]) -> Any:
    """Return the class numbers of some slices."""
    return slices.targets([slices.row_of[slice_id] for slice_id in slice_ids])


# --- pretrained weights -----------------------------------------------------------------------------------------


def find_weights(name: str, given: dict[str, str]) -> Path | None:
    """Return the folder of a row's pretrained weights; None where it needs none, or where there are none."""
    if name in given:
        return Path(given[name])
    if name not in HUB:
        return None
    try:
        return fetch_mobilenet(HUB[name]) if name == "mobilenet" else find_backbone(HUB[name])
    except BrainstageError:
        return None


def fetch_mobilenet(repo: str) -> Path:
    """Download a MobileNetV2 into the cache of backbones, whose own way in refuses architectures it cannot save."""
    folder = backbones_folder() / repo.replace("/", "--")
    if not (folder / WEIGHTS).is_file():
        by_hand = "or name a folder that has it with --weights mobilenet=FOLDER"
        download(repo, [CONFIG, WEIGHTS], folder, repo_type="model", by_hand=by_hand)
    return folder


def fine_tuned(folder: Path) -> TrainConfig:
    """Return how ResNet and MobileNet are fine-tuned: as Thamer/resnet-fine_tuned on the hub was, on these data."""
    return load_recipe(
        "fine-tune", backbone=str(folder), epochs=15, learning_rate=2e-4, batch_size=64, validation_share=0.0
    )


def report_recipe(folder: Path) -> TrainConfig:
    """Return the report's recipe with the last epoch, where the report took the best one on the test slices."""
    return load_recipe("report", backbone=str(folder), selection="validation")


def recipe_row(name: str, recipe: str, *, shuffled: bool = False) -> Row:
    """Return the row of a recipe that starts from random weights."""
    config = load_recipe(recipe, validation_share=0.0)
    return Row(name, predict_by_recipe(config), config, shuffled)


def resnet_row(folder: Path | None) -> Row:
    """Return the row of the fine-tuned ResNet."""
    predict = predict_by_recipe(fine_tuned(folder)) if folder else None
    return Row("ResNet-18, fine-tuned", predict, one_fold=True)


def mobilenet_row(folder: Path | None) -> Row:
    """Return the row of the fine-tuned MobileNet."""
    predict = predict_by_mobilenet(folder, fine_tuned(folder)) if folder else None
    return Row("MobileNetV2, fine-tuned", predict, one_fold=True)


def vit_row(folder: Path | None) -> Row:
    """Return the row of the ViT whose base is frozen."""
    return Row("ViT-base, frozen base", predict_by_recipe(report_recipe(folder)) if folder else None)


def report_row(folder: Path | None) -> Row:
    """Return the row of the report's own backbone."""
    predict = predict_by_recipe(report_recipe(folder)) if folder else None
    note = "its author had fine-tuned its base on this dataset, perhaps on these test slices too"
    return Row("the report's recipe", predict, note=note)


ROWS: dict[str, Callable[[Path | None], Row]] = {
    "largest": lambda _: Row("always the largest class", fold_by_fold(predict_largest)),
    "linear": lambda _: Row("coarse pixels, logistic regression", predict_linear),
    "nearest": lambda _: Row("nearest training slice, untrained", predict_nearest),
    "cnn": lambda _: Row("small CNN", fold_by_fold(predict_by_cnn)),
    "compact": lambda _: recipe_row("compact", "compact"),
    "resnet": resnet_row,
    "mobilenet": mobilenet_row,
    "vit": vit_row,
    "report": report_row,
    "nearest-shuffled": lambda _: Row("nearest slice, stages shuffled", predict_nearest, shuffled=True),
    "compact-shuffled": lambda _: recipe_row("compact-fast, stages shuffled", "compact-fast", shuffled=True),
}
"""From the folder of a row's weights, or None, to the row."""


# --- output -----------------------------------------------------------------------------------------------------

WIDTH = 36
MARKS = {
    "*": "the settings were chosen on slices of these same people: optimistic",
    "+": f"not all of the {FOLDS} folds were trained",
}


def print_header(slices: SliceTable) -> None:
    """Print what each column is, with its leakage verdict."""
    people = len(set(slices.patients))
    print(
        f"{len(slices.images):,} slices of {people} people · share of test slices that are right, 95 % over people"
    )
    for column, splits in make_protocols(slices).items():
        print(f"  {column:9} {COLUMNS[column]}: {splits.verdict}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {date.today()}\n")
    print(f"{'':{WIDTH}}" + "".join(f"{column:23}" for column in COLUMNS) + "seconds")


def print_row(row: Row, cells: dict[str, Cell], seconds: float) -> None:
    """Print one line."""
    texts = [f"{one.score.value:.4f} {one.score.low:.3f}–{one.score.high:.3f}{one.marks}" for one in cells.values()]
    print(f"{row.name:{WIDTH}}" + "".join(f"{text:23}" for text in texts) + f"{seconds:7.0f}", flush=True)


def print_notes(rows: list[Row], drawn: dict[str, dict[str, Cell]], seconds: float) -> None:
    """Print what the marks mean, and the time of everything."""
    print()
    used = {mark for cells in drawn.values() for cell in cells.values() for mark in cell.marks}
    for mark in sorted(used):
        print(f"{mark} {MARKS[mark]}")
    if any(row.shuffled for row in rows):
        print("stages shuffled: dealt out to people at random, so there is nothing to learn but who is who")
    for row in rows:
        if row.note and row.name in drawn:
            print(f"{row.name}: {row.note}")
    print(f"{seconds:.0f} s in all")


def largest_share(slices: SliceTable) -> float:
    """Return the share of the most frequent stage."""
    counts = np.bincount(targets(slices, list(slices.row_of)), minlength=len(slices.classes))
    return float(counts.max() / counts.sum())


def draw(target: Path, rows: dict[str, dict[str, Cell]], largest: float) -> None:
    """Draw the accuracy of each row under each protocol to a PNG file."""
    figure = Figure(figsize=(8.4, 1.8 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows) - 1, -1, -1)
    for place, cells in zip(places, rows.values(), strict=True):
        values = [cell.score.value for cell in cells.values()]
        axes.plot([min(values), max(values)], [place] * 2, color="0.85", linewidth=6, zorder=0)
    sides = (
        (OFFICIAL, "official: the public split; the same people on both sides", ORANGE, "s", 0.2),
        (BY_SLICE, "by slice: a split of our own; the same people on both sides", "k", "D", 0.0),
        (PATIENT, "patient: a split by people; nobody on both sides", BLUE, "o", -0.2),
    )
    for column, label, colour, marker, offset in sides:
        scores = [cells[column].score for cells in rows.values()]
        values = [one.value for one in scores]
        spread = [[one.value - one.low for one in scores], [one.high - one.value for one in scores]]
        heights = [place + offset for place in places]
        axes.errorbar(values, heights, xerr=spread, fmt=marker, color=colour, label=label, capsize=2, markersize=5)
        left = column == PATIENT  # beside the other two there is no room
        for one, height in zip(scores, heights, strict=True):
            axes.annotate(
                f"{one.value:.2f}",
                (one.low if left else one.high, height),
                (-5 if left else 5, -3),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=8,
                color=colour,
            )
    axes.axvline(largest, linestyle=":", color="0.4", label=f"always the largest class, {largest:.2f}")
    axes.set_yticks(list(places), list(rows))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    lowest = min(cell.score.low for cells in rows.values() for cell in cells.values())
    axes.set_xlim(min(0.3, lowest - 0.05), 1.06)
    axes.set_xlabel("share of test slices that are right, four stages; lines: 95 % intervals over people")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(frameon=False, ncols=2, loc="outside lower center", fontsize=9)
    figure.suptitle("The same recipes on people they have seen, and on people they have not", fontsize=11)
    with atomic(target) as part:
        figure.savefig(part, format="png", dpi=150)


if __name__ == "__main__":
    main()
