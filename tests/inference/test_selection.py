"""Answers carry the coefficients that hold outputs and no others, whatever the packing."""

from __future__ import annotations

import json

import numpy as np
import pytest

import he_backend as he
from he_backend.bench.networks import lenet
from he_backend.protocol import messages
from tests.parties import client_of, service_of


@pytest.fixture(scope="module")
def program():
    return he.convert(lenet.lenet())


@pytest.mark.parametrize("engine", ["clear", "native"])
@pytest.mark.parametrize("packing", ["grid", "product"])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_only_what_is_read_is_sent(program, engine, packing, rows):
    client, link = client_of(service_of(program), record=True, engine=engine, preset="N11_L1", packing=packing)
    task = client.prepare("latest", rows)
    x = np.random.default_rng(0).uniform(-1, 1, (rows, *program.inputs[0].shape)).astype(np.float32)

    client.infer(task, x)

    heads = [messages.decode(frame) for frame in link.received]
    answers = [json.loads(head.header) for head in heads if isinstance(head, messages.RoundReply)]
    assert len(answers) == len(task.plan.rounds)
    for this, answer in zip(task.plan.rounds, answers):
        if this.layout is None:
            continue
        wanted = task.plan.out_elements(this.index)
        index = task.selections[this.index].index(answer["columns"], task.plan.answer_width(this.index, rows))
        named = np.broadcast_to(index, (answer["columns"], answer["count"], index.shape[2]))
        assert answer["width"] == index.shape[2]
        # The last column of a grid has room for more rows than came; nothing else is more than the outputs.
        room = task.plan.columns(this.index, rows) * 2048 // getattr(this.layout, "positions", 2048) + 1
        assert rows * wanted <= (named >= 0).sum() <= max(rows, room) * wanted
        if packing == "product" or answer["columns"] == 1:
            assert (named >= 0).sum() == rows * wanted
        for column in range(answer["columns"]):
            for element in range(answer["count"]):
                places = named[column, element][named[column, element] >= 0]
                assert len(set(places)) == len(places)


def test_a_stride_sends_a_fraction_of_what_is_computed(program):
    client, _ = client_of(service_of(program), engine="clear", preset="N11_L1", packing="product")
    plan = client.prepare("latest", 1).plan
    sent = [plan.selection(this.index).width(1, this.layout.width) / this.layout.width for this in plan.rounds if this.layout]
    assert min(sent) < 0.8 and max(sent) <= 1.0
