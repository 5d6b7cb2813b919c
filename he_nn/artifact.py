"""The job's model, from he-nn-load to he-nn-eval to he-nn-inference: which one, under which parameters, and its plan. No weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Mapping

from he_backend.errors import InputError, ParameterError

LATEST = "latest"


@dataclass(frozen=True)
class ModelArtifact:
    """A bound model. `plan` is the summary of its rounds; `figures` are those of the last component that used it."""

    model_id: str
    model_name: str
    model_type: str
    preset: str
    test_acc: float | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The artifact as JSON-able values."""
        return dataclasses.asdict(self)

    @staticmethod
    def of(values: Any) -> ModelArtifact:
        """The artifact in such values. Raises InputError when they are not those of a he-nn component."""
        names = [one.name for one in dataclasses.fields(ModelArtifact)]
        if not isinstance(values, Mapping) or not {"model_id", "model_name", "model_type", "preset"} <= set(values):
            raise InputError("the input model is not one of he-nn-load, he-nn-eval or he-nn-inference; connect one of these")
        return ModelArtifact(**{name: values[name] for name in names if name in values})


def wanted_model(model_id: str, model_type: str, artifact: ModelArtifact | None) -> tuple[str, str]:
    """(id or name, type) of the model that a component is about: the one of its input model, or else the one that its parameters name.

    Raises ParameterError when they name different models.
    """
    if artifact is None:
        return model_id or LATEST, model_type
    if model_id not in ("", LATEST, artifact.model_id, artifact.model_name):
        raise ParameterError(
            f"model_id: {model_id!r}, and the input model is {artifact.model_name} ({artifact.model_id}); leave model_id 'latest' to use it"
        )
    return artifact.model_id, artifact.model_type
