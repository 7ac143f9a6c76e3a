"""Claim: how well people not in the training set can be staged, and what was tried.

    python benchmarks/patient.py [--write FILE] [--networks]

Five times five folds of people, all rows on the same folds; each figure is the mean of the five repeats, with a 95
% interval over people. Every model is fitted to nine acquisitions of each person and looks at five of those whom it
predicts, as the recipe does. First the recipe ``patient`` as ``train`` fits it. Then nested choice: in each
training part five inner folds judge all kinds of features, strengths of the ridge and targets by log loss, and the
test people are predicted once, by what a procedure makes of that. Cells of 8 pixels are no candidates: level by
level they take 13 MB, and the model's file is to stay below 10. Then each kind alone, strength and target chosen
inside too: those rows were looked at together, so the best of them is optimistic, as are the recipe's own figures.
``--write`` saves the figures of the procedure that the bundled model is quoted with. ``--networks`` adds a 3D
network from scratch on one repeat (three quarters of an hour).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from transformers import AutoModelForImageClassification

from brainstage.core.arrays import Pixels
from brainstage.core.files import write_json
from brainstage.core.parallel import parallel_map
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.datasets.table import SliceTable
from brainstage.models.acquisitions import Acquisition
from brainstage.models.histograms import orientation_histograms, white_matter
from brainstage.models.patient_model import PREDICTION_SEEDS, PatientModel
from brainstage.models.recipes import load_recipe
from brainstage.stats import metrics
from brainstage.stats.ordinal import ProportionalOdds
from brainstage.training.patient import ACQUISITIONS, acquired_features, training_seeds
from brainstage.training.train import train

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Embedding = Callable[[list[Pixels]], NDArray[np.float32]]

STRENGTHS = (0.05, 0.2, 0.8)
POWERS = (1.0, 0.5)
INNER = 1
SEEN = 1 + ACQUISITIONS
"""Acquisitions that models are fitted to, as the recipe is: a person as it is, and random ones of its own."""
SHOWN = (0, *range(SEEN, SEEN + len(PREDICTION_SEEDS) - 1))
"""Those in which a person who is predicted is looked at: as it is, and the recipe's others."""
VIEWS = {"4 stages": ([0], [1], [2], [3]), "3 stages": ([0], [1], [2, 3]), "2 stages": ([0], [1, 2, 3])}


@dataclass
class Cohort:
    """People, their stages and folds, and their slices by level."""

    slices: SliceTable
    order: Rows  # row of each person's slice at each level, (people, 32)
    labels: Rows  # stage of each person
    folds: list[tuple[Rows, Rows]]

    @classmethod
    def load(cls) -> Cohort:
        """Read the public dataset and draw the recipe's folds."""
        slices = load_slices()
        people = sorted({str(patient) for patient in slices.patients})
        number = {patient: row for row, patient in enumerate(people)}
        order = np.empty((len(people), 32), dtype=np.int64)
        levels = slices.rows["slice_index"].to_pylist()
        for row, (patient, level) in enumerate(zip(slices.patients, levels, strict=True)):
            order[number[str(patient)], level] = row
        splits = make_splits(slices, load_recipe("patient"))
        sides = [
            [np.unique([number[str(splits.patient_of[one])] for one in side]) for side in (fold.train, fold.test)]
            for fold in splits.folds
        ]
        return cls(slices, order, slices.targets(order[:, 0].tolist()), [(train, test) for train, test in sides])


def main() -> None:
    """Run every row and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path, help="file for the figures that the bundled model is quoted with")
    parser.add_argument("--networks", action="store_true", help="add the 3D network, 45 minutes")
    arguments = parser.parse_args()
    start = time.perf_counter()
    cohort = Cohort.load()
    kernels = make_kernels(cohort)
    print(f"patient protocol · {len(cohort.order)} people × 5 · features {time.perf_counter() - start:.0f} s")
    columns = ("4 stages", "kappa", "3 stages", "2 stages", "AUROC", "AUROC of each draw of the folds")
    print(" " * 29 + "".join(f"{column:17}" for column in columns))
    recipe = repeats(cohort, predict_by_recipe(cohort))
    show("recipe patient, optimistic", recipe, cohort.labels)
    of_folds = [candidates(cohort, kernels, rest, test) for rest, test in cohort.folds]
    for name, procedure in PROCEDURES.items():
        show(name, nested(cohort, of_folds, procedure), cohort.labels)
    print("strength and target chosen inside, the kind by whoever reads the table, so optimistic:")
    if arguments.write:
        write(arguments.write, nested(cohort, of_folds, PROCEDURES[QUOTED]), cohort.labels)
    for name in kernels:
        show(name, nested(cohort, of_folds, choose_kind(name)), cohort.labels)
    edges = kernels["edges 16 and 32 px"][: len(cohort.labels), : len(cohort.labels)]
    show("  support vectors", repeats(cohort, predict_by_machine(cohort, edges)), cohort.labels, ("2 stages",))
    show("  Gaussian process", repeats(cohort, predict_by_process(cohort, edges)), cohort.labels, ("2 stages",))
    if arguments.networks:
        one = replace(cohort, folds=cohort.folds[:5])
        network = repeats(one, predict_by_network(one))
        show("3D network, one repeat", network, cohort.labels)
        show("recipe, the same repeat", recipe[:1], cohort.labels)
        show("mean of the two", [(network[0] + recipe[0]) / 2], cohort.labels)
    shares = np.tile(np.bincount(cohort.labels) / len(cohort.labels), (len(cohort.labels), 1))
    show("always the largest", [shares], cohort.labels)
    show("shuffled labels", recipe, cohort.labels, judge=metrics.shuffled_labels)
    print("among the ten best inside, of 25 folds:")
    chosen = Counter(one.text for found in of_folds for one in found[:10])
    for text, count in chosen.most_common(12):
        print(f"  {count:2} {text}")
    print("the ten best on all people:")
    for candidate in candidates(cohort, kernels, np.arange(len(cohort.labels)), np.arange(0))[:10]:
        print(f"  {candidate.loss.mean():.4f} {candidate.text}")
    print(f"{time.perf_counter() - start:.0f} s in all")


# --- features ---------------------------------------------------------------------------------------------------


def make_kernels(cohort: Cohort) -> dict[str, Array]:
    """Return a kernel for each kind of features, and for sums of them.

    Rows are all people as they are, then all people in their first random acquisition, and so on.
    """
    parts: dict[str, list[NDArray[np.float32]]] = {}
    taught = self_taught(cohort.slices)
    for number in range(SHOWN[-1] + 1):
        for name, features in describe(cohort, acquired(cohort, number), taught).items():
            parts.setdefault(name, []).append(features)
    alone = {name: linear_kernel(np.concatenate(parts.pop(name))) for name in list(parts)}
    edges = {name: kernel for name, kernel in alone.items() if name.startswith("edges")}
    others = [kernel for name, kernel in alone.items() if name not in edges]
    alone["edges 16 and 32 px"] = np.mean(list(edges.values()), axis=0)
    alone["edges and tones"] = 0.7 * alone["edges 16 and 32 px"] + 0.3 * alone["tones"]
    alone["everything"] = np.mean([alone["edges 16 and 32 px"], *others], axis=0)
    return alone


def acquired(cohort: Cohort, number: int) -> list[Pixels]:
    """Return all slices in one acquisition: as they are, one of their person's, or one that the recipe looks at."""
    images = cohort.slices.images
    if number == 0:
        return list(images)
    if number < SEEN:
        seeds = [row[number] for row in training_seeds(cohort.slices, range(len(images)))]
    else:
        seeds = [PREDICTION_SEEDS[number - SEEN + 1]] * len(images)
    drawn = {seed: Acquisition.draw(int(seed or 0)) for seed in set(seeds)}
    return parallel_map(lambda one: drawn[one[1]].apply(one[0]), list(zip(images, seeds, strict=True)))


def describe(cohort: Cohort, images: list[Pixels], taught: Embedding) -> dict[str, NDArray[np.float32]]:
    """Return features of people, (people, d), of each kind."""
    order = cohort.order

    def slabs(of_slices: NDArray[np.float32], width: int) -> NDArray[np.float32]:
        levels = of_slices[order].reshape(len(order), 32 // width, width, -1)
        return levels.mean(axis=2).reshape(len(order), -1)

    signatures = describe_slices(images)
    roots = {cell: np.sqrt(orientation_histograms(images, cell)) for cell in (16, 32)}
    return {
        **{f"edges {cell} px, {width} levels": slabs(roots[cell], width) for cell in roots for width in (4, 8)},
        "pixels 4 px": slabs(signatures.coarse, 4),
        "tones": slabs(signatures.tones, 8),
        "grain": slabs(signatures.grain, 8),
        "tissue shares 16 px": slabs(tissue_shares(images), 4),
        "taught to tell people apart": slabs(taught(images), 4),
    }


def linear_kernel(features: NDArray[np.float32]) -> Array:
    """Return the scalar products of standardised features, of mean 1 on the diagonal; no label is looked at."""
    spread = features.std(axis=0)
    told = spread > 1e-3 * spread.max()
    rows = (features[:, told] - features[:, told].mean(axis=0)) / spread[told]
    kernel = (rows @ rows.T).astype(np.float64)
    return kernel / np.trace(kernel) * len(kernel)


def tissue_shares(images: list[Pixels]) -> NDArray[np.float32]:
    """Return the shares of fluid, grey and white matter in cells of 16 pixels, by grey value."""
    shares = np.empty((len(images), 3, 8, 8), np.float32)
    for number, image in enumerate(images):
        relative = image / white_matter(image)
        for kind, (low, high) in enumerate(((0.05, 0.5), (0.5, 0.85), (0.85, 9.0))):
            inside = (relative >= low) & (relative < high)
            shares[number, kind] = inside.reshape(8, 16, 8, 16).mean(axis=(1, 3))
    return shares.reshape(len(images), -1)


def self_taught(slices: SliceTable) -> Embedding:
    """Return what a network sees that was taught to tell the people of the training rows apart, without stages."""
    people = tuple(sorted({str(patient) for patient in slices.patients}))
    named = replace(slices.with_labels(slices.patients), classes=people)
    with tempfile.TemporaryDirectory() as folder:
        run = train(named, load_recipe("compact", validation_share=0.0), out=folder, name="people")
        network = AutoModelForImageClassification.from_pretrained(run.model).resnet.eval()
        preprocessing = Preprocessing.open(run.model)

    def embed(images: list[Pixels]) -> NDArray[np.float32]:
        parts = []
        with torch.inference_mode():
            for first in range(0, len(images), 128):
                pixels = preprocessing.normalise(preprocessing.resize(images[first : first + 128]))
                parts.append(network(torch.from_numpy(pixels)).pooler_output.flatten(1).numpy())
        return np.concatenate(parts)

    return embed


# --- models -----------------------------------------------------------------------------------------------------

PredictFold = Callable[[Rows, Rows, int], Array]
"""From training people, test people and the fold's number to probabilities of the stages."""


def repeats(cohort: Cohort, predict: PredictFold) -> list[Array]:
    """Predict everyone out of fold, once a repeat."""
    found = [np.zeros((len(cohort.labels), 4)) for _ in range(len(cohort.folds) // 5)]
    for number, (rest, test) in enumerate(cohort.folds):
        found[number // 5][test] = predict(rest, test, number)
    return found


def predict_by_recipe(cohort: Cohort) -> PredictFold:
    """Return how the patient model predicts; test people's levels are not given."""
    slices, rows = cohort.slices, range(len(cohort.slices))
    trained = acquired_features(slices, rows, training_seeds(slices, rows))
    shown = acquired_features(slices, rows, [PREDICTION_SEEDS] * len(slices))

    def predict(rest: Rows, test: Rows, _fold: int) -> Array:
        names = [f"{person}" for person in rest for _ in range(32)]
        model = PatientModel.fit(
            trained[cohort.order[rest].ravel()],
            names,
            np.tile(np.arange(32) / 31, len(rest)),
            np.repeat(cohort.labels[rest], 32),
            slices.classes,
        )
        people = [f"{person}" for person in test for _ in range(32)]
        found: Array = model.predict_proba(shown[cohort.order[test].ravel()], people)[::32].astype(np.float64)
        return found

    return predict


@dataclass
class Candidate:
    """A kind of features with a strength and a target, fitted to some people."""

    kind: str
    text: str
    loss: Array  # log loss of each training person, each predicted by a model that was fitted on others
    prediction: Array  # of the test people, mean over their acquisitions


def candidates(cohort: Cohort, kernels: dict[str, Array], rest: Rows, test: Rows) -> list[Candidate]:
    """Return all candidates, the lowest inner loss first; ``test`` may be empty."""
    labels, found = cohort.labels, []
    for name, kernel in kernels.items():
        inner = np.mean([inner_scores(kernel, labels, rest, seed) for seed in range(INNER)], axis=0)
        outer = ridge_scores(kernel, labels, rest, test)
        for strength, power in np.ndindex(len(STRENGTHS), len(POWERS)):
            scores = inner[strength, power]
            odds = ProportionalOdds(scores.ravel(), np.tile(labels[rest], len(SHOWN)), 4)
            likely = mean_odds(odds, scores)[np.arange(len(rest)), labels[rest]]
            text = f"{name}, strength {STRENGTHS[strength]}, power {POWERS[power]}"
            found.append(Candidate(name, text, -np.log(likely.clip(1e-9)), mean_odds(odds, outer[strength, power])))
    return sorted(found, key=lambda one: one.loss.mean())


def mean_odds(odds: ProportionalOdds, scores: Array) -> Array:
    """Return the mean probabilities over acquisitions, (people, stages), of scores (acquisitions, people)."""
    each: Array = odds.predict(scores.ravel()).reshape(*scores.shape, 4).mean(axis=0)
    return each


def choose_best(found: list[Candidate]) -> Array:
    """Choose the lowest inner loss."""
    return found[0].prediction


def choose_ten(found: list[Candidate]) -> Array:
    """Average the ten lowest inner losses."""
    mean: Array = np.mean([one.prediction for one in found[:10]], axis=0)
    return mean


def choose_within_error(found: list[Candidate]) -> Array:
    """Average all whose inner loss is above the lowest by less than the standard error of the difference."""
    differences = [one.loss - found[0].loss for one in found]
    close = [
        one.prediction
        for one, difference in zip(found, differences, strict=True)
        if difference.mean() <= difference.std() / np.sqrt(len(difference))
    ]
    mean: Array = np.mean(close, axis=0)
    return mean


def choose_by_evidence(found: list[Candidate]) -> Array:
    """Average all, weighted by the likelihood of the inner predictions (pseudo-BMA; Yao et al. 2018)."""
    logarithms = -np.array([one.loss.sum() for one in found])
    weights = np.exp(logarithms - logarithms.max())
    mean: Array = np.average([one.prediction for one in found], axis=0, weights=weights)
    return mean


def choose_all(found: list[Candidate]) -> Array:
    """Average all, so that nothing is chosen."""
    mean: Array = np.mean([one.prediction for one in found], axis=0)
    return mean


QUOTED = "best inside"
"""The procedure that the bundled model is quoted with."""
Procedure = Callable[[list[Candidate]], Array]
"""From the candidates of a fold, the lowest inner loss first, to the probabilities of its test people."""
PROCEDURES: dict[str, Procedure] = {
    "best inside": choose_best,
    "mean of the ten best inside": choose_ten,
    "mean within one error inside": choose_within_error,
    "mean by evidence inside": choose_by_evidence,
    "mean of all, no choice": choose_all,
}


def choose_kind(kind: str) -> Procedure:
    """Return how strength and target of one kind are chosen: the lowest inner loss."""
    return lambda found: next(one.prediction for one in found if one.kind == kind)


def nested(cohort: Cohort, of_folds: list[list[Candidate]], procedure: Procedure) -> list[Array]:
    """Predict everyone by a procedure that chooses among the candidates of each fold."""
    return repeats(cohort, lambda _rest, _test, fold: procedure(of_folds[fold]))


def rows_of(people: Rows, acquisitions: Sequence[int], count: int) -> Rows:
    """Return the rows of people in some acquisitions, of a kernel over ``count`` people."""
    rows: Rows = (np.array(acquisitions)[:, None] * count + people).ravel()
    return rows


def ridge_scores(kernel: Array, labels: Rows, rest: Rows, test: Rows) -> Array:
    """Fit kernel ridge regression, return the scores of others: (strengths, powers, acquisitions, len(test))."""
    fitted, asked = rows_of(rest, range(SEEN), len(labels)), rows_of(test, SHOWN, len(labels))
    inner = kernel[np.ix_(fitted, fitted)]
    means = inner.mean(axis=0)
    centred = inner - means - means[:, None] + inner.mean()
    across = kernel[np.ix_(asked, fitted)]
    across = across - across.mean(axis=1, keepdims=True) - means + inner.mean()
    targets = np.stack([np.tile(labels[rest] ** power, SEEN) for power in POWERS], axis=1)
    scores = np.empty((len(STRENGTHS), len(POWERS), len(asked)))
    for number, strength in enumerate(STRENGTHS):
        penalised = centred + SEEN * strength * np.eye(len(centred))
        weights = solve(penalised, targets - targets.mean(axis=0), assume_a="pos")
        scores[number] = (across @ weights + targets.mean(axis=0)).T
    return scores.reshape(*scores.shape[:2], len(SHOWN), len(test))


def inner_scores(kernel: Array, labels: Rows, rest: Rows, seed: int) -> Array:
    """Return the scores of the training people, each by a model that was fitted on others."""
    scores = np.empty((len(STRENGTHS), len(POWERS), len(SHOWN), len(rest)))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(rest, np.minimum(labels[rest], 2))
    for inside, held in folds:
        scores[..., held] = ridge_scores(kernel, labels, rest[inside], rest[held])
    return scores


def predict_by_machine(cohort: Cohort, kernel: Array) -> PredictFold:
    """Return how a support vector machine predicts Non or not; the other three stages count as one."""

    def predict(rest: Rows, test: Rows, _fold: int) -> Array:
        machine = SVC(kernel="precomputed", C=1.0).fit(kernel[np.ix_(rest, rest)], cohort.labels[rest] > 0)
        inner = machine.decision_function(kernel[np.ix_(test, rest)])
        return as_stages(1 / (1 + np.exp(-2 * inner)))

    return predict


def predict_by_process(cohort: Cohort, kernel: Array) -> PredictFold:
    """Return how a Gaussian process classifier predicts Non or not, on the kernel's own coordinates."""
    values, vectors = np.linalg.eigh(kernel)
    rows = vectors * np.sqrt(values.clip(0))

    def predict(rest: Rows, test: Rows, _fold: int) -> Array:
        process = GaussianProcessClassifier(ConstantKernel() * DotProduct(0.0, "fixed"))
        return as_stages(process.fit(rows[rest], cohort.labels[rest] > 0).predict_proba(rows[test])[:, 1])

    return predict


def as_stages(positive: Array) -> Array:
    """Return probabilities of four stages of which only the first is told from the others."""
    return np.stack([1 - positive, positive, 0 * positive, 0 * positive], axis=1)


def predict_by_network(cohort: Cohort) -> PredictFold:
    """Return how a small 3D network from scratch predicts; trained on mirrored, turned, shifted, scaled stacks."""
    images = np.stack(list(cohort.slices.images))[cohort.order].astype(np.float32)
    peaks = np.array([white_matter(image) for image in cohort.slices.images])[cohort.order]
    images = images.reshape(*images.shape[:2], 64, 2, 64, 2).mean(axis=(3, 5)) / peaks[..., None, None]
    stacks = torch.from_numpy(images / images.std()).float()[:, None]
    stages = torch.from_numpy(cohort.labels)

    def predict(rest: Rows, test: Rows, fold: int) -> Array:
        torch.manual_seed(fold)
        network = small_network()
        steps = 50 * -(-len(rest) // 16)
        optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        for _ in range(50):
            for batch in torch.split(torch.from_numpy(rest)[torch.randperm(len(rest))], 16):
                above = (stages[batch][:, None] > torch.arange(3)).float()
                loss = torch.nn.functional.binary_cross_entropy_with_logits(network(moved(stacks[batch])), above)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
        network.eval()
        with torch.inference_mode():
            above = (network(stacks[test]).sigmoid() + network(stacks[test].flip(-1)).sigmoid()) / 2
        edges = torch.cat([torch.ones(len(test), 1), above.cummin(dim=1).values, torch.zeros(len(test), 1)], dim=1)
        return (edges[:, :-1] - edges[:, 1:]).double().numpy()

    return predict


def small_network() -> torch.nn.Module:
    """Return five 3D convolutions, the mean over the stack, and three thresholds passed."""
    layers: list[torch.nn.Module] = []
    for before, after, pool in ((1, 16, (1, 2, 2)), (16, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)):
        convolution = torch.nn.Conv3d(before, after, 3, padding=1, bias=False)
        layers += [convolution, torch.nn.BatchNorm3d(after), torch.nn.ReLU(), torch.nn.MaxPool3d(pool)]
    layers += [torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Dropout(0.3), torch.nn.Linear(64, 3)]
    return torch.nn.Sequential(*layers)


def moved(stacks: torch.Tensor) -> torch.Tensor:
    """Return stacks turned, scaled, shifted, mirrored, brightened and with noise, each at random."""
    count = len(stacks)
    angle, scale = (torch.rand(count) - 0.5) * 0.3, 1 + (torch.rand(count, 2) - 0.5) * 0.2
    side = (torch.rand(count) < 0.5).float() * 2 - 1
    move = torch.zeros(count, 3, 4)
    move[:, 0, 0], move[:, 0, 1] = angle.cos() * scale[:, 0] * side, -angle.sin()
    move[:, 1, 0], move[:, 1, 1] = angle.sin() * side, angle.cos() * scale[:, 1]
    move[:, 2, 2] = 1
    move[:, :, 3] = (torch.rand(count, 3) - 0.5) * torch.tensor([0.12, 0.12, 0.16])
    grid = torch.nn.functional.affine_grid(move, list(stacks.shape), align_corners=False)
    found = torch.nn.functional.grid_sample(stacks, grid, align_corners=False)
    return found * (1 + (torch.rand(count, 1, 1, 1, 1) - 0.5) * 0.3) + torch.randn_like(found) * 0.05


# --- output -----------------------------------------------------------------------------------------------------


def show(
    name: str,
    found: list[Array],
    labels: Rows,
    views: tuple[str, ...] = tuple(VIEWS),
    judge: Callable[[Rows, list[Array]], dict[str, metrics.Score]] = metrics.score_repeats,
) -> None:
    """Print accuracy of the three views, kappa of the first and AUROC of the last."""
    cells = []
    for view in VIEWS:
        scores = judge_view(view, found, labels, judge)
        wanted = {"4 stages": ["quadratic_kappa"], "2 stages": ["auroc_ovr"]}.get(view, [])
        for score in ["accuracy", *wanted]:
            one = scores[score]
            cells.append(f"{one.value:.3f} {one.low:.2f}–{one.high:.2f}" if view in views else " " * 15)
    if judge is metrics.score_repeats and len(found) > 1:
        cells.append(" ".join(f"{roc_auc_score(labels > 0, 1 - one[:, 0]):.3f}" for one in found))
    print(f"{name:28} {'  '.join(cells)}", flush=True)


def judge_view(
    view: str,
    found: list[Array],
    labels: Rows,
    judge: Callable[[Rows, list[Array]], dict[str, metrics.Score]] = metrics.score_repeats,
) -> dict[str, metrics.Score]:
    """Return the scores with some stages counted as one."""
    groups = VIEWS[view]
    number = {stage: group for group, members in enumerate(groups) for stage in members}
    parts = [np.stack([one[:, members].sum(axis=1) for members in groups], axis=1) for one in found]
    return judge(np.array([number[label] for label in labels.tolist()]), parts)


def write(file: Path, found: list[Array], labels: Rows) -> None:
    """Write the figures of the procedure that the bundled model is quoted with, for tools/make_models.py."""
    figures = {
        f"chosen inside the folds, {view}": {name: score.to_dict() for name, score in scores.items()}
        for view, scores in ((view, judge_view(view, found, labels)) for view in VIEWS)
    }
    write_json(file, {"procedure": QUOTED, "figures": figures})


if __name__ == "__main__":
    main()
