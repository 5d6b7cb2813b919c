"""Numbers as JSON has them: it knows no NaN and no infinity, so null stands for what is none."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np


def array_text(values: np.ndarray) -> str:
    """The JSON text of an array."""
    there = np.isfinite(values)
    if not there.all():
        values = values.astype(object)
        values[~there] = None
    return json.dumps(values.tolist(), allow_nan=False)


def with_null(value: Any) -> Any:
    """What JSON can hold, with null for numbers that it cannot."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: with_null(one) for name, one in value.items()}
    return [with_null(one) for one in value] if isinstance(value, (list, tuple)) else value
