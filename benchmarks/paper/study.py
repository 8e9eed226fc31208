"""A study: a YAML file with the pools, methods and values of the paper's tables; it is checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.contracts.data_spec import DataSpec, FrozenSpec
from core.contracts.merge_methods import FastMethod
from core.contracts.run_spec import RunSpec
from core.contracts.spec_files import parse_mapping, read_spec_text, validated
from core.settings import ASSETS

Alpha = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Study(FrozenSpec):
    """The pools and the varied values of a study.

    Attributes:
        title: description of the pool.
        hardware: description of the required hardware.
        hours: description of the time on this hardware; an estimate shows its arithmetic.
        gated: models that need access granted on the Hub.
        two: run of the pool of two models (Table 1 and the ablations); its alpha, K and steps are the study's own
            values. Null leaves these tables out.
        three: run of the pool of three models (Table 2). Null leaves this table out.
        methods: rows of Table 1; the ablations use the first.
        three_methods: rows of Table 2.
        alphas: values of Fig. 3.
        ks: numbers of pairs in each training set, Table 3.
        steps: numbers of EvoMM's candidates, Table 4.
        real: real data for Table 3 (k is the study's own); null leaves that row out.
        gradient: the gradient rows beside EvoMM's: keys of `search` and of `data`, merged into the pool's run.
        ablation_seeds: ablations run with the seeds below this number.
    """

    title: str
    hardware: str
    hours: str
    gated: tuple[str, ...] = ()
    two: RunSpec | None = None
    three: RunSpec | None = None
    methods: Annotated[tuple[FastMethod, ...], Field(min_length=1)] = ("ties", "dare_ties", "slerp")
    three_methods: Annotated[tuple[FastMethod, ...], Field(min_length=1)] = ("ties", "dare_ties")
    alphas: tuple[Alpha, ...] = (0.0, 0.1, 0.3, 0.5, 1.0)
    ks: tuple[Count, ...] = ()
    steps: tuple[Count, ...] = ()
    real: DataSpec | None = None
    gradient: dict[Literal["search", "data"], dict[str, Any]] = Field(default_factory=dict)
    ablation_seeds: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _nothing_twice(self) -> Study:
        for key in ("methods", "three_methods", "alphas", "ks", "steps"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} has a value twice")
        return self

    @model_validator(mode="after")
    def _runs_can_be_varied(self) -> Study:
        for name, spec in (("two", self.two), ("three", self.three)):
            if spec is None:
                continue
            if spec.search.optimizer != "evomm":
                raise ValueError(f"{name}.search.optimizer must be evomm")
            if spec.data.safety.k != spec.data.domain.k:
                raise ValueError(f"{name}.data: safety.k and domain.k differ; the tables need one K")
        if self.two is None and self.three is None:
            raise ValueError("there is no pool: give two, three or both")
        if self.two is not None and len(self.two.pool.experts) != 1:
            raise ValueError("two.pool needs exactly one expert; use three for more experts")
        if self.real is not None and "generate" in (self.real.safety.source, self.real.domain.source):
            raise ValueError("real: no source of real data may be 'generate'")
        return self


def load_study(pool: str) -> Study:
    """Read a study.

    Args:
        pool: `demo`, or a YAML file.

    Raises:
        SpecError: the file is missing or not valid; `problems` has each mistake with its key.
    """
    path = ASSETS / "specs" / "paper_demo.yaml" if pool == "demo" else Path(pool)
    return validated(Study, parse_mapping(read_spec_text(path)))
