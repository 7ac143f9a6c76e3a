"""One phantom cohort for all tests of audits: drawing heads takes longer than auditing them."""

import numpy as np
import pytest

from brainstage.core.schema import STACK_LEVELS
from brainstage.datasets.phantom import draw_head, stage_counts

PEOPLE = 24


@pytest.fixture(scope="session")
def heads(once):
    """Return the slices of 24 people in order, uint8 of shape (768, 128, 128)."""
    return np.load(once("heads.npy", _draw))


def _draw(file):
    stages = np.repeat(np.arange(4), stage_counts(PEOPLE))
    np.save(file, np.concatenate([draw_head(int(stage), number, seed=5) for number, stage in enumerate(stages)]))


@pytest.fixture(scope="session")
def truth():
    """Return the person of each slice of ``heads``."""
    return np.repeat(np.arange(PEOPLE), STACK_LEVELS)
