"""`ComparisonSpec`: models that are measured side by side, without merging anything. Evaluate and Audit run one.

It is kept in a run folder as `spec.yaml`, like a `RunSpec`; its key `models` tells the two apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from core.contracts.data_spec import FrozenSpec
from core.contracts.number_formats import NumberFormat
from core.contracts.results import Role
from core.contracts.run_spec import EvaluationSpec, RunSpec, spec_from_dict
from core.contracts.spec_files import parse_mapping, read_spec_text, validated


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
        guard: who judges replies (`core.guards.guard_names`).
        dtype: number format in which the models and guards compute, as `pool.dtype` of a run.
        evaluation: what is measured, as in a run.
    """

    models: Annotated[tuple[ComparedModel, ...], Field(min_length=1)]
    guard: str = "phrases"
    dtype: NumberFormat = "auto"
    evaluation: EvaluationSpec

    @model_validator(mode="after")
    def _each_model_once(self) -> ComparisonSpec:
        names = [compared.model for compared in self.models]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"models names {twice} twice")
        return self

    def to_yaml(self) -> str:
        """The spec as YAML; `load_any_spec` reads it back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


AnySpec = RunSpec | ComparisonSpec
"""What a run folder's `spec.yaml` may hold."""


def any_spec_from_dict(data: dict[str, Any]) -> AnySpec:
    """Validate a mapping as the kind of spec that its keys tell; raises `SpecError`."""
    return validated(ComparisonSpec, data) if "models" in data else spec_from_dict(data)


def load_any_spec(path: Path) -> AnySpec:
    """Read either kind of spec from a YAML file; raises `SpecError` when the file is missing or wrong."""
    return any_spec_from_dict(parse_mapping(read_spec_text(path)))
