"""Claim: how well people not in the training set can be staged, and what was tried.

    python benchmarks/patient.py [--networks]

Five times five folds of people, all rows on the same folds; each figure is the mean of the five repeats, with a
95 % interval over people. First the recipe ``patient`` as ``train`` fits it. Then nested choice: in each training
part four times five inner folds choose by log loss among all kinds of features, strengths of the ridge and targets,
and the test people are predicted once: by the best, or by the mean of the ten best. Then each kind alone, strength
and target chosen inside too: those rows were looked at together, and the recipe was made of the best of them, so
the best of them, and the recipe's own, are optimistic. ``--networks`` adds a 3D network from scratch on one repeat
(three quarters of an hour).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from transformers import AutoModelForImageClassification

from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.datasets.table import SliceTable
from brainstage.models.histograms import orientation_histograms, white_matter
from brainstage.models.patient_model import PatientModel
from brainstage.models.recipes import load_recipe
from brainstage.stats import metrics
from brainstage.stats.ordinal import ProportionalOdds
from brainstage.training.train import train

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

STRENGTHS = (0.05, 0.2, 0.8)
POWERS = (1.0, 0.5)
INNER = 4
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
    parser.add_argument("--networks", action="store_true", help="add the 3D network, 45 minutes")
    arguments = parser.parse_args()
    start = time.perf_counter()
    cohort = Cohort.load()
    kernels = make_kernels(cohort)
    print(f"patient protocol · {len(cohort.order)} people × 5 · features {time.perf_counter() - start:.0f} s")
    print(f"{'':28} 4 stages         kappa            3 stages         2 stages         AUROC")
    recipe = repeats(cohort, predict_by_recipe(cohort))
    show("recipe patient", recipe, cohort.labels)
    for name, found in nested(cohort, kernels).items():
        show(name, found, cohort.labels)
    for name, kernel in kernels.items():
        show(name, next(iter(nested(cohort, {name: kernel}).values())), cohort.labels)
    edges = kernels["edges 16 and 32 px"]
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
    print(f"{time.perf_counter() - start:.0f} s in all")


# --- features ---------------------------------------------------------------------------------------------------


def make_kernels(cohort: Cohort) -> dict[str, Array]:
    """Return a kernel over people for each kind of features, and for sums of them."""
    order = cohort.order

    def slabs(of_slices: NDArray[np.float32], width: int) -> Array:
        levels = of_slices[order].reshape(len(order), 32 // width, width, -1)
        return linear_kernel(levels.mean(axis=2).reshape(len(order), -1))

    edges = {
        (cell, width): slabs(np.sqrt(orientation_histograms(cohort.slices.images, cell)), width)
        for cell in (8, 16, 32)
        for width in (4, 8)
    }
    signatures = describe_slices(cohort.slices.images)
    alone = {f"edges {cell} px, {width} levels": kernel for (cell, width), kernel in edges.items()}
    alone["edges 16 and 32 px"] = np.mean([edges[cell, width] for cell in (16, 32) for width in (4, 8)], axis=0)
    alone["edges of all sizes"] = np.mean(list(edges.values()), axis=0)
    alone["pixels 4 px"] = slabs(signatures.coarse, 4)
    alone["tones"] = slabs(signatures.tones, 8)
    alone["grain"] = slabs(signatures.grain, 8)
    alone["tissue shares 16 px"] = slabs(tissue_shares(cohort.slices), 4)
    alone["taught to tell people apart"] = slabs(self_taught(cohort.slices), 4)
    alone["edges and tones"] = 0.7 * alone["edges of all sizes"] + 0.3 * alone["tones"]
    others = ("pixels 4 px", "tones", "grain", "tissue shares 16 px", "taught to tell people apart")
    alone["everything"] = np.mean([alone["edges of all sizes"], *(alone[name] for name in others)], axis=0)
    return alone


def linear_kernel(features: Array) -> Array:
    """Return the scalar products of standardised features, of mean 1 on the diagonal; no label is looked at."""
    spread = features.std(axis=0)
    told = spread > 1e-3 * spread.max()
    rows = (features[:, told] - features[:, told].mean(axis=0)).astype(np.float64) / spread[told]
    kernel: Array = rows @ rows.T
    return kernel / np.trace(kernel) * len(kernel)


def tissue_shares(slices: SliceTable) -> NDArray[np.float32]:
    """Return the shares of fluid, grey and white matter in cells of 16 pixels, by grey value."""
    shares = np.empty((len(slices), 3, 8, 8), np.float32)
    for number, image in enumerate(slices.images):
        relative = image / white_matter(image)
        for kind, (low, high) in enumerate(((0.05, 0.5), (0.5, 0.85), (0.85, 9.0))):
            inside = (relative >= low) & (relative < high)
            shares[number, kind] = inside.reshape(8, 16, 8, 16).mean(axis=(1, 3))
    return shares.reshape(len(slices), -1)


def self_taught(slices: SliceTable) -> NDArray[np.float32]:
    """Return what a network sees that was taught to tell the people of the training rows apart, without stages."""
    people = tuple(sorted({str(patient) for patient in slices.patients}))
    named = replace(slices.with_labels(slices.patients), classes=people)
    with tempfile.TemporaryDirectory() as folder:
        run = train(named, load_recipe("compact", validation_share=0.0), out=folder, name="people")
        network = AutoModelForImageClassification.from_pretrained(run.model).resnet.eval()
        preprocessing = Preprocessing.open(run.model)
    parts = []
    with torch.inference_mode():
        for first in range(0, len(slices), 128):
            pixels = preprocessing.normalise(preprocessing.resize(slices.images[first : first + 128]))
            parts.append(network(torch.from_numpy(pixels)).pooler_output.flatten(1).numpy())
    return np.concatenate(parts)


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
    histograms = orientation_histograms(cohort.slices.images)

    def predict(rest: Rows, test: Rows, _fold: int) -> Array:
        names = [f"{person}" for person in rest for _ in range(32)]
        model = PatientModel.fit(
            histograms[cohort.order[rest].ravel()],
            names,
            np.tile(np.arange(32) / 31, len(rest)),
            np.repeat(cohort.labels[rest], 32),
            cohort.slices.classes,
        )
        people = [f"{person}" for person in test for _ in range(32)]
        found: Array = model.predict_proba(histograms[cohort.order[test].ravel()], people)[::32].astype(np.float64)
        return found

    return predict


def nested(cohort: Cohort, kernels: dict[str, Array]) -> dict[str, list[Array]]:
    """Predict everyone by what inner folds choose: the best, and the mean of the ten best."""
    best: dict[tuple[int, int], Array] = {}
    for number, (rest, test) in enumerate(cohort.folds):
        tried = []
        for kernel in kernels.values():
            inner = np.mean([inner_scores(kernel, cohort.labels, rest, seed) for seed in range(INNER)], axis=0)
            outer = ridge_scores(kernel, cohort.labels, rest, test)
            for strength, power in np.ndindex(len(STRENGTHS), len(POWERS)):
                scores = inner[strength, power]
                odds = ProportionalOdds(scores, cohort.labels[rest], 4)
                likely = odds.predict(scores)[np.arange(len(rest)), cohort.labels[rest]]
                tried.append((-np.log(likely.clip(1e-9)).mean(), odds.predict(outer[strength, power])))
        tried.sort(key=lambda one: one[0])
        for count in (1, 10):
            best[number, count] = np.mean([prediction for _, prediction in tried[:count]], axis=0)

    def predict(count: int) -> PredictFold:
        return lambda _rest, _test, fold: best[fold, count]

    names = {1: "chosen inside", 10: "mean of the ten best inside"}
    return {name: repeats(cohort, predict(count)) for count, name in names.items()}


def ridge_scores(kernel: Array, labels: Rows, rest: Rows, test: Rows) -> Array:
    """Fit kernel ridge regression, return the scores of others: (strengths, powers, len(test))."""
    inner = kernel[np.ix_(rest, rest)]
    means = inner.mean(axis=0)
    values, vectors = np.linalg.eigh(inner - means - means[:, None] + inner.mean())
    across = kernel[np.ix_(test, rest)]
    across = (across - across.mean(axis=1, keepdims=True) - means + inner.mean()) @ vectors
    scores = np.empty((len(STRENGTHS), len(POWERS), len(test)))
    for strength, power in np.ndindex(scores.shape[:2]):
        targets = labels[rest] ** POWERS[power]
        weights = vectors.T @ (targets - targets.mean()) / (values + STRENGTHS[strength])
        scores[strength, power] = across @ weights + targets.mean()
    return scores


def inner_scores(kernel: Array, labels: Rows, rest: Rows, seed: int) -> Array:
    """Return the scores of the training people, each by a model that was fitted on others."""
    scores = np.empty((len(STRENGTHS), len(POWERS), len(rest)))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(rest, np.minimum(labels[rest], 2))
    for inside, held in folds:
        scores[:, :, held] = ridge_scores(kernel, labels, rest[inside], rest[held])
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
    for view, groups in VIEWS.items():
        number = {stage: group for group, members in enumerate(groups) for stage in members}
        parts = [np.stack([one[:, members].sum(axis=1) for members in groups], axis=1) for one in found]
        scores = judge(np.array([number[label] for label in labels.tolist()]), parts)
        wanted = {"4 stages": ["quadratic_kappa"], "2 stages": ["auroc_ovr"]}.get(view, [])
        for score in ["accuracy", *wanted]:
            one = scores[score]
            cells.append(f"{one.value:.3f} {one.low:.2f}–{one.high:.2f}" if view in views else " " * 15)
    print(f"{name:28} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
