"""PyTorch modules through ONNX: what people bring, with random weights, against PyTorch itself."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.errors import ModelError
from he_backend.graph import Reference, convert, run_program
from he_backend.graph.affine import lower
from tests.graph.test_split import assert_no_weights_travel

torch = pytest.importorskip("torch")
nn = torch.nn


class ResidualNet(nn.Module):
    """Convolutions with batch norms, PReLU, a projection on the way round, global pooling."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.around, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        y = torch.relu(self.second(self.first(x)) + self.around(x))
        return self.head(y.mean((2, 3)))


class PostNormBlock(nn.Module):
    """Attention and feed-forward with learned norms after the residuals, as in BERT, and a classifier on the first position."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down, self.head = nn.Linear(width, 32), nn.Linear(32, width), nn.Linear(width, 3)

    def forward(self, x):
        rows, length, width = x.shape

        def split(t):
            return t.reshape(rows, length, self.heads, width // self.heads).transpose(1, 2)

        scores = split(self.query(x)) @ split(self.key(x)).transpose(-1, -2) / (width // self.heads) ** 0.5
        mixed = (torch.softmax(scores, -1) @ split(self.value(x))).transpose(1, 2).reshape(rows, length, width)
        x = self.norm1(x + self.out(mixed))
        x = self.norm2(x + self.down(nn.functional.gelu(self.up(x))))
        return self.head(x[:, 0])


class Patches(nn.Module):
    """A vision transformer: patches, a class token, positions, two layers, the class token classified."""

    def __init__(self):
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.zeros(1, 1, 16))
        self.positions, self.layers, self.head = nn.Parameter(torch.zeros(1, 10, 16)), encoder(norm_first=True), nn.Linear(16, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.layers(x)[:, 0])


class DenselyConnected(nn.Module):
    """Layers that read the results of all layers before them, side by side."""

    def __init__(self):
        super().__init__()
        parts = [nn.Sequential(nn.BatchNorm2d(3 + 4 * i), nn.ReLU(), nn.Conv2d(3 + 4 * i, 4, 3, padding=1)) for i in range(3)]
        self.parts, self.head = nn.ModuleList(parts), nn.Linear(15, 3)

    def forward(self, x):
        for part in self.parts:
            x = torch.cat([x, part(x)], 1)
        return self.head(x.mean((2, 3)))


class DownAndUp(nn.Module):
    """A U-Net of two levels."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        high = torch.relu(self.first(x))
        low = torch.relu(self.second(nn.functional.max_pool2d(high, 2)))
        return torch.sigmoid(self.out(torch.cat([high, torch.relu(self.up(low))], 1)))


class ConvolutionsThenSteps(nn.Module):
    """Convolutions over time, a recurrent layer in both directions, the maximum over time."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv1d(3, 8, 3, padding=1), nn.Linear(12, 2)
        self.layer = nn.LSTM(8, 6, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.head(self.layer(torch.relu(self.first(x)).transpose(1, 2))[0].max(1)[0])


def encoder(**options):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODULES = {
    "residual": (ResidualNet, (3, 8, 8), 4),
    "post_norm": (PostNormBlock, (7, 16), 5),
    "encoder": (lambda: encoder(activation="gelu"), (6, 16), 9),
    "encoder_norm_first": (lambda: encoder(norm_first=True), (6, 16), 8),
    "mobile": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Hardswish(),
            nn.Conv2d(8, 8, 5, groups=8, padding=2), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
        ), (3, 9, 9), 3,
    ),
    "norms": (
        lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.ConvTranspose1d(8, 4, 4, 2, 1),
                              nn.InstanceNorm1d(4, affine=True), nn.AvgPool1d(2)), (3, 12), 4,
    ),
    "vision_transformer": (Patches, (3, 12, 12), 10),
    "dense_net": (DenselyConnected, (3, 6, 6), 7),
    "u_net": (DownAndUp, (1, 8, 8), 4),
    "convolutions_then_steps": (ConvolutionsThenSteps, (3, 7), 1 + 7 + 1),
    "upsampling": (lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 3, 3, padding=1), nn.LeakyReLU()), (2, 5, 5), 1),
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Dropout(0.5), nn.Linear(5, 2)), (6,), 2),
}  # fmt: skip


def randomised(module):
    """With all weights and statistics drawn, so that no scale is 1 and no shift is 0 by default."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            tensor.data.mul_(1.5)
        elif "running_var" in name:
            tensor.data.uniform_(0.5, 2.0, generator=generator)
        else:
            tensor.data.normal_(generator=generator)
    return module


@pytest.mark.parametrize("name", MODULES)
def test_modules_match_pytorch(name):
    make, shape, rounds = MODULES[name]
    torch.manual_seed(0)
    module = randomised(make())
    rows = torch.randn(5, *shape)
    program = convert(module, rows[:2])
    with torch.no_grad():
        wanted = module.eval()(rows).numpy()
    tolerance = 1e-4 * max(1.0, float(np.abs(wanted).max()))
    for results in (run_program(program, rows.numpy()), Reference(program).run(rows.numpy())):
        np.testing.assert_allclose(results[program.outputs[0].name], wanted, atol=tolerance)
    assert program.rounds == rounds, program.describe()
    assert all(step.batched for step in program.steps if step.model)
    assert_no_weights_travel(program)


def test_queries_keys_and_values_share_one_block():
    torch.manual_seed(0)
    program = convert(encoder(), np.zeros((2, 6, 16), np.float32))
    first = program.segments[0]
    assert first.in_elements == 6 * 16
    (block,) = lower(first).blocks
    assert block.weights.shape == (1, 16, 48)


def test_a_classifier_of_the_first_position_computes_that_position_alone_after_attention():
    torch.manual_seed(0)
    program = convert(randomised(PostNormBlock()), np.zeros((2, 7, 16), np.float32))
    assert [segment.in_elements for segment in program.segments] == [7 * 16, 16, 16, 32 + 16, 16]
    assert program.segments[0].out_elements == 2 * 7 * 16 + 16  # keys and values of all, the query of one


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, x, y):
            return torch.tanh(self.a(x) + self.b(y)), self.a(x)

    module = Two()
    x, y = torch.randn(3, 4), torch.randn(3, 2)
    program = convert(module, (x, y))
    got = run_program(program, {"input0": x.numpy(), "input1": y.numpy()})
    with torch.no_grad():
        wanted = [t.numpy() for t in module.eval()(x, y)]
    assert program.rounds == 1
    for spec, due in zip(program.outputs, wanted):
        np.testing.assert_allclose(got[spec.name], due, atol=1e-5)


def test_rows_that_mix_are_refused():
    class Mixing(nn.Module):
        def forward(self, x):
            return x - x.mean(0, keepdim=True)

    with pytest.raises(ModelError, match="rows of a batch change each other"):
        convert(Mixing(), torch.zeros(3, 2))


def test_the_modules_mode_is_left_as_it_was():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    convert(module, torch.zeros(1, 2))
    assert module.training


def test_an_example_is_needed():
    with pytest.raises(ModelError, match="example input"):
        convert(nn.Linear(2, 2))


def test_modules_that_cannot_be_traced_say_so():
    class Odd(nn.Module):
        def forward(self, x):
            raise RuntimeError("cannot do this")

    with pytest.raises(ModelError, match="PyTorch cannot export"):
        convert(Odd(), torch.zeros(1, 2))
