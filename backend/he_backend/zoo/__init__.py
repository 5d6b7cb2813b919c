"""The networks that come with he_backend: their architectures, training, data sets and trained ONNX files."""

from __future__ import annotations

from he_backend.zoo.registry import ModelType, model_types, resolve
from he_backend.zoo.shipped import Shipped, all_shipped, shipped

__all__ = ["ModelType", "Shipped", "all_shipped", "model_types", "resolve", "shipped"]
