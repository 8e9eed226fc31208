"""Checks whether a run fits the memory and disk of this machine, and estimates how long it takes.

Each row shows its arithmetic, so that the user sees which part to make smaller. The time is a rough estimate whose
assumptions stand in its row.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core.contracts.events import CheckRow
from core.contracts.merge_methods import METHODS
from core.contracts.optimizers import find_search
from core.contracts.run_spec import RunSpec
from core.models.memory import (
    COMFORTABLE_DEVICE_SHARE,
    COMFORTABLE_SHARE,
    FreeMemory,
    MemoryPlan,
    Mode,
    Side,
    available_memory_bytes,
    choose_plan,
    free_memory,
    gigabytes,
    open_plans,
)
from core.models.metadata import ModelMetadata
from core.preflight.check_rows import RUN, error_row, ok_row, warning_row
from core.search.genome import Genome
from core.search.registry import make_optimizer
from core.search.search_plan import SearchPlan
from core.settings import Settings

_BF16_BYTES = 2
_STORAGE: dict[Mode, str] = {
    "resident": "weights stored in float32 beside the live model",
    "compact": "weights stored in their own format beside the live model",
    "experts on the host": "base stored in its own format beside the live model, experts in host memory, sent to the "
    "GPU tensor by tensor",
    "streamed": "weights stored in float32 in host memory, sent to the GPU tensor by tensor",
    "compact on the host": "weights stored in their own format in host memory, sent to the GPU tensor by tensor",
}
# Assumptions of the time estimate; its row states them.
_CPU_FLOPS_PER_CORE = 100e9
_GPU_FLOPS = 60e12
_TOKENS_PER_PAIR = 40
_MOST_TOKENS_PER_REPLY = 64
_WRITING_SLOWDOWN = 3
_READS_PER_GRADIENT = 3
_TOKENS_PER_VERDICT = 700
_TEST_PROMPTS = 200


class GuardLoad(NamedTuple):
    """A guard that is a model, and how many questions it answers about one reply."""

    metadata: ModelMetadata
    questions: int


class PoolMetadata(NamedTuple):
    """Metadata of the models that could be read.

    Attributes:
        merged: base, experts and ancestor; all in memory during the search.
        others: generator and guards; in memory beside the pool while training data is made.
        guards: the guards that are models, with their numbers of questions per reply.
    """

    base: ModelMetadata
    merged: Sequence[ModelMetadata]
    others: Sequence[ModelMetadata]
    guards: Sequence[GuardLoad] = ()


class ResourceCheck(NamedTuple):
    """The memory plan that a run will use, and the rows for memory, disk and time."""

    plan: MemoryPlan
    rows: list[CheckRow]


def check_resources(spec: RunSpec, pool: PoolMetadata, settings: Settings) -> ResourceCheck:
    """Plan the memory of the whole run, and check memory, disk and time."""
    plans = _plans(spec, pool, free_memory(available_memory_bytes()))
    plan = choose_plan(plans)
    rows = [*_memory_rows(spec, plan, plans, pool), *_disk_rows(spec, pool, settings)]
    return ResourceCheck(plan, [*rows, _time_row(spec, pool.base, pool.guards)])


def _plans(spec: RunSpec, pool: PoolMetadata, free: FreeMemory) -> list[MemoryPlan]:
    guards = [guard.metadata for guard in pool.guards]
    generators = [model for model in pool.others if all(model is not guard for guard in guards)]
    return open_plans(spec, pool.merged, generators, free, guards)


def _memory_rows(
    spec: RunSpec, plan: MemoryPlan, plans: Sequence[MemoryPlan], pool: PoolMetadata
) -> Iterator[CheckRow]:
    """The run's peak memory part by part: one row, or one for the GPU and one for the host."""
    unloaded = ", guards unloaded during the search" * plan.unloads_guards
    prefix, hint = f"{_STORAGE[plan.mode]} ({plan.mode}{unloaded}): ", _memory_hint(spec, plans, pool)
    yield from _peak_rows(RUN, prefix, plan, hint)


def single_memory_rows(model: str, plan: MemoryPlan) -> Iterator[CheckRow]:
    """The peak memory of measuring one model: one row, or one for the GPU and one for the host."""
    hint = "Close other programs, measure a smaller model, or use a larger machine."
    yield from _peak_rows(model, "", plan, hint)


def _peak_rows(model: str, prefix: str, plan: MemoryPlan, hint: str) -> Iterator[CheckRow]:
    if plan.free.device is not None:
        yield _peak_row(model, "memory on the GPU", prefix, plan, "device", plan.free.device, hint)
    yield _peak_row(model, "memory", prefix, plan, "host", plan.free.host, hint)


def _peak_row(model: str, check: str, prefix: str, plan: MemoryPlan, side: Side, free: int, hint: str) -> CheckRow:
    needed = plan.needed(side)
    sizes = " + ".join(f"{part.name} {gigabytes(part.size_bytes)}" for part in plan.at_peak(side))
    detail = f"{prefix}{sizes} = {gigabytes(needed)}; {gigabytes(free)} free"
    if needed > free:
        return error_row(model, check, detail, hint)
    if needed > (COMFORTABLE_DEVICE_SHARE if side == "device" else COMFORTABLE_SHARE) * free:
        return warning_row(model, check, detail, "Memory is almost used up: close other programs.")
    return ok_row(model, check, detail)


def _memory_hint(spec: RunSpec, plans: Sequence[MemoryPlan], pool: PoolMetadata) -> str:
    """What to do when the run does not fit: another `pool.memory` that fits, or the needs of each that was tried."""
    if spec.pool.memory != "auto":
        auto = spec.model_copy(update={"pool": spec.pool.model_copy(update={"memory": "auto"})})
        others = _plans(auto, pool, plans[0].free)
        if fitting := [plan.mode for plan in others if plan.fits()]:
            return f"Set pool.memory to auto: the pool fits as '{fitting[0]}'."
    tried = "; ".join(f"{plan.mode} needs {_needed(plan)}" for plan in plans)
    return f"Merge fewer or smaller models, close other programs, or use a larger machine: {tried}."


def _needed(plan: MemoryPlan) -> str:
    if plan.free.device is None:
        return gigabytes(plan.needed("host"))
    return f"{gigabytes(plan.needed('device'))} on the GPU and {gigabytes(plan.needed('host'))} on the host"


def _disk_rows(spec: RunSpec, pool: PoolMetadata, settings: Settings) -> Iterator[CheckRow]:
    """Downloads under `settings.home` and saved merges under `settings.runs`; one row when both are on one disk."""
    models = (*pool.merged, *pool.others)
    download, parts = _download_bytes(models), f"downloads {gigabytes(_download_bytes(models))}"
    if converted := sum({_download_key(one): one.pickled_bytes for one in models if not one.cached}.values()):
        download += converted
        parts += f" + converted pickles {gigabytes(converted)}"
    merges = 1 + len(spec.search.compare) if spec.export.folder else 0
    export = pool.base.parameters * _BF16_BYTES * merges
    home, runs = _existing(settings.home), _existing(settings.runs)
    if home.stat().st_dev == runs.stat().st_dev:
        parts += f" + {merges} saved merges {gigabytes(export)}"
        yield _disk_row("disk", f"{parts} = {gigabytes(download + export)}", download + export, home)
    else:
        yield _disk_row("disk for downloads", parts, download, home)
        yield _disk_row("disk for runs", f"{merges} saved merges {gigabytes(export)}", export, runs)


def download_row(models: Sequence[ModelMetadata], settings: Settings) -> CheckRow:
    """Whether the downloads of `models` fit on the disk of `settings.home`."""
    download = _download_bytes(models)
    return _disk_row("disk", f"downloads {gigabytes(download)}", download, _existing(settings.home))


def _download_bytes(models: Sequence[ModelMetadata]) -> int:
    return sum({_download_key(model): model.size_bytes for model in models if not model.cached}.values())


def _download_key(model: ModelMetadata) -> str:
    """Models with equal keys share one download: all demo models are adapters on the same base."""
    return model.ref.kind if model.ref.kind == "demo" else str(model.ref.base)


def _disk_row(check: str, arithmetic: str, needed: int, folder: Path) -> CheckRow:
    free = shutil.disk_usage(folder).free
    detail = f"{arithmetic}; {gigabytes(free)} free at {folder}"
    if needed > free:
        hint = "Free some space, or set SAFEMERGE_HOME and SAFEMERGE_RUNS to a larger disk."
        return error_row(RUN, check, detail, hint)
    return ok_row(RUN, check, detail)


def _existing(folder: Path) -> Path:
    """The folder, or its nearest existing parent."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _time_row(spec: RunSpec, base: ModelMetadata, guards: Sequence[GuardLoad]) -> CheckRow:
    gpu = Path("/dev/nvidia0").exists()
    flops = _GPU_FLOPS if gpu else _CPU_FLOPS_PER_CORE * (os.cpu_count() or 1)
    reading = flops / (2 * base.parameters)
    writing = reading / _WRITING_SLOWDOWN
    candidates = sum(_candidate_count(name, spec) for name in (spec.search.optimizer, *spec.search.compare))
    pairs = spec.data.safety.pairs + spec.data.domain.pairs
    search_s = candidates * pairs * _TOKENS_PER_PAIR / reading
    replies, length = _reply_count(spec), min(spec.evaluation.reply_tokens, _MOST_TOKENS_PER_REPLY)
    reply_s = replies * length / writing
    judged = _judged_count(spec)
    guard_s = sum(judged * g.questions * _TOKENS_PER_VERDICT * 2 * g.metadata.parameters / flops for g in guards)
    passes = _importance_passes(spec)
    passes_s = passes * _TOKENS_PER_PAIR * _READS_PER_GRADIENT / reading
    importance = f" + {passes:,} pairs differentiated ({_duration(passes_s)})" if passes else ""
    detail = (
        f"estimate: about {_duration(search_s + reply_s + guard_s + passes_s)}: {candidates:,} candidates x {pairs} "
        f"pairs x {_TOKENS_PER_PAIR} tokens read ({_duration(search_s)}){importance} + {replies:,} replies x {length} "
        f"tokens written ({_duration(reply_s)}){_guard_term(guards, judged, guard_s)}, "
        f"assuming {reading:,.0f} tokens/s read and {writing:,.0f} written on "
        f"{'a GPU' if gpu else f'{os.cpu_count()} CPU cores'}"
    )
    return ok_row(RUN, "time", detail)


def _candidate_count(name: str, spec: RunSpec) -> int:
    """Candidates that a search scores; 0 for one that weighs the parents, which every run scores."""
    info, search = find_search(name), spec.search
    if info is None or info.optimizer is None or info.optimizer.weighs_parents:
        return 0
    if info.takes_steps:
        return search.steps if _genome(spec).searched else 1
    optimizer = info.optimizer.name
    plan = SearchPlan(name, _genome(spec), search.steps, search.alpha, search.safety, search.seed, optimizer=optimizer)
    return make_optimizer(plan).size


def _importance_passes(spec: RunSpec) -> int:
    """Pairs that are differentiated for importance scores, once for each model (`core.jobs.importance_step`)."""
    kind, safety = METHODS[spec.search.method].importance, spec.data.safety.pairs
    if kind is None:
        return 0
    return safety if kind == "fisher" else 2 * (safety + spec.data.domain.pairs)


def _genome(spec: RunSpec) -> Genome:
    """A genome with as many parameters as the search will have."""
    experts = tuple(expert.model for expert in spec.pool.experts)
    fixed = tuple(sorted(spec.search.parameters.items()))
    return Genome(spec.search.method, spec.pool.base, experts, fixed_parameters=fixed)


def _measured_count(spec: RunSpec) -> int:
    """Measured models: parents, the merge, baselines, and with `leave_one_out` the merge without each expert."""
    experts = len(spec.pool.experts)
    left_out = experts if spec.evaluation.leave_one_out and experts > 1 else 0
    parents = 1 + experts if spec.evaluation.parents else 0
    return parents + 1 + len(spec.search.compare) + left_out


def _reply_count(spec: RunSpec) -> int:
    """Replies that models write: for the training pairs, and to the test prompts."""
    parents = 1 + len(spec.pool.experts)
    safety = 0
    for source in spec.data.safety.sources:
        per_pair = {"generate": 1 + parents, "dataset": 0 if source.columns.answer else parents}
        safety += source.k * per_pair.get(source.source, 0)
    domain = 2 * spec.data.domain.generated.k if spec.data.domain.generated else 0
    return safety + domain + _test_reply_count(spec)


def _judged_count(spec: RunSpec) -> int:
    """Replies that the guard judges: to unsafe questions, imported refusals, and to the test prompts."""
    members = 1 + len(spec.pool.experts)
    written = sum(source.k * (members if source.source == "generate" else 1) for source in spec.data.safety.sources)
    return written + _test_reply_count(spec)


def _test_reply_count(spec: RunSpec) -> int:
    """Replies of all measured models to the test prompts."""
    sets = spec.evaluation.prompts, spec.evaluation.benign, spec.evaluation.outside
    files = sum(path is not None for path in sets)
    return _measured_count(spec) * files * (spec.evaluation.limit or _TEST_PROMPTS)


def _guard_term(guards: Sequence[GuardLoad], judged: int, seconds: float) -> str:
    """The guards' term of the estimate; empty for `phrases`, whose time is negligible."""
    if not guards:
        return ""
    questions = sum(guard.questions for guard in guards)
    return f" + {judged:,} replies x {questions} x {_TOKENS_PER_VERDICT} tokens judged ({_duration(seconds)})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
