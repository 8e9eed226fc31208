"""`pool` of a `RunSpec`: which models are merged, which model writes questions, and which guard judges replies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from core.contracts.data_spec import FrozenSpec
from core.contracts.number_formats import NumberFormat
from core.contracts.validation import Refusal

Vocabulary = Literal["refuse", "base"]
Memory = Literal["auto", "resident", "streamed", "compact"]


class DomainSpec(FrozenSpec):
    """What an expert knows: a named domain (`core.data.domain_catalog`), or one given in full."""

    name: str = "domain"
    """Short name, shown in the data and the charts."""
    topic: str | None = None
    """Topic that is put into the prompt that asks for questions."""
    suite: str | None = None
    """Accuracy suite or lm-eval task that measures the domain."""
    examples: str | None = None
    """File of in-context example questions (JSONL with `prompt`), never from a test split."""
    template: str | None = None
    """Prompt format that the expert is asked in: `alpaca`, `vicuna`, `llama3`, `chatml`, `llama2`, `mistral`, `zephyr`,
    `tulu`, `gemma` or `plain`, a Jinja file, or a chat template in full. null: its own chat template; if it has none,
    the format that its name shows, else plain lines."""


class ExpertSpec(FrozenSpec):
    """A model that is merged into the base."""

    model: str
    """Hub id, `id@revision`, folder, `base+lora` or `demo/NAME`."""
    domain: DomainSpec = DomainSpec()
    """What the expert knows: a domain's name, or its keys."""

    @field_validator("domain", mode="before")
    @classmethod
    def _domain_of_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class PoolSpec(FrozenSpec):
    """The models. References are Hub ids, `id@revision`, folders, `base+lora` or `demo/NAME`."""

    base: str = "demo/aligned"
    """Model that the experts are merged into."""
    experts: Annotated[tuple[ExpertSpec, ...], Field(min_length=1)]
    """Models whose skills are merged."""
    ancestor: str | None = None
    """Common ancestor outside the pool that task vectors are taken from; null = the base."""
    config: str = "base"
    """Model whose configuration, chat template and generation settings the merge has: `base`, or one of the experts by
    its reference. Each member is measured under its own."""
    generator: str | None = None
    """Uncensored model that writes unsafe questions; null where the safety data comes from a file or dataset."""
    guard: str = "phrases"
    """Guard that judges replies: `phrases`, `reply-type`, a guard model or `FAMILY:MODEL`. Of a list, or of names
    joined by `&`, the first decides."""
    vocabulary: Vocabulary = "refuse"
    """What to do where an expert's vocabulary has more or fewer rows than the base's. `refuse`: stop. `base`: leave out
    rows that the base lacks, and take rows that the expert lacks from the base."""
    memory: Memory = "auto"
    """Where and in which format weights are stored between merges; `auto` takes the fastest way that fits. The merged
    weights are the same with each."""
    dtype: NumberFormat = "auto"
    """Number format in which models and guards compute. `auto` takes the one that suits this machine
    (`core.models.precision`), always the same on one machine; name one to get the same figures on every machine.
    A pool of bfloat16 models is saved in bfloat16 with each."""

    @field_validator("guard", mode="before")
    @classmethod
    def _join_guards(cls, value: Any) -> Any:
        several = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
        return " & ".join(value) if several else value

    @model_validator(mode="after")
    def _check_config(self) -> PoolSpec:
        members = ("base", self.base, *(expert.model for expert in self.experts))
        if self.config not in members:
            raise Refusal(
                "config_outside_pool",
                f"pool.config is '{self.config}', which is not in the pool: write base, or one of "
                f"{', '.join(members[1:])}",
            ).error()
        return self

    def template_of(self, model: str) -> str | None:
        """The prompt format that the spec names for a member; None for the member's own."""
        return next((expert.domain.template for expert in self.experts if expert.model == model), None)

    @property
    def settings_owner(self) -> str:
        """The model whose configuration, chat template and generation settings the merge has."""
        return self.base if self.config == "base" else self.config
