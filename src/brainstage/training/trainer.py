"""Fitting: Trainer over a dataset in memory, with checkpoints that can be trusted after a kill."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from sklearn.metrics import accuracy_score, f1_score
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from brainstage.core.arrays import IntArray, Pixels
from brainstage.core.config import TrainConfig
from brainstage.core.errors import RunError
from brainstage.core.files import make_folder, sha256, write_json, write_text
from brainstage.core.progress import Progress, silent
from brainstage.core.sigterm import Terminated, sigterm_noted
from brainstage.datasets.preprocessing import Preprocessing, draw_mirrored, draw_shifts, draw_versions, shift
from brainstage.models.device import best_device
from brainstage.models.folder import WEIGHTS
from brainstage.models.network import build_optimizer
from brainstage.training.processes import (
    any_process,
    connected,
    is_first,
    on_first,
    process_count,
    share_of_batch,
)

# Trainer has Python's garbage collector walk all objects before each fit: half a million of torch and transformers,
# which took longer than to train a head. It passes over those that are here now.
gc.freeze()

COMPLETE = "complete.json"
"""Written into a checkpoint last, with the SHA-256 of its files: only a checkpoint that agrees is resumed from."""

_METRICS = {"loss": "cross_entropy"}
"""Names that ``Trainer`` has for scores of ours; its own ``loss`` is the smoothed one."""

FIGURES = ("loss", "accuracy", "weighted_f1", "macro_f1")
"""Scores of each epoch on the slices that pick it. ``loss`` is the plain cross-entropy: the loss that is trained on
depends on the label smoothing, so trials that vary it could not be ranked by it."""


class SliceDataset(Dataset[Any]):
    """Slices in memory as one array, of which whole batches are taken.

    Args:
        pixels: Versions of the slices, uint8 of shape (V, N, size + 2·margin, size + 2·margin).
        targets: Class numbers, int64 of shape (N,).
        preprocessing: Size and normalisation of the network's input.
        seed: Seed of the augmentation; None leaves every slice as it is, the first version.
        mirror: Whether the augmentation mirrors half of the slices.
    """

    def __init__(
        self,
        pixels: Pixels,
        targets: IntArray,
        preprocessing: Preprocessing,
        seed: int | None = None,
        mirror: bool = False,
    ):
        self.pixels, self.targets, self.preprocessing = pixels, targets, preprocessing
        self.seed, self.mirror = seed, mirror
        self.margin = (pixels.shape[2] - preprocessing.size) // 2
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Draw the augmentation of an epoch."""
        count = len(self)
        self.version = np.zeros(count, dtype=np.int64)
        self.starts = np.full((count, 2), self.margin)
        self.mirrored = np.zeros(count, bool)
        if self.seed is not None:
            self.starts = draw_shifts(count, self.margin, self.seed, epoch)
            self.version = draw_versions(count, len(self.pixels), self.seed, epoch)
            if self.mirror:
                self.mirrored = draw_mirrored(count, self.seed, epoch)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Return a batch: ``pixel_values`` float32 (B, 1, size, size) and ``labels`` int64 (B,)."""
        pixels = shift(self.pixels[self.version[rows], rows], self.starts[rows], self.preprocessing.size)
        mirrored = self.mirrored[rows]
        pixels[mirrored] = pixels[mirrored, :, ::-1]
        return {
            "pixel_values": torch.from_numpy(self.preprocessing.normalise(pixels)),
            "labels": torch.from_numpy(self.targets[rows]),
        }


class BatchDataset(Protocol):
    """A dataset that returns whole batches and draws its augmentation anew each epoch."""

    def __len__(self) -> int: ...

    def __getitems__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows: tensors by name, ``labels`` among them."""
        ...

    def start_epoch(self, epoch: int) -> None:
        """Draw the augmentation of an epoch."""
        ...


def fit_network(
    model: Any,
    training: BatchDataset,
    selecting: BatchDataset | None,
    config: TrainConfig,
    checkpoints: Path | None = None,
    progress: Progress = silent,
    history: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    trackers: Sequence[TrainerCallback] = (),
) -> Trainer:
    """Fit the network in place with ``Trainer`` and return the trainer.

    The epoch of the highest accuracy on ``selecting`` is kept, the first of equals; without it the last epoch.
    Training resumes from the last complete checkpoint in ``checkpoints``, if there is one. Without ``checkpoints``
    nothing is saved and the network stays as its last epoch left it. With them SIGTERM has a checkpoint saved after
    the step under way, from which a resumed training ends with the same weights as one that was never stopped.
    Under ``torchrun`` all processes call this, each with the whole data, of which it takes its share.

    Args:
        model: The network.
        training: The training set.
        selecting: The slices that pick the epoch.
        config: The settings.
        checkpoints: Folder of the state after each epoch, which all processes see.
        progress: How to show progress.
        history: File of one JSON line an epoch.
        on_epoch: Called with each epoch's line of the history after its evaluation; an exception stops the fit.
        trackers: Callbacks that log the scores elsewhere too.

    Raises:
        ConfigError: The batch cannot be divided among the processes.
        RunError: The disk is full, the last checkpoint was saved by another number of processes, or another process
            is gone.
        Terminated: SIGTERM arrived, and a checkpoint is saved.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with ExitStack() as stack:
        steps = -(-len(training) // (config.batch_size * config.gradient_accumulation)) * config.epochs
        advance = stack.enter_context(progress("Training", steps))
        resume = on_first(lambda: _last_checkpoint(checkpoints)) if checkpoints else None
        sigterm = stack.enter_context(sigterm_noted()) if checkpoints else Event()
        callback = _Follow(training, history if is_first() else None, config, on_epoch, advance, sigterm)
        out = checkpoints or Path(stack.enter_context(TemporaryDirectory()))
        trainer = _Trainer(
            model=model,
            args=_arguments(config, out, select=selecting is not None, save=checkpoints is not None),
            train_dataset=training,
            eval_dataset=selecting,
            data_collator=lambda batch: batch,
            compute_metrics=_scores,
            optimizers=(build_optimizer(model, config) if config.optimizer == "muon" else None, None),
            callbacks=[callback, *trackers],
        )
        trainer.remove_callback(PrinterCallback)
        try:
            with connected():
                trainer.train(resume_from_checkpoint=resume)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap errors of the disk
            if "os error 28" in str(error) or "No space left" in str(error) or "file write failed" in str(error):
                raise RunError(f"{out}: the disk is full; free some space and go on with --resume") from error
            raise
    return trainer


def _arguments(config: TrainConfig, out: Path, *, select: bool, save: bool) -> TrainingArguments:
    on_gpu = best_device().type == "cuda" and not config.frozen  # a head alone takes less time than its launching
    return TrainingArguments(
        output_dir=str(out.resolve()),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=share_of_batch(config),
        per_device_eval_batch_size=256,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_share,
        label_smoothing_factor=config.label_smoothing,
        max_grad_norm=0.0 if config.optimizer == "muon" else 1.0,  # Muon's steps have a fixed size
        bf16=uses_bf16(config) and not config.frozen,  # a head alone is nothing to save on
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=config.backbone is not None,  # some have a token for masks, which is not used
        eval_strategy="epoch" if select else "no",
        save_strategy="epoch" if save else "no",
        save_total_limit=3,
        load_best_model_at_end=select and save,
        metric_for_best_model="accuracy",
        logging_strategy="epoch",
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        disable_tqdm=True,
        report_to="none",
        log_level_replica="error",
        seed=config.seed,
    )


def uses_bf16(config: TrainConfig) -> bool:
    """Return whether to compute in bf16: where ``auto``, when the processor has instructions for it."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _scores(outcome: Any) -> dict[str, float]:
    """Return the scores of logits, float32 of shape (N, classes), against class numbers (N,)."""
    predicted, labels = outcome.predictions.argmax(axis=1), outcome.label_ids
    logits = torch.from_numpy(outcome.predictions).double()
    return {
        "cross_entropy": float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))),
        "accuracy": float(accuracy_score(labels, predicted)),
        "weighted_f1": float(f1_score(labels, predicted, average="weighted", zero_division=0)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


class _Trainer(Trainer):
    """``Trainer`` whose checkpoints have the network's own names for its weights.

    ``save_pretrained`` gives those of many backbones the hub's names, and ``Trainer`` does not rename them back: it
    would resume, and keep the best epoch, without most weights (transformers issue 48805).
    """

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights into a checkpoint; the first process does."""
        if self.args.should_save:
            save_model(self.model, str(make_folder(Path(output_dir or self.args.output_dir)) / WEIGHTS))


class _Follow(TrainerCallback):
    """Draws each epoch's augmentation, moves the bar, writes the history, marks complete checkpoints, and stops."""

    def __init__(
        self,
        training: BatchDataset,
        history: Path | None,
        config: TrainConfig,
        on_epoch: Callable[[dict[str, Any]], None] | None,
        advance: Any,
        sigterm: Event,
    ):
        self.training, self.history, self.config, self.advance = training, history, config, advance
        self.on_epoch, self.sigterm = on_epoch, sigterm

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.advance(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.training.start_epoch(state.global_step // self._steps(state))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.advance(1)
        if state.global_step % self._steps(state) and any_process(self.sigterm.is_set()):
            control.should_save = True  # an epoch's last step is saved after its evaluation, as ever

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.history:
            lines = epochs(state.log_history, self.config)
            write_text(self.history, "".join(json.dumps(line) + "\n" for line in lines))

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.on_epoch:
            self.on_epoch(epochs(state.log_history, self.config)[-1])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        is_last = any_process(self.sigterm.is_set())  # a barrier too: each process has written its part
        if is_first():
            write_json(checkpoint / COMPLETE, _hashes(checkpoint))
        if is_last:
            raise Terminated(f"{checkpoint} is saved")

    def _steps(self, state: Any) -> int:
        """Return the steps of an epoch."""
        return int(state.max_steps // self.config.epochs)


def epochs(log: Sequence[dict[str, Any]], config: TrainConfig) -> list[dict[str, Any]]:
    """Join the separate training and evaluation entries of a trainer's log to one line an epoch."""
    rate = "filter_learning_rate" if config.optimizer == "muon" else "learning_rate"
    names = {"loss": "train_loss", "learning_rate": rate}
    names |= {f"eval_{_METRICS.get(name, name)}": f"{config.selection}_{name}" for name in FIGURES}
    lines: dict[int, dict[str, Any]] = {}
    for entry in log:
        lines.setdefault(round(entry["epoch"]), {}).update(entry)
    return [
        {"epoch": epoch} | {name: line[key] for key, name in names.items() if key in line}
        for epoch, line in lines.items()
    ]


def _hashes(checkpoint: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(checkpoint.iterdir()) if file.name != COMPLETE}


def _last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint. Newer ones that were not written to the end are removed.

    Raises:
        RunError: It was saved by another number of processes.
    """
    newest_first = sorted(
        folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]), reverse=True
    )
    for checkpoint in newest_first:
        if _is_complete(checkpoint):
            _check_processes(checkpoint)
            return str(checkpoint.resolve())
        shutil.rmtree(checkpoint)
    return None


def _check_processes(checkpoint: Path) -> None:
    """Refuse a checkpoint of another number of processes: their batches and random states would be others.

    Raises:
        RunError: It is such a one.
    """
    saved, count = len([*checkpoint.glob("rng_state_*.pth")]) or 1, process_count()  # one has rng_state.pth
    if saved != count:
        raise RunError(
            f"{checkpoint}: was saved by {_processes(saved)}, and this training has {_processes(count)}; go on "
            "with as many, or take another --name"
        )


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _is_complete(checkpoint: Path) -> bool:
    try:
        return bool(json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")) == _hashes(checkpoint))
    except (OSError, ValueError):
        return False
