"""The measured networks: shapes, known sizes, and what their publishers computed; encrypted at least as close as plain float32."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import he_backend as he
from he_backend.bench.networks import bert_tiny, bert_tiny_stages, mobilenet
from he_backend.bench.networks.lenet import lenet
from he_backend.bench.networks.resnet20 import resnet20
from he_backend.ckks.engines import available
from he_backend.errors import InputError, NotFoundError
from he_backend.graph.affine import lower
from he_backend.inference.structure import find_structure


def plain(model, feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def structures(program):
    """What grid and product packing see of each round."""
    shapes = program.shapes
    return [find_structure(lower(segment, shapes), [tuple(shapes[name]) for name in segment.inputs]) for segment in program.segments]


def or_skip(make):
    """What `make` returns; skips, naming the file, when it is missing."""
    try:
        return make()
    except NotFoundError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("make, shape, rounds, multiply_adds", [(lenet, (1, 28, 28), 5, 416_520), (resnet20, (3, 32, 32), 20, 40_813_184)])
def test_convolutional_networks_have_their_known_size_and_agree_encrypted(make, shape, rounds, multiply_adds):
    program = he.convert(make())
    rows = np.random.default_rng(0).uniform(0, 1, (2, *shape)).astype(np.float32)

    result = he.infer(program, rows, engine="clear", preset="N11_L1")

    assert (program.rounds, program.multiply_adds) == (rounds, multiply_adds)
    assert not any(structure is None or structure.is_matrix for structure in structures(program))
    assert result.report.bits_of_precision >= result.report.expected_bits


@pytest.mark.parametrize("mask", [False, True])
def test_bert_tiny_splits_into_ten_rounds_with_known_layers(mask):
    model = or_skip(lambda: bert_tiny.bert_tiny(128, mask))
    program = he.convert(model)
    assert program.rounds == 10
    assert program.multiply_adds == 29_557_248
    assert not any(structure is None or structure.is_matrix for structure in structures(program))
    assert max(segment.out_elements for segment in program.segments) == 128 * 512  # what GELU reads comes once


def test_masked_tokens_of_bert_tiny_do_not_count():
    model = or_skip(lambda: bert_tiny.bert_tiny(8, True))
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 8, 128)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1, 0, 0, 0]], np.float32)
    other = x.copy()
    other[:, 5:] = random.standard_normal((1, 3, 128))
    np.testing.assert_allclose(plain(model, {"x": x, "mask": mask}), plain(model, {"x": other, "mask": mask}), atol=1e-6)
    short = plain(bert_tiny.bert_tiny(5), {"x": x[:, :5]})
    np.testing.assert_allclose(plain(model, {"x": x, "mask": mask}), short, atol=1e-5)


@pytest.mark.parametrize("engine", [engine for engine in ("clear", "native") if engine in available()])
def test_bert_tiny_agrees_encrypted(engine):
    program = he.convert(or_skip(lambda: bert_tiny.bert_tiny(4, True)))
    random = np.random.default_rng(0)
    rows = {"x": random.standard_normal((3, 4, 128)).astype(np.float32), "mask": np.ones((3, 4), np.float32)}
    rows["mask"][1, 3:] = 0
    result = he.infer(program, rows, engine=engine, bits=14)
    print(
        f"{engine}: {result.report.bits_of_precision:.1f} bits of {result.report.expected_bits:.1f}, {result.report.seconds['total']:.2f} s"
    )
    assert result.report.bits_of_precision >= result.report.expected_bits
    assert result.report.agreement == 1.0


def test_stages_of_bert_tiny_are_as_close_to_the_published_vectors_encrypted_as_in_plain_float32():
    vectors = or_skip(bert_tiny.reference_vectors)
    made = or_skip(bert_tiny_stages.stages)
    seen = {stage.result for stage in made}
    assert seen | set(bert_tiny_stages.NOT_COMPARABLE) == {name for name in vectors if name.endswith(("_cls", "_logits"))} - {
        "plain_precomputed_logits"
    }
    for stage in made:
        due = vectors[stage.result]
        rows = stage.rows(vectors)

        result = he.infer(stage.model, rows, bits=22)

        errors = [float(np.abs(values[0, : len(due)] - due).max()) for values in (plain(stage.model, rows), result.output)]
        size = float(np.abs(due).max())
        print(f"{stage.result}: off by {errors[0]:.2e} plain, {errors[1]:.2e} encrypted, of values up to {size:.2f}")
        assert errors[0] <= 1e-3 * size  # the stage is the published one
        assert errors[1] <= errors[0] + 2.0**-18 * size  # an eighth of what their four decimals round off


def test_a_damaged_weights_file_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{not json}")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        bert_tiny.read_safetensors(path)


def test_mobilenet_reproduces_its_reference_logits():
    model = or_skip(mobilenet.mobilenet)
    logits, labels = or_skip(mobilenet.reference_logits)
    chosen = [0, 3, 17, 50, 101, 133, 166, 199]
    samples = or_skip(lambda: mobilenet.samples(chosen))

    scores = plain(model, {"x": samples.x})

    assert np.array_equal(samples.y, labels[chosen])
    assert float(np.abs(scores - logits[chosen]).max()) <= 1e-4
    assert (logits.argmax(axis=1) == labels).mean() == 0.85


def test_mobilenet_has_one_convolution_in_every_round_but_the_last():
    program = he.convert(or_skip(mobilenet.mobilenet))
    assert program.rounds == 52

    *convolutions, head = structures(program)

    assert not any(structure is None or structure.is_matrix for structure in convolutions)
    assert (convolutions[0].channels, convolutions[0].positions) == (3 * 4, 113 * 113)  # two phases each way; TensorFlow pads at the end
    assert sum(len(structure.parts[0].column_channel) > 1 for structure in convolutions) == 17  # depthwise
    assert head.out_channels == 1000


def test_preprocessing_takes_the_middle_and_scales_it():
    pixels = np.zeros((256, 300, 3), np.uint8)
    pixels[16 : 16 + 224, 38 : 38 + 224] = 255
    image = mobilenet.preprocess(pixels)
    assert image.shape == (3, 224, 224)
    assert np.all(image == 1.0)
