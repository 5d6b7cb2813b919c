"""Plain accuracy of a classifier, by ONNX Runtime."""

from __future__ import annotations

import numpy as np


def accuracy(model: bytes, x: np.ndarray, y: np.ndarray, threads: int = 1) -> float:
    """The fraction of rows whose highest score is at their label.

    Args:
        model: ONNX with one input and the scores [rows, classes] as first output.
        x: float32 [rows, ...]; y: int [rows].
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    right = 0
    for start in range(0, len(x), 1024):
        scores = session.run(None, {name: x[start : start + 1024]})[0]
        right += int((scores.argmax(axis=1) == y[start : start + 1024]).sum())
    return right / len(x)
