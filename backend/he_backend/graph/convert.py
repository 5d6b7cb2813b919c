"""The door of the room: a model file, bytes, ModelProto or PyTorch module -> `Program`."""

from __future__ import annotations

from typing import Any, Mapping

from he_backend.graph.onnx_import import import_onnx
from he_backend.graph.passes_embedding import check_choice
from he_backend.graph.program import Program
from he_backend.graph.split import split
from he_backend.graph.torch_import import import_torch, is_torch_module


def convert(
    model: Any,
    example: Any = None,
    *,
    name: str = "",
    dims: Mapping[str, int] | None = None,
    embeddings: str = "file",
    public_embeddings: bool = False,
) -> Program:
    """The network, split between model owner and data owner, and compared with ONNX Runtime on the way.

    model: path of an .onnx file, its bytes, an onnx.ModelProto, or a torch.nn.Module with `example` inputs.
    dims: sizes for open axes other than the row axis, by symbol ("seq") or "input:axis".
    embeddings: what becomes of tables that are looked up by data. "refuse": a ModelError; "public": they travel to the data owner, which
    looks them up; "private": the data owner sends encrypted one-hot rows, entries of the table times as many values as indices; "file":
    what the model file says in its metadata (he_nn.embeddings), and "refuse" when it says nothing.
    public_embeddings: the same as embeddings="public".
    Raises ParameterError for another value of `embeddings`, and ModelError; its `problems` lists every node that cannot run encrypted.
    """
    chosen = check_choice(embeddings, public_embeddings)
    if is_torch_module(model):
        return split(import_torch(model, example, name, dims, chosen))
    return split(import_onnx(model, name, dims, chosen))
