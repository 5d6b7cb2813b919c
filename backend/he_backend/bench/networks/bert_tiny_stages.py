"""Stages of BERT-tiny on its first token, each from one published stage output to the next: FHE-BERT-Tiny's decrypted vectors.

That project normalises with means and deviations fixed beforehand, so its vectors are compared with the same here. Three of its ten
cannot be compared: what self-attention of either layer gives, and the first sum after it, depend on the other tokens, whose vectors
are not published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

import numpy as np

from he_backend.bench.networks.bert_tiny import WIDTH, Encoder, load_weights

NOT_COMPARABLE = ("layer0_selfattention_cls", "layer0_selfoutput_cls", "layer1_selfattention_cls")


@dataclass(frozen=True)
class Stage:
    """A network from published vectors to the next one; its first outputs are to equal `result`."""

    result: str
    inputs: tuple[str, ...]  # names of vectors, and of the network's inputs, [128] each
    model: Any = field(repr=False)  # onnx.ModelProto

    def rows(self, vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One row: the published vectors, float32 [1, 128] by input name."""
        return {name: vectors[name][None].astype(np.float32) for name in self.inputs}


def stages(weights: Mapping[str, np.ndarray] | None = None) -> tuple[Stage, ...]:
    """All seven comparable stages, in order. Raises NotFoundError without the weights of $HE_NN_DATA/bert_tiny."""
    given = load_weights() if weights is None else weights
    made = []

    def stage(result: str, inputs: tuple[str, ...], width: int, build: Callable[[Encoder], str]) -> None:
        net = Encoder(given, 1)
        output = build(net)
        made.append(Stage(result, inputs, net.layers.model([(name, (WIDTH,)) for name in inputs], output, (width,))))

    def feed_forward(prefix: str, source: str) -> Callable[[Encoder], str]:
        return lambda net: net.fixed_normal(net.add(net.feed_forward(source, prefix), source), f"{prefix}.output.LayerNorm")

    def widened(prefix: str, source: str) -> Callable[[Encoder], str]:
        return lambda net: net.gelu(net.dense(source, f"{prefix}.intermediate.dense"))

    def after_attention(prefix: str, mixed: str, before: str) -> Callable[[Encoder], str]:
        name = f"{prefix}.attention.output"
        return lambda net: net.fixed_normal(net.add(net.dense(mixed, f"{name}.dense"), before), f"{name}.LayerNorm")

    for layer in range(2):
        prefix, source = f"bert.encoder.layer.{layer}", f"layer{layer}_selfoutput_cls"
        if layer:
            mixed, before = "layer1_selfattention_cls", "layer0_output_cls"
            stage(source, (mixed, before), WIDTH, after_attention(prefix, mixed, before))
        stage(f"layer{layer}_intermediate_gelu_cls", (source,), 4 * WIDTH, widened(prefix, source))
        stage(f"layer{layer}_output_cls", (source,), WIDTH, feed_forward(prefix, source))
    last = "layer1_output_cls"
    stage("pooler_cls", (last,), WIDTH, lambda net: net.layers.node("Tanh", net.dense(last, "bert.pooler.dense")))
    stage("classifier_logits", ("pooler_cls",), 2, lambda net: net.dense("pooler_cls", "classifier"))
    return tuple(made)
