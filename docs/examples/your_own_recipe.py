"""
Write your own recipe
=====================

A recipe is a short list of settings under a name. This tutorial writes one, trains it, varies a setting on
validation slices, keeps the best as a new recipe, and looks at it once on test slices.

It trains tiny networks on few synthetic people, so that it takes seconds. The figures mean nothing; the
steps are the same with real data.
"""

# %%
# Data
# ----

import tempfile
from pathlib import Path

from brainstage import load_slices, write_phantom

folder = Path(tempfile.mkdtemp())
slices = load_slices(write_phantom(folder / "slices", patients=12, seed=5))

# %%
# A recipe file
# -------------
#
# A recipe is a TOML file with the settings that differ from the defaults; the reference has a page with
# every setting. The file's name becomes the recipe's name. On the command line it is ``brainstage train
# --recipe small.toml``.

recipe = folder / "small.toml"
recipe.write_text(
    """\
image_size = 48
stem_channels = 8
stage_channels = [16, 32]
stage_blocks = [1, 1]
epochs = 6
batch_size = 64
learning_rate = 0.01
"""
)

from brainstage import load_recipe

config = load_recipe(recipe)
print(config.recipe, config.epochs, config.optimizer)

# %%
# A wrong setting is an error before anything is trained. It names the nearest setting that there is, and the
# file where the setting stands in one.

from brainstage import ConfigError

try:
    config.replace(learning_rat=0.1)
except ConfigError as error:
    print(error)

# %%
# Train
# -----
#
# The epoch with the best accuracy on validation slices is kept. The run's folder has the model, every
# setting, the sides, the history and the predictions.

from brainstage import train

run = train(slices, config, name="small", out=folder / "runs")
print(sorted(path.name for path in run.path.iterdir()))

# %%
import json

import matplotlib.pyplot as plt

history = [json.loads(line) for line in run.history.read_text().splitlines()]
epochs = [line["epoch"] for line in history]
figure, axes = plt.subplots(1, 2, figsize=(8, 3))
axes[0].plot(epochs, [line["train_loss"] for line in history], label="training")
axes[0].plot(epochs, [line["validation_loss"] for line in history], label="validation")
axes[0].set(xlabel="epoch", ylabel="loss")
axes[0].legend()
axes[1].plot(epochs, [line["validation_accuracy"] for line in history], color="C1")
axes[1].set(xlabel="epoch", ylabel="accuracy, validation")
figure.tight_layout()

# %%
# Vary a setting
# --------------
#
# Each trial trains on the same slices and is judged on the same validation slices; test slices play no
# part. The same on the command line: ``brainstage sweep --recipe small.toml --vary
# learning_rate=0.003,0.01,0.03``.

from brainstage import Factor, sweep

trials = sweep(slices, config, [Factor.parse("learning_rate=0.003,0.01,0.03")], name="rates", out=folder / "runs")
for trial in trials.trials:
    print(f"learning_rate {trial['learning_rate']}: loss {trial['loss']:.3f}, accuracy {trial['accuracy']:.3f}")
print(trials.title)

# %%
# Keep the best
# -------------
#
# ``best`` are the settings with the lowest loss. They remember on which data they were chosen, so a figure
# that is too good for that reason is stamped *optimistic*, now and in every later run.

best = folder / "best.toml"
best.write_text(trials.best.to_toml())
print(best.read_text())

# %%
# And look at test slices once
# ----------------------------
#
# The title says under which protocol the figure holds, and what the leakage verdict is: here the test
# slices show people of the training set.

from brainstage import evaluate

final = train(slices, load_recipe(best), name="best", out=folder / "runs")
evaluation = evaluate(final)
print(evaluation.title)
print(evaluation.beside)

# %%
# The same recipe on people who are not in the training set
# ---------------------------------------------------------
#
# Change one setting, the protocol. ``cross_validate`` trains all folds; here one fold is enough to see the
# difference.

people = train(slices, load_recipe(best, protocol="patient", folds=3), name="best-people", out=folder / "runs")
evaluation = evaluate(people)
print(evaluation.title)
print(evaluation.beside)
