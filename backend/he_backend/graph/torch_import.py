"""PyTorch modules -> ONNX -> `Graph`. torch is an extra, imported only here and only when it is used."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import sys
import warnings
from typing import Any, Mapping, Sequence

import numpy as np

from he_backend.errors import ModelError
from he_backend.graph.model import Graph
from he_backend.graph.onnx_import import import_onnx
from he_backend.graph.rows import MixedRows

_OPSET = 17  # old enough for every onnxruntime that is supported, new enough for LayerNormalization


def is_torch_module(value: Any) -> bool:
    """Whether this is a torch.nn.Module; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def import_torch(
    module: Any,
    example: Any,
    name: str = "",
    dims: Mapping[str, int] | None = None,
    embeddings: str = "file",
) -> Graph:
    """The module as a verified Graph; axis 0 of its inputs counts rows.

    example: one input (array or tensor) or a sequence of them, with a row axis; its values do not matter, its shapes and types do.
    A module with layers that are not batch_first and whose axis 0 therefore is time takes the whole example as one row.
    Raises ModelError when torch is missing or cannot export the module, and as `import_onnx` does.
    """
    name = name or type(module).__name__
    try:
        return import_onnx(export(module, example), name, dims, embeddings)
    except ModelError as error:
        time_first = not all(getattr(part, "batch_first", True) for part in module.modules())
        if error.problems or (isinstance(error, MixedRows) and not time_first):
            raise
    # A module that counts its rows in Python was traced for those of the example: then it is traced for one.
    return import_onnx(export(module, example, "whole" if time_first else "one"), name, dims, embeddings)


def export(module: Any, example: Any, rows: str = "open") -> bytes:
    """The module in evaluation mode as an ONNX file. The module's own mode is put back afterwards.

    rows: "open": axis 0 of the inputs may have any size, or size 1 where that cannot be traced; "one": it has size 1; "whole": all sizes
    are those of the example.
    """
    try:
        import torch
    except ImportError as error:
        raise ModelError("PyTorch is not installed: pip install 'he-nn[torch]', or export the module to ONNX elsewhere") from error
    if example is None:
        raise ModelError("a PyTorch module needs an example input (an array with a row axis) to be exported")
    several = isinstance(example, (tuple, list))
    tensors = tuple(torch.as_tensor(np.asarray(e) if not torch.is_tensor(e) else e) for e in (example if several else [example]))
    names = [f"input{i}" if len(tensors) > 1 else "input" for i in range(len(tensors))]
    options: dict[str, Any] = {"opset_version": _OPSET, "input_names": names, "do_constant_folding": True}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    mode = module.training
    module.eval()
    try:
        return _export(torch, module, tensors, options, names, rows)
    finally:
        module.train(mode)


def _export(torch: Any, module: Any, tensors: Sequence[Any], options: dict[str, Any], names: Sequence[str], rows: str) -> bytes:
    """Try an open row axis first; a module that cannot be traced so is exported on one row."""
    axes = {name: {0: "rows"} for name, tensor in zip(names, tensors) if tensor.dim()}
    single = tuple(tensor[:1] if tensor.dim() and rows != "whole" else tensor for tensor in tensors)
    attempts: list[tuple[Sequence[Any], dict[str, Any]]] = [(tensors, {**options, "dynamic_axes": axes})] if rows == "open" else []
    attempts.append((single, options))
    if "dynamo" in options:
        attempts.append((single, {"dynamo": True, "external_data": False, "input_names": names, "verbose": False}))
    fast_attention = getattr(torch.backends, "mha", None)  # fused kernels have no ONNX form
    was_fast = fast_attention.get_fastpath_enabled() if fast_attention else False
    if fast_attention:
        fast_attention.set_fastpath_enabled(False)
    try:
        return _first_export(torch, module, attempts)
    finally:
        if fast_attention:
            fast_attention.set_fastpath_enabled(was_fast)


def _first_export(torch: Any, module: Any, attempts: Sequence[tuple[Sequence[Any], dict[str, Any]]]) -> bytes:
    failure: Exception | None = None
    for given, wanted in attempts:
        file = io.BytesIO()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            previous = logging.root.manager.disable
            logging.disable(logging.WARNING)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    torch.onnx.export(module, tuple(given), file, **wanted)
                return file.getvalue()
            except Exception as error:  # noqa: BLE001 - tracing runs the module's own code
                failure = failure or error
            finally:
                logging.disable(previous)
    raise ModelError(f"PyTorch cannot export the module to ONNX: {str(failure).strip().splitlines()[0][:300]}") from failure
