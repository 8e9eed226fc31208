"""`ComparisonSpec`: models that are measured side by side, without merging anything. Evaluate and Audit run one.

A run folder keeps it as `spec.yaml`, like a `RunSpec`; its key `models` tells the two apart.
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
from core.contracts.validation import Refusal


class ComparedModel(FrozenSpec):
    """A model, and its role beside the others."""

    model: str
    """Hub id, `id@revision`, folder, `base+lora` or `demo/NAME`."""
    role: Role = "model"
    """`merged` and `parent` in an audit; `model` where nothing is known."""


class ComparisonSpec(FrozenSpec):
    """One comparison: every model gets the same prompts and questions."""

    models: Annotated[tuple[ComparedModel, ...], Field(min_length=1)]
    """In the order in which they are shown."""
    guard: str = "phrases"
    """Guard that judges replies, as `pool.guard` of a run."""
    dtype: NumberFormat = "auto"
    """Number format in which models and guards compute, as `pool.dtype` of a run."""
    evaluation: EvaluationSpec
    """What is measured, as in a run."""

    @model_validator(mode="after")
    def _check_models(self) -> ComparisonSpec:
        names = [compared.model for compared in self.models]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise Refusal("model_named_twice", f"models names {twice} twice").error()
        return self

    def to_yaml(self) -> str:
        """The spec as YAML; `load_any_spec` reads it back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


AnySpec = RunSpec | ComparisonSpec
"""What a run folder's `spec.yaml` may hold."""


def any_spec_from_dict(data: dict[str, Any], *, stored: bool = False) -> AnySpec:
    """Validate a mapping as the kind of spec that its keys show; raises `SpecError`.

    Args:
        data: keys and values.
        stored: as of `validated`.
    """
    return validated(ComparisonSpec, data) if "models" in data else spec_from_dict(data, stored=stored)


def load_any_spec(path: Path, *, stored: bool = False) -> AnySpec:
    """Read either kind of spec from a YAML file; raises `SpecError` when the file is missing or wrong."""
    return any_spec_from_dict(parse_mapping(read_spec_text(path)), stored=stored)
