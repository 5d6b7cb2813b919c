"""The BERT-tiny encoder (Turc et al., 2019; Devlin et al., NAACL 2019) fine-tuned on SST-2, from $HE_NN_DATA/bert_tiny: data, not part of
the project. The network starts at embedded tokens, because the published weights do.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Mapping

import numpy as np
import onnx

from he_backend.bench.networks.layers import Layers
from he_backend.errors import InputError, NotFoundError
from he_backend.zoo.datasets import data_folder

LAYERS, HEADS, WIDTH = 2, 2, 128
EPSILON = 1e-12
_WEIGHTS, _VECTORS = "bert_tiny_sst2_encoder_fp32.safetensors", "fhe_bert_tiny_ref_vectors.npz"
_SOURCE = "github.com/narger-ef/FHE-BERT-Tiny"


def bert_tiny(tokens: int = 128, mask: bool = False, weights: Mapping[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """Encoder, pooler and classifier on embedded tokens x [tokens, 128]; scores [2].

    mask: a second input `mask` [tokens], 1 where a token counts and 0 where it fills up. weights: by Hugging Face's names; by default
    those of $HE_NN_DATA/bert_tiny. Raises NotFoundError without them.
    """
    net = Encoder(load_weights() if weights is None else weights, tokens)
    silence = net.silence("mask") if mask else ""
    x = "x"
    for layer in range(LAYERS):
        prefix = f"bert.encoder.layer.{layer}"
        x = net.normal(net.add(net.attention(x, prefix, silence), x), f"{prefix}.attention.output.LayerNorm")
        x = net.normal(net.add(net.feed_forward(x, prefix), x), f"{prefix}.output.LayerNorm")
    scores = net.head(net.first_token(x))
    inputs = [("x", (tokens, WIDTH))] + ([("mask", (tokens,))] if mask else [])
    return net.layers.model(inputs, scores, (2,))


class Encoder:
    """The parts of the encoder, by the names of their weights."""

    def __init__(self, weights: Mapping[str, np.ndarray], tokens: int) -> None:
        self.layers, self._weights, self._tokens = Layers("bert_tiny"), weights, tokens

    def dense(self, x: str, name: str) -> str:
        """x @ weight + bias."""
        return self.layers.dense(x, self._weights[f"{name}.weight"].T.copy(), self._weights[f"{name}.bias"])

    def add(self, x: str, y: str) -> str:
        """x + y."""
        return self.layers.node("Add", x, y)

    def normal(self, x: str, name: str) -> str:
        """Layer normalisation of every token."""
        scale, shift = (self.layers.constant(self._weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.layers.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=EPSILON)

    def fixed_normal(self, x: str, name: str) -> str:
        """Normalisation of the first token with a mean and deviation fixed beforehand, as FHE-BERT-Tiny does it: affine."""
        layer, part = name.split("layer.")[1].split(".", 1)
        mean, inverse = (self._weights[f"fhe_bert_tiny.layer.{layer}.{part}.precomputed_{what}"][0] for what in ("mean", "invstd"))
        scale = self._weights[f"{name}.weight"] * inverse
        shift = self._weights[f"{name}.bias"] - mean * scale
        return self.add(self.layers.node("Mul", x, self.layers.constant(scale)), self.layers.constant(shift))

    def silence(self, mask: str) -> str:
        """What is added to scores: 0 for tokens that count, -10000 for those that do not."""
        wide = self.layers.node("Reshape", mask, self.layers.constant(np.array([-1, 1, 1, self._tokens], np.int64)))
        absent = self.layers.node("Sub", self.layers.constant(np.float32(1.0)), wide)
        return self.layers.node("Mul", absent, self.layers.constant(np.float32(-10000.0)))

    def attention(self, x: str, prefix: str, silence: str) -> str:
        """Self-attention with its output layer; `silence` is added to the scores ("": nothing)."""
        each = WIDTH // HEADS
        parts = []
        for name in ("query", "key", "value"):
            shape = self.layers.constant(np.array([-1, self._tokens, HEADS, each], np.int64))
            part = self.layers.node("Reshape", self.dense(x, f"{prefix}.attention.self.{name}"), shape)
            parts.append(self.layers.node("Transpose", part, perm=[0, 2, 3, 1] if name == "key" else [0, 2, 1, 3]))
        scores = self.layers.node("Mul", self.layers.node("MatMul", parts[0], parts[1]), self.layers.constant(np.float32(each**-0.5)))
        shares = self.layers.node("Softmax", self.add(scores, silence) if silence else scores, axis=-1)
        mixed = self.layers.node("Transpose", self.layers.node("MatMul", shares, parts[2]), perm=[0, 2, 1, 3])
        flat = self.layers.node("Reshape", mixed, self.layers.constant(np.array([-1, self._tokens, WIDTH], np.int64)))
        return self.dense(flat, f"{prefix}.attention.output.dense")

    def gelu(self, x: str) -> str:
        """x/2 · (1 + erf(x/√2)), the exact form."""
        erf = self.layers.node("Erf", self.layers.node("Mul", x, self.layers.constant(np.float32(0.5**0.5))))
        halved = self.layers.node("Mul", x, self.layers.constant(np.float32(0.5)))
        return self.layers.node("Mul", halved, self.layers.node("Add", erf, self.layers.constant(np.float32(1.0))))

    def feed_forward(self, x: str, prefix: str) -> str:
        """Dense, GELU, dense."""
        return self.dense(self.gelu(self.dense(x, f"{prefix}.intermediate.dense")), f"{prefix}.output.dense")

    def first_token(self, x: str) -> str:
        """The first token alone."""
        return self.layers.node("Gather", x, self.layers.constant(np.int64(0)), axis=1)

    def head(self, first: str) -> str:
        """Pooler and classifier on the first token."""
        return self.dense(self.layers.node("Tanh", self.dense(first, "bert.pooler.dense")), "classifier")


def load_weights() -> dict[str, np.ndarray]:
    """The weights of $HE_NN_DATA/bert_tiny by Hugging Face's names, weight [out, in]. Raises NotFoundError, InputError when damaged."""
    return read_safetensors(data_file(_WEIGHTS))


def reference_vectors() -> dict[str, np.ndarray]:
    """Stage outputs of the first token for one sentence, as FHE-BERT-Tiny decrypted them from its own CKKS run. Raises NotFoundError."""
    with np.load(data_file(_VECTORS), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def data_file(name: str) -> Path:
    """Path of a file of $HE_NN_DATA/bert_tiny; raises NotFoundError without it."""
    root = data_folder()
    path = (root or Path("$HE_NN_DATA")) / "bert_tiny" / name
    if root is None or not path.is_file():
        raise NotFoundError(f"missing {path}, published at {_SOURCE}; set HE_NN_DATA to the folder that holds bert_tiny/")
    return path


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a safetensors file: eight bytes of header length, a JSON header, the data. Raises InputError when damaged."""
    content = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] != "F32":
                raise InputError(f"{path}: tensor {name} is {entry['dtype']}, only F32 is read")
            start, stop = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[start:stop], "<f4").reshape(entry["shape"])
    except (struct.error, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as damage:
        raise InputError(f"{path} is not a readable safetensors file: fetch it again from {_SOURCE}") from damage
    return tensors
