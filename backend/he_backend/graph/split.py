"""`Graph` -> `Program`: what the model owner computes in each round, and what the data owner computes between rounds.

The client-aided split of nGraph-HE2 (Boemer et al., WAHC 2019), made general: affine with weights is the server's, free of weights is
the client's, and everything that one round can compute is one segment. `placement` finds the earliest place of every value; here the
network is walked back from its outputs, so that nothing is computed or sent that nobody needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Mapping

from he_backend.errors import ModelError
from he_backend.graph.model import Graph, Node, row_shape, size_of
from he_backend.graph.placement import Expression, Place, data_operands, moves_data, place
from he_backend.graph.problems import problems_of
from he_backend.graph.program import Program, Segment, Step
from he_backend.graph.split_check import check_program
from he_backend.graph.step_models import StepNodes, build_steps, public_constants, traces_of


def split(graph: Graph) -> Program:
    """The network as a Program, compared with ONNX Runtime. Raises ModelError whose `problems` lists every node that cannot be split."""
    problems = problems_of(graph)
    if problems:
        raise ModelError(f"the model {graph.name!r} cannot run encrypted:", problems)
    places = place(graph)
    chosen = _choose(graph, places, frozenset())
    chosen = _choose(graph, places, chosen.wanted)  # a second look, now that it is known what the client has anyway
    levels = sorted({_expression(places, name).level for name in chosen.received})
    segments = _segments(graph, places, chosen, levels)
    chosen = replace(chosen, computed=_needed(graph, chosen, segments))
    step_nodes = _step_nodes(graph, places, chosen, levels, segments)
    crossing: set[str] = {*graph.inputs, *graph.outputs}
    for segment in segments:
        crossing.update(segment.inputs, segment.outputs)
    for part in step_nodes:
        crossing.update(part.inputs, part.outputs)
    traces = traces_of(graph, sorted(crossing))
    program = Program(
        name=graph.name,
        inputs=tuple(graph.spec(name) for name in graph.inputs),
        outputs=tuple(graph.spec(name) for name in graph.outputs),
        shapes={name: row_shape(graph.shapes[name]) for name in sorted(crossing)},
        segments=segments,
        steps=build_steps(graph, step_nodes, traces),
        public_constants=public_constants(graph, step_nodes),
        row_wise=graph.row_wise,
        notes=graph.notes,
        source=graph.source,
    )
    check_program(program, graph, traces)
    return program


@dataclass(frozen=True)
class _Choice:
    """Values the client has, those of them that it receives, and the nodes it computes."""

    wanted: frozenset[str]
    received: frozenset[str]
    computed: tuple[Node, ...]


def _expression(places: dict[str, Place], name: str) -> Expression:
    expression = places[name].expression
    assert expression is not None
    return expression


def _choose(graph: Graph, places: dict[str, Place], had: frozenset[str]) -> _Choice:
    """Back from the outputs: compute a value or receive it, whichever is earlier, then whichever moves fewer elements."""
    wanted, received = set(graph.outputs), set()
    known = wanted | had
    consumers = graph.consumers()
    computed: list[Node] = []
    for node in reversed(graph.nodes):
        computes = False
        for output in node.outputs:
            if output not in wanted:
                continue
            if _receives(graph, places, consumers, node, output, known):
                received.add(output)
                more: Iterable[str] = _expression(places, output).leaves
                wanted.update(more)
                known.update(more)
            else:
                computes = True
        if computes:
            computed.append(node)
            more = data_operands(graph, node)
            wanted.update(more)
            known.update(more)
    return _Choice(frozenset(wanted), frozenset(received), tuple(reversed(computed)))


def _receives(
    graph: Graph, places: dict[str, Place], consumers: Mapping[str, tuple[Node, ...]], node: Node, output: str, had: set[str]
) -> bool:
    here = places[output]
    if here.expression is None or not here.computable:
        return here.expression is not None
    data = data_operands(graph, node)
    computing = max(places[name].client for name in data)
    receiving = here.expression.level + 1
    if computing != receiving:
        return receiving < computing
    if here.expression.residual:
        return False
    if len(node.outputs) > 1 and had.issuperset(node.outputs):
        return False  # all parts are wanted: the whole comes as one
    missing = [name for name in data if name not in had and places[name].expression is not None]
    if not missing:
        return False
    leaves = frozenset().union(*(_expression(places, name).leaves for name in missing))
    receives, computes = _elements(graph, [output, *here.expression.leaves]), _elements(graph, [*missing, *leaves])
    # Equal for this one, but whoever else reads the operands would receive its own variety of them.
    return receives < computes or (receives == computes and all(len(consumers[name]) == 1 for name in missing))


def _elements(graph: Graph, names: Iterable[str]) -> int:
    return sum(size_of(graph.shapes[name]) for name in names)


def _segments(graph: Graph, places: dict[str, Place], chosen: _Choice, levels: list[int]) -> tuple[Segment, ...]:
    """Everything that is received from one round, for each round."""
    producers = graph.producers()
    place_of = {name: index for index, name in enumerate((*graph.inputs, *(o for n in graph.nodes for o in n.outputs if o)))}
    outputs: dict[int, list[str]] = {level: [] for level in levels}
    for name in sorted(chosen.received, key=place_of.__getitem__):
        outputs[_expression(places, name).level].append(name)
    found = []
    for index, level in enumerate(levels):
        leaves = frozenset().union(*(_expression(places, name).leaves for name in outputs[level]))
        found.append(_segment(graph, places, producers, place_of, index, outputs[level], _sent(graph, producers, leaves)))
    return tuple(found)


def _segment(
    graph: Graph, places: dict[str, Place], producers: Mapping[str, Node], place_of: Mapping[str, int],
    index: int, outputs: list[str], leaves: frozenset[str],
) -> Segment:  # fmt: skip
    """Back from the outputs of a round to its leaves."""
    waiting, inputs = list(outputs), set()
    nodes: dict[int, Node] = {}
    while waiting:
        node = producers[waiting.pop()]
        position = place_of[next(name for name in node.outputs if name)]
        if position in nodes:
            continue
        nodes[position] = node
        for name in data_operands(graph, node):
            if name in leaves:
                inputs.add(name)
            else:
                waiting.append(name)
    ordered = tuple(nodes[position] for position in sorted(nodes))
    named = {name for node in ordered for name in (*node.inputs, *node.outputs) if name}
    return Segment(
        index=index,
        name=f"round {index + 1}",
        inputs=tuple(sorted(inputs, key=place_of.__getitem__)),
        outputs=tuple(outputs),
        nodes=ordered,
        constants={name: graph.constants[name] for name in sorted(named) if name in graph.constants},
        tensor_shapes={name: graph.shapes[name] for name in sorted(named)},
        opset=graph.opset,
        multiply_adds=sum(_expression(places, name).nonzeros for name in outputs),
    )


def _sent(graph: Graph, producers: Mapping[str, Node], leaves: frozenset[str]) -> frozenset[str]:
    """The leaves without those that the model owner can take out of another leaf: a slice of what is sent anyway."""
    kept = set(leaves)
    for name in leaves:
        node = producers.get(name)
        while node is not None and moves_data(graph, node) and graph.dtypes[node.inputs[0]] == graph.dtypes[name]:
            if node.inputs[0] in leaves:
                kept.discard(name)
                break
            node = producers.get(node.inputs[0])
    return frozenset(kept)


def _needed(graph: Graph, chosen: _Choice, segments: tuple[Segment, ...]) -> tuple[Node, ...]:
    """The client's nodes without those whose results nobody reads, now that it is settled what is sent."""
    wanted = {*graph.outputs, *(name for segment in segments for name in segment.inputs)}
    kept: list[Node] = []
    for node in reversed(chosen.computed):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(data_operands(graph, node))
    return tuple(reversed(kept))


def _step_nodes(
    graph: Graph, places: dict[str, Place], chosen: _Choice, levels: list[int], segments: tuple[Segment, ...]
) -> tuple[StepNodes, ...]:
    """The client's nodes, each in the first step in which all its operands are there; and what passes from step to step."""
    free = _free(graph)  # values made of constants alone: every step makes its own
    since = dict.fromkeys(graph.inputs, 0)
    for name in chosen.received:
        since[name] = levels.index(_expression(places, name).level) + 1
    nodes: list[list[Node]] = [[] for _ in range(len(levels) + 1)]
    for node in chosen.computed:
        if free.intersection(node.outputs) and not free.intersection(graph.outputs).intersection(node.outputs):
            continue
        step = max((since.get(name, 0) for name in data_operands(graph, node)), default=0)
        nodes[step].append(node)
        for output in node.outputs:
            if output and output not in chosen.received:
                since[output] = step
    nodes = [_with_free(graph, free, part) for part in nodes]
    reads = [tuple(dict.fromkeys(n for node in part for n in data_operands(graph, node))) for part in nodes]
    until = {name: len(nodes) for name in graph.outputs}  # the last step after which a value is still read
    for index, names in enumerate(reads):
        for name in names:
            until[name] = max(until.get(name, -1), index - 1)
    for index, segment in enumerate(segments):
        for name in segment.inputs:
            until[name] = max(until.get(name, -1), index)
    found = []
    for index, part in enumerate(nodes):
        made = dict.fromkeys(output for node in part for output in node.outputs if output and output not in chosen.received)
        found.append(
            StepNodes(
                tuple(name for name in reads[index] if name not in made),
                tuple(name for name in made if until.get(name, -1) >= index and (name not in free or name in graph.outputs)),
                tuple(part),
            )
        )
    return tuple(found)


def _free(graph: Graph) -> frozenset[str]:
    """Values that no input of the network reaches."""
    free: set[str] = set()
    for node in graph.nodes:
        if all(name in free for name in data_operands(graph, node)):
            free.update(output for output in node.outputs if output)
    return frozenset(free)


def _with_free(graph: Graph, free: frozenset[str], nodes: list[Node]) -> list[Node]:
    """The nodes of a step, after those that make the free values which they read."""
    if not free:
        return nodes
    needed = {name for node in nodes for name in node.inputs}
    makers: list[Node] = []
    for node in reversed(graph.nodes):
        if node not in nodes and free.intersection(node.outputs) and needed.intersection(node.outputs):
            makers.append(node)
            needed.update(node.inputs)
    return makers[::-1] + nodes


__all__ = ["Program", "Segment", "Step", "split"]
