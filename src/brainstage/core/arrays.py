"""Array types, named by their dtype; docstrings say the shapes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Grey values from 0 (black) to 255, or other bytes."""
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
Float16Array = NDArray[np.float16]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
FloatArray = NDArray[np.floating[Any]]
"""Of either precision."""
FeatureArray = NDArray[Any]
"""What a model computes of slices before it predicts: float32 scores or uint8 histograms."""
