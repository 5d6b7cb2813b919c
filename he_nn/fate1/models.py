"""The model artifact as FATE 1.x keeps it: two protobuf messages, XxxMeta and XxxParam, without weights.

FATE's own code looks protobuf classes up in federatedml/protobuf/generated alone, so ours are read here, from name and bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Mapping

from google.protobuf.message import DecodeError

from he_backend.errors import InputError, ParameterError
from he_backend.protocol.schema import message_classes, wire

from ..artifact import ModelArtifact

MODULES = ("HeNNLoad", "HeNNEval", "HeNNInference")


@dataclass(frozen=True)
class ModelMeta:
    """Which model it is. FATE writes `component`, the module's name."""

    component: str = field(default="", metadata=wire(1, "string"))
    model_type: str = field(default="", metadata=wire(2, "string"))
    model_id: str = field(default="", metadata=wire(3, "string"))
    model_name: str = field(default="", metadata=wire(4, "string"))
    preset: str = field(default="", metadata=wire(5, "string"))


@dataclass(frozen=True)
class ModelParam:
    """What is known of it. `test_acc` is left out when the model has no test set; `plan` and `figures` are JSON objects."""

    test_acc: float = field(default=0.0, metadata=wire(1, "double"))
    plan: str = field(default="{}", metadata=wire(2, "string"))
    figures: str = field(default="{}", metadata=wire(3, "string"))


_NAMED = [type(module + part.__name__[len("Model") :], (part,), {}) for module in MODULES for part in (ModelMeta, ModelParam)]
_CLASSES = message_classes("he_nn_fate1", _NAMED)


def export_model(module: str, artifact: ModelArtifact) -> dict[str, Any]:
    """{"HeNNLoadMeta": message, "HeNNLoadParam": message} of a module (HeNNLoad, HeNNEval, HeNNInference)."""
    meta = _CLASSES[module + "Meta"](
        component=module,
        model_type=artifact.model_type,
        model_id=artifact.model_id,
        model_name=artifact.model_name,
        preset=artifact.preset,
    )
    param = _CLASSES[module + "Param"](plan=json.dumps(dict(artifact.plan)), figures=json.dumps(dict(artifact.figures)))
    if artifact.test_acc is not None:
        param.test_acc = artifact.test_acc
    return {module + "Meta": meta, module + "Param": param}


def read_model(models: Mapping[str, Any]) -> ModelArtifact | None:
    """The artifact in a component's input models: {"model": {component: {name: (class name, bytes)}}}; None where there is none.

    Raises ParameterError for several models, InputError for one that is not of a he-nn component.
    """
    given = {name: one for part in ("model", "isometric_model") for name, one in (models.get(part) or {}).items() if one}
    if not given:
        return None
    if len(given) > 1:
        raise ParameterError(f"input.model: {', '.join(given)}; allowed: one he-nn-load, he-nn-eval or he-nn-inference")
    ((name, messages),) = given.items()
    found = {}
    for pb_name, data in messages.values():
        if pb_name not in _CLASSES:
            raise InputError(f"the input model {name} is not one of he-nn-load, he-nn-eval or he-nn-inference; connect one of these")
        try:
            found[pb_name[-4:]] = _CLASSES[pb_name].FromString(data)
        except DecodeError:
            raise InputError(
                f"the input model {name} cannot be read: its job ran with another version of he-nn; run that job again"
            ) from None
    meta, param = found.get("Meta"), found.get("aram")
    if meta is None or param is None:
        raise InputError(f"the input model {name} is incomplete; run its component again")
    test_acc = param.test_acc if param.HasField("test_acc") else None
    plan, figures = json.loads(param.plan), json.loads(param.figures)
    return ModelArtifact(meta.model_id, meta.model_name, meta.model_type, meta.preset, test_acc, plan, figures)
