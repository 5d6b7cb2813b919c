"""A network as a value: imported, verified, rewritten, and split into affine segments and weight-free client steps.

Data flow: model file -> `onnx_import` -> `model.Graph` -> `passes` -> `Graph` -> `split` -> `program.Program`, whose segments `lowering`
turns into `affine.AffineMap` and whose client steps `steps.StepRunner` runs. Nothing in this room has heard of a ciphertext.

Two views of a tensor. Inside a `Graph` shapes are those of the ONNX network run on one row (a batch axis of size 1 is still there).
In a `Program` they are per row: the leading axis of size 1 is gone, and clients hold arrays [rows, *shape].
"""

from he_backend.graph.convert import convert
from he_backend.graph.interpret import run_program
from he_backend.graph.program import Program
from he_backend.graph.reference import Reference

__all__ = ["Program", "Reference", "convert", "run_program"]
