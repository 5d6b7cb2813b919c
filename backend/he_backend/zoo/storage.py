"""How a trained network is stored: weights as float16 to halve the file, and what its owner says of its embedding tables."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from he_backend.graph.passes_embedding import METADATA

_LEAST = 64  # numbers; smaller weights stay float32
_HALF = "/float16"


def with_half_weights(model: bytes) -> bytes:
    """The same network with weights of 64 numbers and more stored as float16, each followed by a Cast to float32.

    w (float32)   ->   w/float16 -> Cast -> w. It still computes in float32; the weights are rounded to 11 significant bits.
    """
    proto = onnx.load_from_string(model)
    kept, casts = [], []
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _LEAST or np.abs(values).max() > np.finfo(np.float16).max:
            kept.append(tensor)
            continue
        kept.append(numpy_helper.from_array(values.astype(np.float16), tensor.name + _HALF))
        casts.append(helper.make_node("Cast", [tensor.name + _HALF], [tensor.name], name=f"{tensor.name}/Cast", to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend(kept)
    proto.graph.node.extend(nodes)
    return bytes(proto.SerializeToString())


def is_half(model: bytes) -> bool:
    """Whether a network's weights are stored as float16."""
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in onnx.load_from_string(model).graph.initializer)


def with_embeddings(model: bytes, embeddings: str) -> bytes:
    """The same network with a word in its metadata on what becomes of its embedding tables: "refuse", "public" or "private"."""
    proto = onnx.load_from_string(model)
    kept = {entry.key: entry.value for entry in proto.metadata_props}
    helper.set_model_props(proto, {**kept, METADATA: embeddings})
    return bytes(proto.SerializeToString())
