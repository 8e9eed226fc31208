"""`ComparisonSpec`: models that are measured side by side, without merging anything. Evaluate and Audit run one.

It is kept in a run folder as `spec.yaml`, like a `RunSpec`; its key `models` tells the two apart.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from core.data_specs import FrozenSpec
from core.results import Role
from core.specs import EvaluationSpec


class ComparedModel(FrozenSpec):
    """A model and what it is to the others.

    Attributes:
        model: Hub id, `id@revision`, folder, `base+lora`, `demo/NAME`.
        role: `merged` and `parent` in an audit; `model` where nothing is known.
    """

    model: str
    role: Role = "model"


class ComparisonSpec(FrozenSpec):
    """One comparison: every model is put the same prompts and questions.

    Attributes:
        models: in the order in which they are shown.
        guard: who judges replies (`core.guards.naming`).
        evaluation: what is measured, as in a run.
    """

    models: Annotated[tuple[ComparedModel, ...], Field(min_length=1)]
    guard: str = "phrases"
    evaluation: EvaluationSpec

    @model_validator(mode="after")
    def _each_model_once(self) -> ComparisonSpec:
        names = [compared.model for compared in self.models]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"models names {twice} twice")
        return self
