"""Age and sex as numbers, and the regression of an outcome on them: what a model of pictures has to surpass."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from brainstage.core.arrays import Float64Array
from brainstage.core.schema import Value

_MALE, _FEMALE = ("m", "male", "man", "1"), ("f", "female", "woman", "0", "2")
"""Spellings and codes of a sex, in small letters."""
_INVERSE_PENALTY = 100.0
"""So weak that it only keeps coefficients finite where covariates separate the outcomes."""


def age_and_sex(ages: Sequence[Value], sexes: Sequence[Value]) -> Float64Array:
    """Return age, its square and sex (1 male, 0 female), NaN where not known, float64 of shape (n, 3).

    Args:
        ages: n ages in years, as numbers or as text; text that is no number is not known.
        sexes: n sexes: words or letters, or the codes 1 and 0, or 1 and 2.
    """
    age = np.array([_number(value) for value in ages], dtype=np.float64)
    return np.stack([age, np.square(age), [_sex(value) for value in sexes]], axis=1)


def regression() -> Any:
    """Return an unfitted logistic regression on standardised columns, multinomial of three classes or more."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000))


def _number(value: Value) -> float:
    try:
        number = float("nan" if value is None else value)
    except ValueError:
        return np.nan
    return number if isfinite(number) else np.nan


def _sex(value: Value) -> float:
    text = f"{value:g}" if isinstance(value, float) else str(value).strip().lower()
    return 1.0 if text in _MALE else 0.0 if text in _FEMALE else np.nan
