"""Segments as blocks: shared weights stay shared, and the general way agrees with the direct one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_backend.errors import CapacityError
from he_backend.graph import convert, sparse
from he_backend.graph.affine import AffineMap, Block, lower
from tests.graph.networks import NetworkBuilder


def lowered(net):
    """The one segment of a network, as an affine map."""
    program = convert(net.model())
    assert program.rounds == 1
    return lower(program.segments[0], program.shapes)


def test_block_by_hand():
    # y0 = 2 x0 + 3 x1, y1 = 2 x1 + 3 · 0 (padding), plus bias
    block = Block(0, np.array([[[0, 1], [1, -1]]]), np.array([[[2.0], [3.0]]]), np.array([[[0], [1]]]))
    affine = AffineMap((2,), (2,), (block,), np.array([10.0, 20.0]))
    (result,) = affine.apply([np.array([[1.0, 5.0], [0.0, 1.0]])])
    np.testing.assert_array_equal(result, [[27, 30], [13, 22]])
    assert affine.nonzeros == 3


def test_blocks_that_write_one_element_twice_add_up():
    block = Block(0, np.array([[[0], [1]]]), np.array([[[1.0]]]), np.array([[[0], [0]]]))
    (result,) = AffineMap((2,), (1,), (block,), np.zeros(1)).apply([np.array([[3.0, 4.0]])])
    np.testing.assert_array_equal(result, [[7]])


def test_dense_on_a_sequence_shares_its_weights():
    net = NetworkBuilder((7, 4))
    net.apply("MatMul", net.weights(4, 3), shape=(1, 7, 3))
    (block,) = lowered(net).blocks
    assert block.gather.shape == (1, 7, 4)
    assert block.weights.shape == (1, 4, 3)


def test_product_with_a_constant_on_the_left_shares_its_weights():
    net = NetworkBuilder((2, 5, 4))
    net.add("MatMul", [net.weights(3, 5), net.value], (1, 2, 3, 4))
    (block,) = lowered(net).blocks
    assert block.gather.shape == (1, 8, 5)
    assert block.weights.shape == (1, 5, 3)


def test_product_with_a_matrix_per_head():
    net = NetworkBuilder((2, 5, 4))
    net.apply("MatMul", net.weights(2, 4, 3), shape=(1, 2, 5, 3))
    (block,) = lowered(net).blocks
    assert block.gather.shape == (2, 5, 4)


def test_depthwise_convolution_has_one_group_per_channel():
    net = NetworkBuilder((4, 6, 6))
    net.apply("Conv", net.weights(4, 1, 3, 3), shape=net.shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=4)
    (block,) = lowered(net).blocks
    assert block.gather.shape == (4, 36, 9)
    assert block.weights.shape == (4, 9, 1)


def test_movement_around_a_convolution_keeps_its_weights_shared():
    net = NetworkBuilder((6, 6, 2))
    net.apply("Transpose", shape=(1, 2, 6, 6), perm=[0, 3, 1, 2])
    net.apply("Mul", net.weights(2, 1, 1))
    net.apply("Conv", net.weights(3, 2, 3, 3), net.weights(3), shape=(1, 3, 4, 4), kernel_shape=[3, 3])
    net.apply("Mul", net.weights(3, 1, 1))
    net.apply("Transpose", shape=(1, 4, 4, 3), perm=[0, 2, 3, 1])
    net.apply("Reshape", net.constant(np.array([0, 48], np.int64)), shape=(1, 48))
    (block,) = lowered(net).blocks
    assert block.gather.shape == (1, 16, 18)
    assert block.weights.shape == (1, 18, 3)


def test_transposed_convolution_uses_every_tap_once_per_phase():
    net = NetworkBuilder((2, 5))
    net.apply("ConvTranspose", net.weights(2, 3, 4), shape=(1, 3, 12), kernel_shape=[4], strides=[2])
    (block,) = lowered(net).blocks
    assert block.gather.shape == (1, 6, 4)  # both phases read the same elements, so they are one block
    assert block.weights.shape == (1, 4, 6)


def test_zeros_beside_a_value_are_not_read():
    net = NetworkBuilder((4,))
    net.apply("Mul", net.weights(4))
    net.apply("Pad", net.constant(np.array([0, 2, 0, 1], np.int64)), shape=(1, 7))
    net.apply("MatMul", net.weights(7, 2), shape=(1, 2))
    (block,) = lowered(net).blocks
    assert block.weights.shape == (1, 4, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 999))
def test_any_matrix_survives_as_blocks(rows, columns, density, seed):
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((rows, columns)) * (random.random((rows, columns)) < density)
    blocks = sparse.blocks_of(sparse.sparse.csr_matrix(matrix), 0)
    affine = AffineMap((columns,), (rows,), tuple(blocks), np.zeros(rows))
    np.testing.assert_allclose(affine.apply([np.eye(columns)])[0].T, matrix, atol=1e-12)
    assert affine.nonzeros == np.count_nonzero(matrix)
    np.testing.assert_allclose(sparse.matrix_of(blocks, rows, columns).toarray(), matrix, atol=1e-12)


def test_a_dense_matrix_becomes_one_block():
    blocks = sparse.blocks_of(sparse.sparse.csr_matrix(np.ones((5, 4)) + np.eye(5, 4)), 0)
    assert [block.weights.shape for block in blocks] == [(1, 4, 5)]


def test_a_matrix_that_is_too_large_is_refused():
    with pytest.raises(CapacityError, match="nonzeros"):
        sparse.check_size(sparse.MAX_NONZEROS + 1, "this")
