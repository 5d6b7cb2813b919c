"""Recurrent layers against ONNX Runtime and PyTorch: every option, what it costs in rounds, and what is refused."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import he_backend as he
from he_backend.errors import ModelError
from he_backend.graph import Reference, convert, run_program
from he_backend.graph.affine import lower
from tests.graph.test_import import model_of
from tests.graph.test_split import assert_no_weights_travel, close

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


class Layer:
    """One recurrent ONNX node with random weights and the options given. `rows` counts rows for layout 1, else one row is one input."""

    def __init__(self, op, length=4, inputs=3, hidden=2, direction="forward", layout=0, seed=0, batch=1, **options):
        self.op, self.length, self.inputs, self.hidden = op, length, inputs, hidden
        self.layout, self.random, self.batch = layout, np.random.default_rng(seed), batch
        self.count = 2 if direction == "bidirectional" else 1
        self.attributes = {"hidden_size": hidden, "direction": direction}
        self.operands, self.constants, self.feeds = ["x", "W", "R"], {}, [("x", self.order(batch, length, inputs))]
        width = GATES[op] * hidden
        self.constants["W"] = self.weights(self.count, width, inputs)
        self.constants["R"] = self.weights(self.count, width, hidden)
        self.optional = {}
        self.outputs = ["y", "h", "c"] if op == "LSTM" else ["y", "h"]
        if options.pop("bias", True):
            self.set(3, "B", self.weights(self.count, 2 * width))
        self.types = {"x": TensorProto.FLOAT}
        self.attributes.update(options)

    def order(self, batch, length, width):
        """Layout 1 has the batch first, layout 0 the time."""
        return (batch, length, width) if self.layout else (length, batch, width)

    def weights(self, *shape):
        return self.random.standard_normal(shape).astype(np.float32)

    def set(self, position, name, value):
        """An optional operand as a constant."""
        self.optional[position] = name
        self.constants[name] = value

    def feed(self, position, name, shape, kind=TensorProto.FLOAT):
        """An optional operand as an input of the network."""
        self.optional[position] = name
        self.feeds.append((name, shape))
        self.types[name] = kind

    def state_shape(self):
        return (self.batch, self.count, self.hidden) if self.layout else (self.count, self.batch, self.hidden)

    def model(self, opset=17):
        """The network; ONNX Runtime runs layout 0 only."""
        last = max(self.optional, default=2)
        operands = [*self.operands, *[self.optional.get(i, "") for i in range(3, last + 1)]]
        node = helper.make_node(self.op, operands, self.outputs, name="cell", **self.attributes)
        if self.layout:
            node.attribute.append(helper.make_attribute("layout", 1))
        inputs = [(name, list(shape), self.types[name]) for name, shape in self.feeds]
        return model_of([node], inputs, [(name, None) for name in self.outputs if name], self.constants, opset)

    def rows(self, count=3, lengths=None):
        made = {}
        for name, shape in self.feeds:
            if self.types[name] == TensorProto.INT32:
                made[name] = self.random.integers(0, self.length + 1, (count, *shape)).astype(np.int32)
            else:
                made[name] = self.random.standard_normal((count, *shape)).astype(np.float32)
        return made

    def plain(self, row):
        """What ONNX Runtime computes for one row, in the order of the layer's layout: it runs layout 0 only."""
        layout, self.layout = self.layout, 0
        constants = dict(self.constants)
        if layout:
            self.constants.update({n: self.constants[n].swapaxes(0, 1) for n in ("h0", "c0") if n in self.constants})
            row = {name: value.swapaxes(0, 1) if value.ndim == 3 else value for name, value in row.items()}
            self.feeds = [(name, row[name].shape) for name, _ in self.feeds]
        session = onnxruntime.InferenceSession(self.model().SerializeToString(), providers=["CPUExecutionProvider"])
        made = session.run(self.outputs, row)
        if layout:
            self.feeds = [(name, row[name].swapaxes(0, 1).shape if row[name].ndim == 3 else row[name].shape) for name, _ in self.feeds]
            made = [value.transpose(2, 0, 1, 3) if value.ndim == 4 else value.swapaxes(0, 1) for value in made]
        self.layout, self.constants = layout, constants
        return dict(zip(self.outputs, made))


def matches(layer, rows):
    """The program, after comparing all outputs of each row with ONNX Runtime."""
    program = convert(layer.model())
    shapes = {spec.name: tuple(spec.shape) for spec in program.inputs}
    count = len(next(iter(rows.values())))
    got = run_program(program, {name: value.reshape(-1, *shapes[name]) for name, value in rows.items()})
    for index in range(count):
        for name, due in layer.plain({name: value[index] for name, value in rows.items()}).items():
            close(got[name].reshape(count, -1)[index], due.ravel())
    assert_no_weights_travel(program)
    return program


@st.composite
def layers(draw):
    op = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    layout = draw(st.integers(0, 1))
    batch = draw(st.sampled_from([1, 1, 1, 2]))
    options = {}
    if op == "GRU":
        options["linear_before_reset"] = draw(st.integers(0, 1))
    if op == "LSTM" and draw(st.booleans()):
        options["input_forget"] = 1
    if draw(st.integers(0, 3)) == 0:
        options["clip"] = draw(st.sampled_from([0.3, 1.5]))
    if draw(st.integers(0, 2)) == 0:
        count = 2 if direction == "bidirectional" else 1
        names = [draw(st.sampled_from(["Sigmoid", "Tanh", "Relu", "Softsign", "HardSigmoid", "LeakyRelu"])) for _ in DEFAULTS[op] * count]
        options["activations"] = names
    layer = Layer(
        op, draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3)), direction, layout,
        draw(st.integers(0, 1 << 16)), batch, bias=draw(st.booleans()), **options,
    )  # fmt: skip
    lengths = draw(st.sampled_from(["all", "all", "data", "constant"]))
    if lengths == "data":
        layer.feed(4, "lengths", (batch,), TensorProto.INT32)
    elif lengths == "constant":
        layer.set(4, "lengths", layer.random.integers(0, layer.length + 1, batch).astype(np.int32))
    for position, name in ((5, "h0"), (6, "c0"))[: 2 if op == "LSTM" else 1]:
        kind = draw(st.sampled_from(["none", "zeros", "constant", "data"]))
        if kind == "data":
            layer.feed(position, name, layer.state_shape())
        elif kind != "none":
            layer.set(position, name, layer.weights(*layer.state_shape()) * (kind == "constant"))
    return layer


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(layer=layers())
def test_random_layers_match_onnx_runtime(layer):
    matches(layer, layer.rows())


@pytest.mark.parametrize("op", sorted(GATES))
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_a_layer_takes_a_round_per_time_step_and_both_directions_share_them(op, direction):
    layer = Layer(op, 6, direction=direction, **({"linear_before_reset": 1} if op == "GRU" else {}))
    program = matches(layer, layer.rows())
    assert program.rounds == 6
    assert program.notes[0].startswith(f"{op} cell: 6 time steps, a round each")
    assert program.notes[0] in program.describe()
    (block,) = lower(program.segments[0], program.shapes).blocks
    assert block.weights.shape == (1, 3, layer.count * GATES[op] * 2)
    assert block.gather.shape == (1, 6, 3)
    assert [segment.in_elements for segment in program.segments] == [18, *[2 * layer.count] * 5]
    assert program.public_constants == ()


def test_a_reset_before_the_product_takes_two_rounds_per_time_step():
    layer = Layer("GRU", 4, linear_before_reset=0)
    program = matches(layer, layer.rows())
    assert program.rounds == 1 + 2 * 3
    assert "two rounds each" in program.notes[0]


def test_a_constant_initial_state_costs_no_round():
    for op in GATES:
        layer = Layer(op, 3, linear_before_reset=1) if op == "GRU" else Layer(op, 3)
        layer.set(5, "h0", layer.weights(*layer.state_shape()))
        if op == "LSTM":
            layer.set(6, "c0", layer.weights(*layer.state_shape()))
        assert matches(layer, layer.rows()).rounds == 3


def test_activation_parameters_are_given_in_the_order_of_the_activations():
    names = ["HardSigmoid", "LeakyRelu", "Tanh", "Elu", "ThresholdedRelu", "HardSigmoid"]
    layer = Layer(
        "LSTM", direction="bidirectional", activations=names, activation_alpha=[0.3, 0.2, 0.7, 0.4, 0.1], activation_beta=[0.4, 0.6]
    )
    matches(layer, layer.rows())


def refused(layer, opset=17):
    with pytest.raises(ModelError) as caught:
        convert(layer.model(opset))
    (problem,) = caught.value.problems
    assert (problem.node, problem.op) == ("cell", layer.op)
    return problem


def test_peepholes_are_refused_unless_they_are_zero():
    layer = Layer("LSTM")
    layer.set(7, "P", layer.weights(1, 6))
    problem = refused(layer)
    assert "peepholes" in problem.reason
    assert "without peepholes" in problem.instead
    layer.set(7, "P", np.zeros((1, 6), np.float32))
    matches(layer, layer.rows())


def test_weights_that_depend_on_the_data_are_refused():
    layer = Layer("RNN")
    layer.feeds.append(("W", layer.constants.pop("W").shape))
    layer.types["W"] = TensorProto.FLOAT
    assert "W depend on the data" in refused(layer).reason


def test_other_activations_are_refused():
    assert "ScaledTanh" in refused(Layer("RNN", activations=["ScaledTanh"])).reason


def test_lengths_need_opset_9():
    layer = Layer("RNN")
    layer.feed(4, "lengths", (1,), TensorProto.INT32)
    assert "opset 9" in refused(layer, opset=8).instead
    matches(layer, layer.rows())


@pytest.mark.parametrize("opset", [7, 10, 13, 18])
def test_older_and_newer_operator_sets(opset):
    layer = Layer("LSTM", clip=0.5)
    model, rows = layer.model(opset), layer.rows()
    got = run_program(convert(model), rows["x"])["y"]
    for index in range(3):
        close(got[index], layer.plain({"x": rows["x"][index]})["y"])


def test_open_sequence_axes_need_a_size():
    layer = Layer("GRU", 5, layout=1)
    model = layer.model()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param, dims[1].dim_param = "rows", "seq"
    with pytest.raises(ModelError, match=r"axis 1 \('seq'\).*dims=\{'seq': 128\}"):
        convert(model)
    program = convert(model, dims={"seq": 5})
    assert program.inputs[0].shape == (5, 3)
    assert all(step.batched for step in program.steps)
    rows = layer.rows()["x"]
    close(run_program(program, rows[:, 0])["y"][0], layer.plain({"x": rows[0]})["y"][0])


def test_an_open_time_axis_in_front_is_not_taken_for_rows():
    layer = Layer("RNN", 5)
    model = layer.model()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param, dims[1].dim_param = "seq", "batch"
    with pytest.raises(ModelError, match="'batch'"):
        convert(model)
    with pytest.raises(ModelError, match="give that axis a size, in the export or by dims"):
        convert(model, dims={"batch": 1})
    program = convert(model, dims={"batch": 1, "seq": 5})
    assert not program.row_wise
    rows = layer.rows()["x"]
    close(run_program(program, rows)["y"][1], layer.plain({"x": rows[1]})["y"])


def test_encrypted_on_the_clear_engine():
    layer = Layer("LSTM", 4, 5, 6, layout=1, direction="bidirectional", seed=3)
    rows = layer.rows(1)["x"][0].repeat(4, axis=0)
    rows += np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32)
    result = he.infer(convert(layer.model()), rows, engine="clear", preset="N11_L1")
    due = np.concatenate([layer.plain({"x": row[None]})["y"] for row in rows])
    error = float(np.abs(result.outputs["y"] - due).max())
    assert error <= 2.0**-result.report.expected_bits
    assert result.report.rounds == 4


# PyTorch.

torch = pytest.importorskip("torch")
nn = torch.nn
STACKS = {
    "lstm": (lambda: nn.LSTM(4, 6, batch_first=True), 5),
    "gru": (lambda: nn.GRU(4, 6, batch_first=True), 5),
    "rnn": (lambda: nn.RNN(4, 6, batch_first=True, nonlinearity="relu"), 5),
    "no_bias": (lambda: nn.GRU(4, 6, batch_first=True, bias=False), 5),
    "three_layers": (lambda: nn.LSTM(4, 6, 3, batch_first=True), 5 + 2),
    "two_layers_of_gru": (lambda: nn.GRU(4, 6, 2, batch_first=True, dropout=0.5), 5 + 1),
    "both_directions": (lambda: nn.LSTM(4, 6, batch_first=True, bidirectional=True), 5),
    "two_layers_of_both": (lambda: nn.GRU(4, 6, 2, batch_first=True, bidirectional=True), 5 + 5),
}


@pytest.mark.parametrize("name", STACKS)
def test_pytorch_layers(name):
    make, rounds = STACKS[name]
    torch.manual_seed(0)
    module, rows = make(), torch.randn(3, 5, 4)
    program = convert(module, rows[:2])
    output, state = module.eval()(rows)
    states = list(state) if isinstance(state, tuple) else [state]
    for results in (run_program(program, rows.numpy()), Reference(program).run(rows.numpy())):
        values = [results[spec.name] for spec in program.outputs]
        np.testing.assert_allclose(values[0], output.detach().numpy(), atol=1e-5)
        for got, due in zip(values[1:], states):  # [layers, rows, hidden]; a leading axis of 1 is dropped
            np.testing.assert_allclose(got.reshape(3, -1, 6), due.detach().numpy().swapaxes(0, 1), atol=1e-5)
    assert program.rounds == rounds, program.describe()
    assert all(step.batched for step in program.steps)
    assert_no_weights_travel(program)


class LastState(nn.Module):
    """A classifier of the last hidden state of the top layer."""

    def __init__(self, kind, by_slice=False):
        super().__init__()
        self.layers, self.head, self.by_slice = kind(4, 6, 2, batch_first=True), nn.Linear(6, 3), by_slice

    def forward(self, x):
        output, state = self.layers(x)
        if self.by_slice:
            return self.head(output[:, -1])
        return self.head((state[0] if isinstance(state, tuple) else state)[-1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("by_slice", [False, True])
def test_a_classifier_of_the_last_state(kind, by_slice):
    torch.manual_seed(1)
    module, rows = LastState(kind, by_slice), torch.randn(4, 7, 4)
    program = convert(module, rows[:2])
    close(run_program(program, rows.numpy())[program.outputs[0].name], module.eval()(rows).detach().numpy())
    assert program.rounds == 7 + 1 + 1
    assert program.segments[-1].in_elements == 6
    assert all(step.batched for step in program.steps if step.model)


class Decoder(nn.Module):
    """An encoder whose last states start a decoder, and an encoder that starts from learned states."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.GRU(4, 6, 2, batch_first=True), nn.GRU(4, 6, 2, batch_first=True)
        self.start = nn.Parameter(torch.randn(2, 1, 6))

    def forward(self, x):
        _, state = self.encoder(x, self.start.expand(2, x.shape[0], 6).contiguous())
        return self.decoder(x, state)[0]


def test_states_pass_from_layer_to_layer():
    torch.manual_seed(2)
    module, rows = Decoder(), torch.randn(3, 4, 4)
    program = convert(module, rows[:2])
    close(run_program(program, rows.numpy())[program.outputs[0].name], module.eval()(rows).detach().numpy())
    assert program.rounds == 4 + 4 + 1
    assert_no_weights_travel(program)


@pytest.mark.parametrize("ordered", [False, True])
def test_packed_sequences(ordered):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.LSTM(4, 6, batch_first=True, bidirectional=True), nn.Linear(12, 2)

        def forward(self, x, lengths):
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=ordered)
            output, _ = nn.utils.rnn.pad_packed_sequence(self.layers(packed)[0], batch_first=True, total_length=5)
            return self.head(output.sum(1))

    torch.manual_seed(3)
    module, rows, lengths = Packed(), torch.randn(4, 5, 4), torch.tensor([5, 4, 2, 1])
    program = convert(module, (rows, lengths))
    if not ordered:
        lengths = lengths[[2, 0, 3, 1]]
    got = run_program(program, {"input0": rows.numpy(), "input1": lengths.numpy()})
    close(got[program.outputs[0].name], module.eval()(rows, lengths).detach().numpy())
    assert program.rounds == 5 + 1


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2)

    def forward(self, x):
        return self.layer(x, x, x)


TIME_FIRST = {
    "lstm": (lambda: nn.LSTM(4, 6, 2), (5, 1, 4), 6),
    "three_in_a_row": (lambda: nn.GRU(4, 6, bidirectional=True), (5, 3, 4), 5),
    "attention": (Attention, (5, 1, 8), 2),
    "encoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False), (5, 1, 8), 8),
}


@pytest.mark.parametrize("name", TIME_FIRST)
def test_modules_that_are_not_batch_first_take_the_whole_example_as_a_row(name):
    make, shape, rounds = TIME_FIRST[name]
    torch.manual_seed(4)
    module, rows = make().eval(), torch.randn(2, *shape)
    program = convert(module, rows[0])
    got = run_program(program, rows.numpy())[program.outputs[0].name]
    for index in range(2):
        output = module(rows[index])
        due = (output[0] if isinstance(output, tuple) else output).detach().numpy()
        close(got[index].reshape(due.shape), due)
    assert not program.row_wise
    assert program.rounds == rounds
