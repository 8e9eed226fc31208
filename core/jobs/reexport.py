"""Merging a logged candidate again from the pool, and saving it as the run saves its own merge.

The log keeps a candidate's recipe, not its weights. The saved weights must be those that were scored: the pool is
loaded in the number format of the log, its members must have the hashes that the run measured, and if the log has a
hash for this recipe, as for the run's own merge, the new weights must have it too. Importance scores, which some
methods need besides the recipe, are computed again from the logged training pairs and must have the logged hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from core.contracts.events import CandidateMeasured, ModelMeasured, Progress, SampleSeen
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec
from core.errors import ModelError, RunError
from core.jobs.data_step import training_pairs
from core.jobs.importance_step import score_importance
from core.jobs.live_pool import LivePool, load_pool
from core.merging.recipes import Recipe
from core.models.export import export_model
from core.models.memory import MemoryPlan, available_memory_bytes, choose_plan, free_memory, gigabytes, open_plans
from core.models.metadata import read_metadata
from core.models.out_of_memory import translate_oom
from core.models.precision import choose_dtype, pick_device
from core.models.references import parse_reference
from core.report.model_card import candidate_card
from core.runs.candidates import ExportRequest
from core.settings import Settings

_WEIGHTS_HINT = "A model was changed since then, or this machine computes different values: start a new run."


def merge_and_save(request: ExportRequest, settings: Settings, on_step: Callable[[str], None]) -> str:
    """Merge a candidate again and save it to `request.target`, as a folder that transformers loads.

    The caller holds the machine's lock (`core.jobs.export_worker.run_export`).

    Args:
        request: the candidate (`core.runs.candidates.find_candidate`).
        settings: of this machine.
        on_step: called with a short description of each step.

    Returns:
        sha256 of the saved weights.

    Raises:
        RunError: a model has changed since the run (code `weights-changed`), importance scores differ from the run's
            (code `importance-changed`), or the disk is full.
        ModelError: a model of the pool is unavailable, or memory is too small for the pool (code `no-memory`).
        MergeError: the recipe cannot be applied.
    """
    pool = _load(request, settings, on_step)
    _check_members(pool, request)
    recipe = Recipe.model_validate(request.candidate.recipe)
    _restore_importance(pool, request, recipe, on_step)
    on_step(f"merging {recipe.label}")
    with translate_oom(f"Merging {recipe.label}"):
        pool.merge.apply(recipe)
    weights = pool.hashes.start(pool.live)()
    known = _same_merge(request, recipe)
    if known is not None:
        _check_same(known, weights.sha256)
    results, same_as = tuple(_measured(request)), known.name if known else None
    card = candidate_card(request.candidate, request.spec, results, same_as, _probed(request))
    on_step(f"saving to {request.target}")
    names, tokens = pool.mergekit_names, pool.tokenizer_source
    hashes = weights.as_scored()
    return export_model(pool.live, pool.tokenizer, recipe, card, request.target, names, tokens, **hashes)


def _load(request: ExportRequest, settings: Settings, on_step: Callable[[str], None]) -> LivePool:
    """Load the pool in the number format in which the run measured."""
    memory = _plan(request.spec, settings)
    dtype = choose_dtype(request.spec.pool.dtype, settings, pick_device(), logged=request.replay.dtype).dtype
    loaded: list[LivePool] = []
    for progress in load_pool(request.spec.pool, settings, loaded.append, dtype, memory):
        if progress.message:
            on_step(progress.message)
    return loaded[0]


def _plan(spec: RunSpec, settings: Settings) -> MemoryPlan:
    """Where the weights are stored. The plan includes the memory for scoring, which a merge alone does not need.

    Raises:
        ModelError: a model cannot be read, or the pool does not fit into memory.
    """
    pool = spec.pool
    names = dict.fromkeys([pool.base, *(expert.model for expert in pool.experts), *filter(None, [pool.ancestor])])
    models = [read_metadata(parse_reference(name, settings), settings) for name in names]
    plan = choose_plan(open_plans(spec, models, (), free_memory(available_memory_bytes())))
    if not plan.fits():
        needed = f"{gigabytes(plan.needed('host'))} of memory"
        needed += f" and {gigabytes(plan.needed('device'))} of the GPU's" if plan.free.device is not None else ""
        raise ModelError(
            f"The pool needs {needed}, which is not free.", "Close other programs and try again.", code="no-memory"
        )
    return plan


def _check_members(pool: LivePool, request: ExportRequest) -> None:
    """Raise `RunError` if a member's weights differ from those that the run measured."""
    for result in _measured(request):
        if result.role == "parent" and result.sha256 and result.name in pool.members:
            pool.merge.write_parent(result.name)
            _check_same(result, pool.hashes.sha256(pool.live))


def _restore_importance(pool: LivePool, request: ExportRequest, recipe: Recipe, on_step: Callable[[str], None]) -> None:
    """Compute the importance scores that the recipe needs, if any, again from the run's training pairs."""
    if recipe.info.importance is None:
        return
    pairs = training_pairs(request.spec, list(request.replay.of(SampleSeen)))
    for event in score_importance(request.spec, pool, pairs, request.replay, lambda: False):
        if isinstance(event, Progress):
            on_step(f"{event.message}: {event.done} of {event.total} pairs")


def _same_merge(request: ExportRequest, recipe: Recipe) -> ModelResult | None:
    """The measured merge with the same recipe, preferably that of the candidate's own search."""
    merges = [result for result in _measured(request) if result.recipe is not None]
    merges.sort(key=lambda result: result.name != request.candidate.search)
    return next((result for result in merges if Recipe.model_validate(result.recipe) == recipe), None)


def _check_same(result: ModelResult, sha256: str) -> None:
    if result.sha256 and result.sha256 != sha256:
        raise RunError(
            f"The weights of {result.name} differ from those that this run measured.",
            _WEIGHTS_HINT,
            code="weights-changed",
        )


def _measured(request: ExportRequest) -> Iterator[ModelResult]:
    return (event.result for event in request.replay.of(ModelMeasured))


def _probed(request: ExportRequest) -> CandidateMeasured | None:
    """What the search measured for the candidate with the live probe."""
    numbered = request.replay.measured_candidates(request.candidate.search)
    return next((event for event in numbered if event.candidate == request.candidate.candidate), None)
