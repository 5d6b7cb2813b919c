"""The operator table: what each ONNX operator is to the splitter. What is not in it is refused, never guessed."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """Why an operator cannot run, and its nearest replacement."""

    reason: str
    instead: str = ""


# Affine with weights when one operand is a constant: the server's.
WEIGHTED = frozenset(["Conv", "ConvTranspose", "MatMul"])

# Elementwise and affine in each operand alone; with a constant operand a scale or a shift.
ARITHMETIC = frozenset(["Add", "Sub", "Mul", "Neg", "Sum"])

# Outputs are input elements moved, repeated or dropped (or zeros), unless `movement.only_moves` says otherwise; `True` when no element
# may be repeated.
MOVEMENT = {
    "Identity": True, "Reshape": True, "Flatten": True, "Squeeze": True, "Unsqueeze": True, "Transpose": True, "Slice": True,
    "Split": True, "Concat": True, "DepthToSpace": True, "SpaceToDepth": True, "Trilu": True, "Pad": False, "Expand": False,
    "Tile": False, "Gather": False, "GatherND": False, "GatherElements": False, "Upsample": False, "Resize": False,
}  # fmt: skip

# Weight-free and linear, from many elements to few.
POOLING = frozenset(["AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"])

# Everything a client step may contain: deterministic, without state, subgraphs or strings.
# fmt: off
STEP_OPS = frozenset((
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip",
    "Concat", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "Div", "Dropout",
    "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather", "GatherElements",
    "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN",
    "LRN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "LpPool",
    "MatMul", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod",
    "Mul", "Neg", "Not", "OneHot", "Or", "Pad", "Pow", "RMSNormalization", "Range", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "Round", "ScatterElements", "ScatterND", "Selu",
    "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign",
    "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
))
# fmt: on

RECURRENT = frozenset(["LSTM", "GRU", "RNN"])

# Known to the importer only: a pass replaces them before the split.
REWRITTEN = frozenset(["BatchNormalization", "PRelu", "SimplifiedLayerNormalization", "Constant", "Attention", *RECURRENT])

# Inputs (by position) that say how elements are arranged; they must be constants, since shapes may not depend on encrypted rows.
SHAPE_INPUTS = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Slice": (1, 2, 3, 4), "Pad": (1, 3), "Squeeze": (1,), "Unsqueeze": (1,),
    "Split": (1,), "Resize": (1, 2, 3), "Upsample": (1,), "TopK": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2),
    "OneHot": (1,), "ReduceSum": (1,), "ReduceMean": (1,), "ReduceMax": (1,), "ReduceMin": (1,), "ReduceProd": (1,),
    "ReduceL1": (1,), "ReduceL2": (1,), "ReduceLogSum": (1,), "ReduceLogSumExp": (1,), "ReduceSumSquare": (1,),
}  # fmt: skip

_LOOPS = Refusal("control flow depends on values that only the data owner may see", "export it with loops unrolled and branches decided")
_RANDOM = Refusal("draws random numbers, so it has no single right answer", "export the model in evaluation mode")
_STRINGS = Refusal("works on text or sequences, not on arrays of numbers", "do this before the network")
_QUANTISED = Refusal("integer-quantised arithmetic is not exact on encrypted reals", "export the float model")
_DYNAMIC = Refusal("the size of its result depends on the data", "use operators whose shapes are fixed")
_NO_STEP = Refusal("is not an operator that a client step may contain", "write it with basic operators")


def _all(names: str, refusal: Refusal) -> dict[str, Refusal]:
    return dict.fromkeys(names.split(), refusal)


REFUSED = {
    **_all("If Loop Scan", _LOOPS),
    **_all("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike", _RANDOM),
    **_all(
        "StringNormalizer StringConcat StringSplit RegexFullMatch TfIdfVectorizer LabelEncoder ImageDecoder SequenceAt SequenceConstruct "
        "SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence ConcatFromSequence Optional "
        "OptionalGetElement OptionalHasElement",
        _STRINGS,
    ),
    **_all("QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul MatMulInteger ConvInteger", _QUANTISED),
    **_all("NonZero Unique NonMaxSuppression Compress", _DYNAMIC),
}


def refusal(op: str) -> Refusal | None:
    """Why an operator is refused whatever its operands; None when it is known."""
    if op in REFUSED:
        return REFUSED[op]
    if op in STEP_OPS or op in WEIGHTED or op in MOVEMENT or op in REWRITTEN:
        return None
    return _NO_STEP
