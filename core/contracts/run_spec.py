"""`RunSpec`: everything that a run does, as frozen data that a YAML file, the page's form and tests share.

Keys are a contract with users' scripts. A spec with unknown keys or values out of range is refused before anything
expensive starts. The sections live in modules of their own and are importable from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import model_validator

from core.contracts.data_spec import BenignSpec, DataSpec, FrozenSpec
from core.contracts.evaluation_spec import EvaluationSpec, ExportSpec
from core.contracts.merge_methods import METHODS, takes_base
from core.contracts.method_checks import refuse_parameters, refuse_pool
from core.contracts.optimizers import follows_gradients, method_of
from core.contracts.pool_spec import DomainSpec, ExpertSpec, Memory, PoolSpec, Vocabulary
from core.contracts.search_spec import GenomeSpec, SearchSpec
from core.contracts.spec_files import parse_mapping, read_spec_text, validated
from core.contracts.validation import Refusal

__all__ = [
    "DataSpec",
    "DomainSpec",
    "EvaluationSpec",
    "ExpertSpec",
    "ExportSpec",
    "GenomeSpec",
    "Memory",
    "PoolSpec",
    "RunSpec",
    "SearchSpec",
    "Vocabulary",
    "load_spec",
    "parse_spec",
    "spec_from_dict",
]


LEAST_PAIRS = 5
"""Fewest pairs of a set, for each expert, of which a gradient search can hold a fifth out."""


class RunSpec(FrozenSpec):
    """One run, from pool to export."""

    pool: PoolSpec
    """The models."""
    data: DataSpec = DataSpec()
    """The training pairs."""
    search: SearchSpec = SearchSpec()
    """How the merge weights are chosen."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """What is measured on held-out prompts and questions."""
    export: ExportSpec = ExportSpec()
    """What is saved."""

    @model_validator(mode="after")
    def _check_generator(self) -> RunSpec:
        if self.data.safety.generated and self.pool.generator is None:
            raise Refusal(
                "generator_missing",
                "data.safety.source is 'generate' but pool.generator is null: name an uncensored generator "
                "(demo/question-writer for the demo pool) or give data.safety a file or a dataset",
            ).error()
        return self

    @property
    def benign(self) -> BenignSpec | None:
        """Where harmless look-alikes come from: as given, or by default for a gradient search with a generator."""
        if self.search.beta == 0 or not self.search.safety:
            return None
        by_default = follows_gradients(self.search.optimizer) and self.pool.generator is not None
        return self.data.benign or (BenignSpec() if by_default else None)

    @model_validator(mode="after")
    def _check_benign(self) -> RunSpec:
        benign = self.data.benign
        if benign is not None and benign.source == "generate" and self.pool.generator is None:
            message = "data.benign.source is 'generate' but pool.generator is null: name a generator, or give it a file"
            raise Refusal("generator_missing", message).error()
        return self

    @model_validator(mode="after")
    def _check_held_out(self) -> RunSpec:
        searches = (self.search.optimizer, *self.search.compare)
        sizes = {"safety": self.data.safety.pairs, "domain": self.data.domain.pairs}
        sizes["domain"] //= len(self.pool.experts)
        few = next((name for name, pairs in sizes.items() if pairs < LEAST_PAIRS), None)
        if few and any(map(follows_gradients, searches)):
            raise Refusal(
                "too_few_pairs",
                f"data.{few} collects {sizes[few]} pairs for each expert, and gradient search holds some of them out: "
                f"collect {LEAST_PAIRS} or more for each, or choose another optimizer",
            ).error()
        return self

    @model_validator(mode="after")
    def _check_interpolation(self) -> RunSpec:
        method, pool = self.search.method, self.pool
        if not METHODS[method].interpolates:
            return self
        if len(pool.experts) != 1:
            raise Refusal(
                "too_many_models",
                f"search.method is '{method}', which merges exactly two models, but the pool has "
                f"{1 + len(pool.experts)}: keep one expert, or choose another method, such as ties",
            ).error()
        if pool.ancestor not in (None, pool.base):
            raise Refusal(
                "method_without_task_vectors",
                f"search.method is '{method}', which interpolates from the base to the expert and takes no task "
                "vectors, but pool.ancestor is set: make it null, or choose another method, such as ties",
            ).error()
        return self

    @model_validator(mode="after")
    def _check_method(self) -> RunSpec:
        pool, search, info = self.pool, self.search, METHODS[self.search.method]
        members = {pool.base, *(expert.model for expert in pool.experts)}
        anchor = pool.ancestor or pool.base
        experts = len(members - {anchor})
        if not info.fast and (refusal := refuse_pool(search.method, experts, outside_ancestor=anchor not in members)):
            raise refusal.error("search.method is ")
        if refusal := refuse_parameters(search.method, search.parameters, experts):
            raise refusal.error("search.parameters: ")
        if search.genome.normalize and experts == 1 and not info.merges_base:
            raise Refusal(
                "normalize_one_expert",
                "search.genome.normalize divides the weights by their sum, which makes a single expert's weight 1 "
                "whatever it was: leave normalize out, or add an expert",
            ).error()
        return self

    @model_validator(mode="after")
    def _check_leave_one_out(self) -> RunSpec:
        experts = len(self.pool.experts)
        method = method_of(self.search.optimizer, self.search.method)
        if not self.evaluation.leave_one_out or experts == 1 or METHODS[method].fast:
            return self
        fewer = refuse_pool(method, experts - 1, outside_ancestor=False)
        if fewer or takes_base(method, experts) != takes_base(method, experts - 1):
            raise Refusal(
                "leave_one_out_unsupported",
                f"evaluation.leave_one_out: '{method}' cannot merge these models less one in the same way: set it to "
                "false, or choose another method, such as ties",
            ).error()
        return self

    @model_validator(mode="after")
    def _check_expert_weights(self) -> RunSpec:
        weights = self.search.expert_weights
        if weights is None:
            return self
        named = [{expert.model, expert.domain.name} & weights.keys() for expert in self.pool.experts]
        if unknown := sorted(weights.keys() - set().union(*named)):
            message = f"search.expert_weights names {unknown[0]!r}, which is no expert and no expert's domain"
            raise Refusal("unknown_expert", message).error()
        if any(len(names) > 1 for names in named):
            message = "search.expert_weights names an expert both by its reference and by its domain"
            raise Refusal("expert_named_twice", message).error()
        if not any(weights[name] > 0 for names in named for name in names) and all(named):
            message = "search.expert_weights are all 0: at least one expert must count"
            raise Refusal("no_expert_counts", message).error()
        return self

    def to_yaml(self) -> str:
        """The spec as YAML; `parse_spec` reads it back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_spec(text: str) -> RunSpec:
    """Read a `RunSpec` from YAML text.

    Raises:
        SpecError: malformed YAML, unknown keys or values out of range; `problems` lists each place.
    """
    return spec_from_dict(parse_mapping(text))


def spec_from_dict(data: dict[str, Any], *, stored: bool = False) -> RunSpec:
    """Validate a mapping (a form's values, parsed YAML) as a `RunSpec`.

    Args:
        data: keys and values.
        stored: as of `validated`.

    Raises:
        SpecError: unknown keys or values out of range; `problems` lists each place.
    """
    return validated(RunSpec, data, stored=stored)


def load_spec(path: Path) -> RunSpec:
    """Read a `RunSpec` from a YAML file; raises `SpecError` when the file is missing or wrong."""
    return parse_spec(read_spec_text(path))
