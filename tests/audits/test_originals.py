"""Which of several duplicates is taken for the original, on phantoms with one side brighter than the other."""

import numpy as np
import pytest

from brainstage.audits.originals import choose_originals
from brainstage.datasets.signatures import describe_slices


@pytest.fixture(scope="module")
def lopsided(heads):
    """Return slices that are a tenth brighter on the left, and more so in spots of the left side."""
    gain = np.linspace(1.1, 0.9, heads.shape[2])
    gain = np.tile(gain, (heads.shape[1], 1))
    gain[40:60, 30:45] *= 1.3
    return np.clip(heads * gain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_flipped_copy_is_not_taken_for_the_original(lopsided, share):
    """Also where most pictures have one, and where it is the sharper of the two."""
    rng = np.random.default_rng(0)
    flipped = np.flatnonzero(rng.random(len(lopsided)) < share)
    grain = rng.random(lopsided[flipped].shape) < 0.02  # a copy stored anew is a little sharper
    copies = lopsided[flipped, :, ::-1] ^ grain.astype(np.uint8)
    duplicate_of = np.concatenate([np.arange(len(lopsided)), flipped])
    chosen = choose_originals(describe_slices([*lopsided, *copies]), duplicate_of)
    assert (duplicate_of[chosen] == np.arange(len(lopsided))).all()
    assert (chosen < len(lopsided)).mean() > 0.97
