"""A logged candidate as a model: its recipe merged again from the pool, and saved as the run saves its own merge.

A candidate is kept as a recipe, not as weights. What is saved is what was scored: the pool is loaded in the number
format of the log, its members must have the hashes that the run found, and where the log has a hash of this very
recipe, as of the run's own merge, the rebuilt weights must have it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from core.contracts.events import CandidateMeasured, ModelMeasured
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec
from core.errors import ModelError, RunError
from core.jobs.live_pool import LivePool, load_pool
from core.merging.recipes import Recipe
from core.models.export import export_model
from core.models.fingerprint import sha256_of_model
from core.models.memory import MemoryPlan, available_memory_bytes, choose_plan, free_memory, gigabytes, open_plans
from core.models.metadata import read_metadata
from core.models.out_of_memory import translate_oom
from core.models.precision import choose_dtype, pick_device
from core.models.references import parse_reference
from core.report.model_card import candidate_card
from core.runs.candidates import ExportRequest
from core.runs.process import acquire_lock
from core.settings import Settings

_OTHERWISE = "A model was changed since, or this machine computes otherwise: start a new run."


def save_candidate(wanted: ExportRequest, settings: Settings, tell: Callable[[str], None]) -> str:
    """Merge a candidate again and save it to `wanted.target`, as a folder that transformers loads.

    It takes the machine as a run does: none may be at work.

    Args:
        wanted: the candidate (`core.runs.candidates.find_candidate`).
        settings: of this machine.
        tell: is given each step in words.

    Returns:
        sha256 of the saved weights.

    Raises:
        RunError: a run is at work, a model is not what it was, or the disk is full.
        ModelError: a model of the pool cannot be had, or memory has no room for the pool.
        MergeError: the recipe cannot be applied.
    """
    with acquire_lock(settings.runs, wanted.target):
        pool = _load(wanted, settings, tell)
        _check_members(pool, wanted)
        recipe = Recipe.model_validate(wanted.candidate.recipe)
        tell(f"merging {recipe.label}")
        with translate_oom(f"Merging {recipe.label}"):
            pool.merge.apply(recipe)
        known = _same_merge(wanted, recipe)
        if known is not None:
            _check_same(known, sha256_of_model(pool.live))
        results, same_as = tuple(_measured(wanted)), known.name if known else None
        card = candidate_card(wanted.candidate, wanted.spec, results, same_as, _probed(wanted))
        tell(f"saving to {wanted.target}")
        names, tokens = pool.mergekit_names, pool.tokenizer_source
        return export_model(pool.live, pool.tokenizer, recipe, card, wanted.target, names, tokens)


def _load(wanted: ExportRequest, settings: Settings, tell: Callable[[str], None]) -> LivePool:
    """The pool in the number format that the run's figures come from."""
    memory = _plan(wanted.spec, settings)
    dtype = choose_dtype(wanted.spec.pool.dtype, settings, pick_device(), logged=wanted.replay.dtype).dtype
    loaded: list[LivePool] = []
    for progress in load_pool(wanted.spec.pool, settings, loaded.append, dtype, memory):
        if progress.message:
            tell(progress.message)
    return loaded[0]


def _plan(spec: RunSpec, settings: Settings) -> MemoryPlan:
    """How the weights wait; it counts a run's scoring, too, which a merge alone does not need.

    Raises:
        ModelError: a model cannot be read, or no way fits.
    """
    pool = spec.pool
    names = dict.fromkeys([pool.base, *(expert.model for expert in pool.experts), *filter(None, [pool.ancestor])])
    models = [read_metadata(parse_reference(name, settings), settings) for name in names]
    plan = choose_plan(open_plans(spec, models, (), free_memory(available_memory_bytes())))
    if not plan.fits():
        needed = f"{gigabytes(plan.needed('host'))} of memory"
        needed += f" and {gigabytes(plan.needed('device'))} of the GPU's" if plan.free.device is not None else ""
        raise ModelError(f"The pool takes {needed}, which is not free.", "Close other programs and try again.")
    return plan


def _check_members(pool: LivePool, wanted: ExportRequest) -> None:
    """Raises RunError where a member has other weights than the run measured."""
    for result in _measured(wanted):
        if result.role == "parent" and result.sha256 and result.name in pool.members:
            pool.merge.write_parent(result.name)
            _check_same(result, sha256_of_model(pool.live))


def _same_merge(wanted: ExportRequest, recipe: Recipe) -> ModelResult | None:
    """The measured merge that has the very same recipe; the search's own, where another search chose it as well."""
    merges = [result for result in _measured(wanted) if result.recipe is not None]
    merges.sort(key=lambda result: result.name != wanted.candidate.search)
    return next((result for result in merges if Recipe.model_validate(result.recipe) == recipe), None)


def _check_same(result: ModelResult, sha256: str) -> None:
    if result.sha256 and result.sha256 != sha256:
        raise RunError(f"{result.name} has other weights than when this run measured it.", _OTHERWISE)


def _measured(wanted: ExportRequest) -> Iterator[ModelResult]:
    return (event.result for event in wanted.replay.of(ModelMeasured))


def _probed(wanted: ExportRequest) -> CandidateMeasured | None:
    """What the search measured of it on the probe."""
    numbered = wanted.replay.measured_candidates(wanted.candidate.search)
    return next((event for event in numbered if event.candidate == wanted.candidate.candidate), None)
