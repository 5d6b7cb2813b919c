"""ONNX's element types and numpy's names for them, in every supported version of the onnx package."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from he_backend.errors import ModelError


def numpy_type(element_type: int) -> str:
    """The numpy name of an ONNX element type. Raises ModelError when there is none."""
    find = getattr(onnx.helper, "tensor_dtype_to_np_dtype", None)  # onnx 1.13 and up
    try:
        dtype = _mapping().TENSOR_TYPE_TO_NP_TYPE[element_type] if find is None else find(element_type)
        return str(np.dtype(dtype).name)
    except (KeyError, TypeError):
        raise ModelError(f"ONNX element type {element_type} is unknown, or one that arrays cannot hold") from None


def element_type(dtype: str) -> int:
    """ONNX's number for a numpy type name."""
    find = getattr(onnx.helper, "np_dtype_to_tensor_dtype", None)
    return int(_mapping().NP_TYPE_TO_TENSOR_TYPE[np.dtype(dtype)] if find is None else find(np.dtype(dtype)))


def _mapping() -> Any:
    """The tables of onnx 1.12, which leaves protobuf 3.19 as FATE 1.x pins it; newer versions have functions and drop the tables."""
    from onnx import mapping  # type: ignore[attr-defined]

    return mapping
