"""Conversion strategies: what becomes of a network's activations, and how its accuracy is won back.

Data flow: ONNX -> `network.Network` -> `friendly.replacements` -> `distil.fine_tune` (torch) -> `distil.written` -> ONNX; `convert`
does it and measures.
"""

from __future__ import annotations

from he_backend.strategies.catalog import STRATEGIES, Strategy, strategy
from he_backend.strategies.convert import Conversion, Data, convert_by

__all__ = ["STRATEGIES", "Conversion", "Data", "Strategy", "convert_by", "strategy"]
