"""What the splitter makes is compared with ONNX Runtime before anybody uses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from he_backend.errors import ModelError
from he_backend.graph import affine, convert, split_check
from he_backend.graph.onnx_import import import_onnx
from he_backend.graph.split import split
from he_backend.graph.split_check import check_program
from tests.graph.networks import NetworkBuilder


def two_rounds():
    net = NetworkBuilder((4,))
    net.apply("MatMul", net.weights(4, 3), shape=(1, 3))
    net.apply("Add", net.constant(np.float32([2, 3, 4])))
    net.apply("Relu")
    net.apply("MatMul", net.weights(3, 2), shape=(1, 2))
    net.apply("Add", net.constant(np.float32([1e6, 0])))
    return net


@pytest.mark.parametrize("index", [0, 1])
def test_a_round_that_computes_something_else_is_refused_by_name(monkeypatch, index):
    net = two_rounds()

    def spoiled(segment, shapes):
        right = affine.lower(segment, shapes)
        if segment.index != index:
            return right
        block = right.blocks[0]
        weights = block.weights.copy()
        weights[0, 1, 1] += 0.01  # far less than the large bias beside it
        return replace(right, blocks=(replace(block, weights=weights), *right.blocks[1:]))

    monkeypatch.setattr(split_check, "lower", spoiled)
    with pytest.raises(ModelError, match=rf"output '{net.value}' would be wrong: round {index + 1} "):
        convert(net.model())


def test_a_round_that_cannot_be_lowered_is_refused(monkeypatch):
    def broken(segment, shapes):
        raise AssertionError("node resize computes with the elements")

    monkeypatch.setattr(split_check, "lower", broken)
    with pytest.raises(ModelError, match="round 1 cannot be made an affine map"):
        convert(two_rounds().model())


def test_a_value_that_is_read_before_it_is_there_is_refused():
    graph = import_onnx(two_rounds().model())
    program = split(graph)
    swapped = replace(program, segments=program.segments[::-1])
    with pytest.raises(ModelError, match="round 1 reads '.*' before it is computed"):
        check_program(swapped, graph, [])


def test_values_that_are_infinite_for_random_rows_do_not_refuse_a_model():
    net = NetworkBuilder((4,))
    net.apply("Log")  # NaN for negative values
    net.apply("MatMul", net.weights(4, 3), shape=(1, 3))
    assert convert(net.model()).rounds == 1
