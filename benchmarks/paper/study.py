"""A study: one YAML file that names pools, methods and values of the paper's tables, checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from core.contracts.data_spec import DataSpec, FrozenSpec
from core.contracts.run_spec import Method, RunSpec
from core.errors import SpecError
from core.settings import ASSETS

Alpha = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Study(FrozenSpec):
    """What is compared with what.

    Attributes:
        title: the pool in words.
        hardware: what the study needs, in words.
        hours: how long it takes there, in words, with the arithmetic where it is an estimate.
        gated: models whose access is to be asked for on the Hub.
        two: run of the pool of two models (Table 1 and the ablations); its alpha, K and steps are the study's own. Null
            leaves these tables out.
        three: likewise of the pool of three models (Table 2).
        methods: rows of Table 1; the first is also that of the ablations.
        three_methods: rows of Table 2.
        alphas: values of Fig. 3.
        ks: pairs in each training set, Table 3.
        steps: candidates of EvoMM, Table 4.
        real: real data for Table 3 (k is the study's own); null leaves that row out.
        ablation_seeds: ablations run with seeds below this.
    """

    title: str
    hardware: str
    hours: str
    gated: tuple[str, ...] = ()
    two: RunSpec | None = None
    three: RunSpec | None = None
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("ties", "dare_ties", "slerp")
    three_methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("ties", "dare_ties")
    alphas: tuple[Alpha, ...] = (0.0, 0.1, 0.3, 0.5, 1.0)
    ks: tuple[Count, ...] = ()
    steps: tuple[Count, ...] = ()
    real: DataSpec | None = None
    ablation_seeds: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _nothing_twice(self) -> Study:
        for key in ("methods", "three_methods", "alphas", "ks", "steps"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names a value twice")
        return self

    @model_validator(mode="after")
    def _runs_can_be_varied(self) -> Study:
        for name, spec in (("two", self.two), ("three", self.three)):
            if spec is None:
                continue
            if spec.search.optimizer != "evomm":
                raise ValueError(f"{name}.search.optimizer is '{spec.search.optimizer}': a study is of evomm")
            if spec.data.safety.k != spec.data.domain.k:
                raise ValueError(f"{name}.data: safety.k and domain.k differ, and the tables have one K")
        if self.two is None and self.three is None:
            raise ValueError("there is neither a pool of two models nor one of three: give two, three or both")
        if self.two is not None and len(self.two.pool.experts) != 1:
            raise ValueError("two.pool is of a base and one expert; more experts go into three")
        if self.real is not None and "generate" in (self.real.safety.source, self.real.domain.source):
            raise ValueError("real: a source is 'generate', which is what real data is compared with")
        return self


def load_study(pool: str) -> Study:
    """Read a study.

    Args:
        pool: `demo`, or a YAML file.

    Raises:
        SpecError: the file is missing or wrong; the message lists each place.
    """
    path = ASSETS / "specs" / "paper_demo.yaml" if pool == "demo" else Path(pool)
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"The study {path} cannot be read: {error}.", "Give demo, or a YAML file.") from error
    except yaml.YAMLError as error:
        raise SpecError(f"The study {path} is not valid YAML: {error}", "Fix the line named above.") from error
    if not isinstance(data, dict):
        raise SpecError(f"The study {path} is not a mapping.", "Start from assets/specs/paper_demo.yaml.")
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'study'}: {item['msg']}" for item in error.errors())
        raise SpecError(f"The study {path} is not valid: {problems}.", "Correct the keys named.") from error
