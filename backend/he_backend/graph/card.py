"""What a network's rows and outputs mean: names of its input values, kind of prediction, labels of its outputs.

A card travels inside the ONNX file, as metadata properties `he_nn.features` (JSON list), `he_nn.task` and `he_nn.classes` (JSON list), or
is given beside it (`he-nn model add --card`). Without one, values come in the order of the input and outputs are numbered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping, Sequence, Union

import numpy as np
import onnx

from he_backend.errors import ModelError
from he_backend.graph.program import Program

TASKS = ("binary", "multi", "regression")
PREFIX = "he_nn."
SLACK = 1e-2  # by which encrypted arithmetic may miss the range of a probability
_MOST_NAMES, _NAME_CHARACTERS = 65536, 200

Label = Union[int, str]


@dataclass(frozen=True)
class Card:
    """features: a name for each input value, in the input's order. task: binary, multi, regression, or '' (told by the output's shape).

    classes: the label that each output stands for; for a binary network with one output (the probability of the second) both labels.
    """

    features: tuple[str, ...] = ()
    task: str = ""
    classes: tuple[Label, ...] = ()

    @staticmethod
    def of(values: Any) -> Card:
        """The card in JSON values; keys of others are passed over. Raises ModelError naming what is wrong."""
        if not isinstance(values, Mapping):
            raise ModelError("the model's card is not a JSON object with features, task and classes")
        features, task, classes = values.get("features") or (), values.get("task") or "", values.get("classes") or ()
        if not _is_list(features) or not all(isinstance(one, str) and 0 < len(one) <= _NAME_CHARACTERS for one in features):
            raise ModelError("the model's card: features must be a list of names, one for each input value")
        if len(set(features)) != len(features):
            raise ModelError("the model's card: features names one column twice")
        if task not in ("", *TASKS):
            raise ModelError(f"the model's card: task is {str(task)[:40]!r}; allowed: {', '.join(TASKS)}")
        if not _is_list(classes) or not all(type(one) in (int, str) for one in classes) or len(set(classes)) != len(classes):
            raise ModelError("the model's card: classes must be a list of different whole numbers or words")
        if task == "regression" and classes:
            raise ModelError("the model's card: a regression has no classes")
        if task == "binary" and len(classes) not in (0, 2):
            raise ModelError(f"the model's card: binary and {len(classes)} classes; two are expected")
        return Card(tuple(features), task, tuple(classes))

    @staticmethod
    def read(model: bytes) -> Card:
        """The card in an ONNX file; an empty one when it has none."""
        found = {}
        for entry in onnx.ModelProto.FromString(model).metadata_props:
            name = entry.key[len(PREFIX) :] if entry.key.startswith(PREFIX) else ""
            if name in ("features", "classes"):
                found[name] = _json_list(name, entry.value)
            elif name == "task":
                found[name] = entry.value
        return Card.of(found)

    def write(self, model: onnx.ModelProto) -> None:
        """Puts the card into a model."""
        for name, value in self.to_dict().items():
            model.metadata_props.add(key=PREFIX + name, value=value if isinstance(value, str) else json.dumps(value))

    def to_dict(self) -> dict[str, Any]:
        """What the card says, as JSON-able values."""
        values = {"features": list(self.features), "task": self.task, "classes": list(self.classes)}
        return {name: value for name, value in values.items() if value}

    def check(self, program: Program) -> None:
        """Raises ModelError when a network has another number of values or outputs than the card names."""
        size = sum(program.size(spec.name) for spec in program.inputs)
        if self.features and len(self.features) != size:
            raise ModelError(f"the model's card names {len(self.features)} features, the model takes {size} values for each row")
        shape = program.outputs[0].shape
        count = int(shape[-1]) if len(shape) else 1
        if self.classes and count != len(self.classes) and not (count == 1 and len(self.classes) == 2):
            raise ModelError(f"the model's card names {len(self.classes)} classes, the model has {count} outputs")
        least, most = {"multi": (2, count), "regression": (1, 1), "binary": (1, 2)}.get(self.task, (1, count))
        if not least <= count <= most:
            raise ModelError(f"the model's card says {self.task}, the model has {count} outputs")

    def task_of(self, outputs: np.ndarray) -> str:
        """The kind of prediction of outputs [rows, ...]: what the card says; else one value is a regression, two are binary."""
        count = 1 if outputs.ndim == 1 else outputs.shape[-1]
        return self.task or ("regression" if count == 1 else "binary" if count == 2 else "multi")

    def labels_of(self, outputs: np.ndarray) -> np.ndarray | None:
        """The predicted label of each row of outputs [rows, ...]; None for a regression. Raises ModelError for what fits no card."""
        if self.task_of(outputs) == "regression":
            return None
        if outputs.ndim == 1 or outputs.shape[-1] == 1:
            index = (chances(outputs) > 0.5).astype(np.int64)
        else:
            index = outputs.argmax(axis=-1)
        if not self.classes:
            return index
        if index.max(initial=0) >= len(self.classes):
            raise ModelError(f"the model's card names {len(self.classes)} classes, the model has more outputs")
        return np.asarray(self.classes)[index]


def chances(outputs: np.ndarray) -> np.ndarray:
    """The probabilities [rows] in a binary network's only output. Raises ModelError when these are none."""
    values = np.asarray(outputs, np.float64).reshape(len(outputs))
    if ((values < -SLACK) | (values > 1 + SLACK)).any():
        raise ModelError("a binary model with one output must give the probability of the second class: end it with Sigmoid")
    return values.clip(0.0, 1.0)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and len(value) <= _MOST_NAMES


def _json_list(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ModelError(f"the model's card: {PREFIX}{name} in the ONNX file is not JSON") from None
