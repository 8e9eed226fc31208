"""`data` of a `RunSpec`: where the training pairs come from, and which columns of a file or dataset hold them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from core.contracts.validation import Refusal

Source = Literal["generate", "dataset", "file"]

_TEST_SPLIT = re.compile(r"(?<![a-z])test", re.IGNORECASE)
"""Names of splits to measure on: `test`, `30k_test`, `test_1`; not `latest`."""


class FrozenSpec(BaseModel):
    """A part of a spec: it is immutable and refuses unknown keys. The text below each field describes its key."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Without this check, `stop_when_flat: true` would be read as 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise Refusal("boolean_given", f"the value must not be {str(value).lower()}").error()
        return value


class ColumnsSpec(FrozenSpec):
    """Which columns of a file or dataset hold what; null = the preset's, or the usual names."""

    question: str | None = None
    """Column of the questions; `a.b` is the field b inside column a."""
    answer: str | None = None
    """Column of the answers: text, or with `choices` the right one (position from 0, letter or label). Without it, the
    pool's models write the refusals to a dataset's safety questions."""
    category: str | None = None
    """Column of the categories: text, or a mapping from category to true or false."""
    choices: tuple[str, ...] = ()
    """One column with a list of choices, or one column for each choice."""
    where: dict[str, bool | int | str] = {}
    """Columns and the value each must have; other rows are skipped."""

    @field_validator("choices", mode="before")
    @classmethod
    def _one_column(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class SourceSpec(FrozenSpec):
    """Where k training pairs come from."""

    source: Source = "generate"
    """`generate`: the pool's models write them. `dataset`: a dataset on the Hub. `file`: a local file."""
    path: str | None = None
    """The file (JSONL, CSV or Parquet); or the dataset: a preset's name, a Hub id or `id@revision`."""
    k: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Number of pairs to collect."""
    config: str | None = None
    """Configuration (subset) of a dataset that has several; null = the preset's, or the only one."""
    split: str | None = None
    """Split of a dataset, never a test split; null = the preset's."""
    columns: ColumnsSpec = ColumnsSpec()
    """Which columns hold what."""

    @model_validator(mode="after")
    def _check_path(self) -> SourceSpec:
        if self.source != "generate" and not self.path:
            what = "path" if self.source == "file" else "path: a preset, a Hub id or id@revision"
            raise Refusal("path_missing", f"source '{self.source}' needs a {what}").error()
        return self

    @field_validator("split")
    @classmethod
    def _check_split(cls, value: str | None) -> str | None:
        if value is not None and _TEST_SPLIT.search(value):
            message = f"'{value}' is a test split, which is for measuring: name a train or validation split"
            raise Refusal("test_split", message).error()
        return value


class TrainingSetSpec(SourceSpec):
    """A training set: its first source, and further sources that are mixed in."""

    mix: tuple[SourceSpec, ...] = ()
    """Further sources, each with its own k. The set holds the pairs of all sources, in this order."""

    @property
    def sources(self) -> tuple[SourceSpec, ...]:
        """All sources, the section's own first."""
        return (self, *self.mix)

    @property
    def pairs(self) -> int:
        """Number of pairs to collect from all sources together."""
        return sum(source.k for source in self.sources)

    @property
    def generated(self) -> SourceSpec | None:
        """The source whose pairs the pool's models write, if there is one."""
        return next((source for source in self.sources if source.source == "generate"), None)

    @model_validator(mode="after")
    def _check_mix(self) -> TrainingSetSpec:
        if [source.source for source in self.sources].count("generate") > 1:
            message = "two sources are 'generate', which would write the same pairs: give one of them the k of both"
            raise Refusal("generated_twice", message).error()
        return self


class SafetySourceSpec(TrainingSetSpec):
    """Where the safety pairs come from."""

    fallback_refusals: bool = False
    """A question that no model of the pool refuses gets a refusal from a fixed list, and is marked so; false drops the
    question."""


class BenignSpec(FrozenSpec):
    """Where harmless look-alikes come from; the pool's most aligned member answers them."""

    source: Literal["generate", "file"] = "generate"
    """`generate`: `pool.generator` writes the questions. `file`: a local file of questions."""
    path: str | None = None
    """The file (JSONL, CSV or Parquet)."""
    k: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Number of pairs to collect."""

    @model_validator(mode="after")
    def _check_path(self) -> BenignSpec:
        if (self.source == "file") != bool(self.path):
            raise Refusal("path_missing", "source 'file' needs a path, and 'generate' has none").error()
        return self

    @property
    def file(self) -> SourceSpec | None:
        """The file as a source; None where the generator writes the questions."""
        return SourceSpec(source="file", path=self.path, k=self.k) if self.source == "file" else None


class DataSpec(FrozenSpec):
    """The training sets."""

    safety: SafetySourceSpec = SafetySourceSpec()
    """Unsafe questions with refusals."""
    domain: TrainingSetSpec = TrainingSetSpec()
    """Questions of the experts' domains with answers."""
    benign: BenignSpec | None = None
    """Harmless questions that look unsafe, with helpful answers: they keep a search from refusing everything. null = 64
    written by `pool.generator` for gradient search, none for other optimizers; `search.beta: 0` leaves them out."""
    reply_tokens: Annotated[int, Field(ge=8, le=4096)] = 512
    """Most tokens of a generated refusal or answer; the default is the paper's."""
