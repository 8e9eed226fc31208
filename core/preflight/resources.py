"""Will a run fit this machine, and how long may it take? Memory and disk by arithmetic, time by a stated guess.

The arithmetic is shown in each row, so that a person can tell which part to make smaller.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core.contracts.events import CheckRow
from core.contracts.optimizers import find_search
from core.contracts.run_spec import RunSpec
from core.models.memory import (
    ROOMY,
    MemoryPlan,
    Mode,
    Side,
    available_memory_bytes,
    choose_plan,
    free_room,
    gigabytes,
    open_plans,
)
from core.models.metadata import ModelMetadata
from core.search.genome import Genome
from core.search.registry import make_optimizer
from core.search.search_plan import SearchPlan
from core.settings import Settings

RUN = "run"
_BF16_BYTES = 2
_KEPT: dict[Mode, str] = {
    "resident": "weights kept in float32 beside the live model",
    "compact": "weights kept in their own format beside the live model",
    "streamed": "weights kept in float32 in host memory, sent to the GPU tensor by tensor",
    "compact on the host": "weights kept in their own format in host memory, sent to the GPU tensor by tensor",
}
# Assumptions of the time estimate, all of them said in its row.
_CPU_FLOPS_PER_CORE = 100e9
_GPU_FLOPS = 60e12
_TOKENS_PER_PAIR = 40
_MOST_TOKENS_PER_REPLY = 64
_WRITING_SLOWDOWN = 3
_TOKENS_PER_VERDICT = 700
_TEST_PROMPTS = 200


class GuardLoad(NamedTuple):
    """A guard that is a model, and how many questions it answers about one reply."""

    metadata: ModelMetadata
    questions: int


class PoolMetadata(NamedTuple):
    """Metadata of the models that could be read.

    Attributes:
        merged: base, experts and ancestor: in memory together while searching.
        others: generator and guard: in memory beside the pool while data is made.
        guards: those of the guards that are models, with how often they are asked about one reply.
    """

    base: ModelMetadata
    merged: Sequence[ModelMetadata]
    others: Sequence[ModelMetadata]
    guards: Sequence[GuardLoad] = ()


def check_resources(
    spec: RunSpec, pool: PoolMetadata, settings: Settings, planned: Callable[[MemoryPlan], None]
) -> Iterator[CheckRow]:
    """Rows for memory, disk and time of the whole run; `planned` is given the memory plan."""
    plans = open_plans(spec, pool.merged, pool.others, free_room(available_memory_bytes()))
    plan = choose_plan(plans)
    planned(plan)
    yield from _memory_rows(spec, plan, plans, pool)
    yield from _disk_rows(spec, pool, settings)
    yield _time_row(spec, pool.base, pool.guards)


def _memory_rows(
    spec: RunSpec, plan: MemoryPlan, plans: Sequence[MemoryPlan], pool: PoolMetadata
) -> Iterator[CheckRow]:
    """What the run takes at its peak, thing by thing: in one row, or one for the GPU and one for the host."""
    if plan.room.device is not None:
        yield _memory_row("memory on the GPU", plan, "device", plan.room.device, _smaller(spec, plans, pool))
    yield _memory_row("memory", plan, "host", plan.room.host, _smaller(spec, plans, pool))


def _memory_row(check: str, plan: MemoryPlan, side: Side, free: int, smaller: str) -> CheckRow:
    return _fit_row(RUN, check, f"{_KEPT[plan.mode]} ({plan.mode}): ", plan, side, free, smaller)


def single_memory_rows(name: str, plan: MemoryPlan) -> Iterator[CheckRow]:
    """What measuring one model takes at its peak: in one row, or one for the GPU and one for the host."""
    smaller = "Close other programs, measure a smaller model, or use a larger machine."
    if plan.room.device is not None:
        yield _fit_row(name, "memory on the GPU", "", plan, "device", plan.room.device, smaller)
    yield _fit_row(name, "memory", "", plan, "host", plan.room.host, smaller)


def _fit_row(name: str, check: str, kept: str, plan: MemoryPlan, side: Side, free: int, smaller: str) -> CheckRow:
    needed = plan.needed(side)
    parts = [part for part in plan.parts if part.side == side or plan.room.device is None]
    sizes = " + ".join(f"{part.name} {gigabytes(part.size_bytes)}" for part in parts)
    detail = f"{kept}{sizes} = {gigabytes(needed)}; {gigabytes(free)} free"
    if needed > free:
        return CheckRow(model=name, check=check, status="error", detail=detail, hint=smaller)
    if needed > ROOMY * free:
        hint = "It may get tight: close other programs."
        return CheckRow(model=name, check=check, status="warning", detail=detail, hint=hint)
    return CheckRow(model=name, check=check, status="ok", detail=detail)


def _smaller(spec: RunSpec, plans: Sequence[MemoryPlan], pool: PoolMetadata) -> str:
    """What to do where nothing fits."""
    room = plans[0].room
    if spec.pool.memory != "auto":
        free = spec.model_copy(update={"pool": spec.pool.model_copy(update={"memory": "auto"})})
        if fitting := [plan.mode for plan in open_plans(free, pool.merged, pool.others, room) if plan.fits()]:
            return f"Set pool.memory to auto: it fits as '{fitting[0]}'."
    tried = "; ".join(f"{plan.mode} needs {_needed(plan)}" for plan in plans)
    return f"Merge fewer or smaller models, close other programs, or use a larger machine: {tried}."


def _needed(plan: MemoryPlan) -> str:
    if plan.room.device is None:
        return gigabytes(plan.needed("host"))
    return f"{gigabytes(plan.needed('device'))} on the GPU and {gigabytes(plan.needed('host'))} on the host"


def _disk_rows(spec: RunSpec, pool: PoolMetadata, settings: Settings) -> Iterator[CheckRow]:
    """Downloads under `settings.home` and the merged model under `settings.runs`; one row when they share a disk."""
    download = _download_bytes((*pool.merged, *pool.others))
    merges = 1 + len(spec.search.compare) if spec.export.folder else 0
    export = pool.base.parameters * _BF16_BYTES * merges
    home, runs = _existing(settings.home), _existing(settings.runs)
    if home.stat().st_dev == runs.stat().st_dev:
        parts = f"downloads {gigabytes(download)} + {merges} saved merges {gigabytes(export)}"
        yield _disk_row("disk", f"{parts} = {gigabytes(download + export)}", download + export, home)
    else:
        yield _disk_row("disk for downloads", f"downloads {gigabytes(download)}", download, home)
        yield _disk_row("disk for runs", f"{merges} saved merges {gigabytes(export)}", export, runs)


def download_row(models: Sequence[ModelMetadata], settings: Settings) -> CheckRow:
    """Whether what is to be downloaded fits under `settings.home`."""
    download = _download_bytes(models)
    return _disk_row("disk", f"downloads {gigabytes(download)}", download, _existing(settings.home))


def _download_bytes(models: Sequence[ModelMetadata]) -> int:
    return sum({_download_key(model): model.size_bytes for model in models if not model.cached}.values())


def _download_key(model: ModelMetadata) -> str:
    """Models with one key share one download: all of the demo are adapters on the same base."""
    return model.ref.kind if model.ref.kind == "demo" else str(model.ref.base)


def _disk_row(check: str, arithmetic: str, needed: int, folder: Path) -> CheckRow:
    free = shutil.disk_usage(folder).free
    detail = f"{arithmetic}; {gigabytes(free)} free at {folder}"
    if needed > free:
        hint = "Free some space, or set SAFEMERGE_HOME and SAFEMERGE_RUNS to a larger disk."
        return CheckRow(model=RUN, check=check, status="error", detail=detail, hint=hint)
    return CheckRow(model=RUN, check=check, status="ok", detail=detail)


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _time_row(spec: RunSpec, base: ModelMetadata, guards: Sequence[GuardLoad]) -> CheckRow:
    gpu = Path("/dev/nvidia0").exists()
    flops = _GPU_FLOPS if gpu else _CPU_FLOPS_PER_CORE * (os.cpu_count() or 1)
    reading = flops / (2 * base.parameters)
    writing = reading / _WRITING_SLOWDOWN
    searched = [_candidates(name, spec) for name in (spec.search.optimizer, *spec.search.compare)]
    pairs = spec.data.safety.pairs + spec.data.domain.pairs
    search_s = sum(searched) * pairs * _TOKENS_PER_PAIR / reading
    replies = _replies(spec)
    length = min(spec.evaluation.reply_tokens, _MOST_TOKENS_PER_REPLY)
    reply_s = replies * length / writing
    judged = _judged(spec)
    guard_s = sum(judged * g.questions * _TOKENS_PER_VERDICT * 2 * g.metadata.parameters / flops for g in guards)
    detail = (
        f"estimate: about {_duration(search_s + reply_s + guard_s)}: {sum(searched):,} candidates x {pairs} pairs "
        f"x {_TOKENS_PER_PAIR} tokens read ({_duration(search_s)}) + {replies:,} replies x {length} tokens "
        f"written ({_duration(reply_s)}){_judging(guards, judged, guard_s)}, "
        f"assuming {reading:,.0f} tokens/s read and {writing:,.0f} written on "
        f"{'a GPU' if gpu else f'{os.cpu_count()} CPU cores'}"
    )
    return CheckRow(model=RUN, check="time", status="ok", detail=detail)


def _candidates(name: str, spec: RunSpec) -> int:
    """Candidates that a search scores; none for one that weighs the parents, which are scored anyway."""
    found, search = find_search(name), spec.search
    if found is None or found.optimizer is None or found.optimizer.weighs_parents:
        return 0
    if found.takes_steps:
        return search.steps if _genome(spec).searched else 1
    optimizer = found.optimizer.name
    plan = SearchPlan(name, _genome(spec), search.steps, search.alpha, search.safety, search.seed, optimizer=optimizer)
    return make_optimizer(plan).size


def _genome(spec: RunSpec) -> Genome:
    """A genome with as many parameters as the search will have."""
    experts = tuple(expert.model for expert in spec.pool.experts)
    fixed = tuple(sorted(spec.search.parameters.items()))
    return Genome(spec.search.method, spec.pool.base, experts, fixed_parameters=fixed)


def _measured(spec: RunSpec) -> int:
    """Models that are measured: parents, the merge, baselines, and the merge less each of several experts."""
    experts = len(spec.pool.experts)
    left_out = experts if spec.evaluation.leave_one_out and experts > 1 else 0
    parents = 1 + experts if spec.evaluation.parents else 0
    return parents + 1 + len(spec.search.compare) + left_out


def _replies(spec: RunSpec) -> int:
    """Replies that the run has models write: for the training pairs, and to test every parent and merge."""
    parents = 1 + len(spec.pool.experts)
    safety = 0
    for source in spec.data.safety.sources:
        asked = {"generate": 1 + parents, "dataset": 0 if source.columns.answer else parents}
        safety += source.k * asked.get(source.source, 0)
    domain = 2 * spec.data.domain.generated.k if spec.data.domain.generated else 0
    return safety + domain + _tested(spec)


def _judged(spec: RunSpec) -> int:
    """Replies that the guard judges: to unsafe questions and imported refusals, and to the test prompts."""
    members = 1 + len(spec.pool.experts)
    written = sum(source.k * (members if source.source == "generate" else 1) for source in spec.data.safety.sources)
    return written + _tested(spec)


def _tested(spec: RunSpec) -> int:
    """Replies to test prompts, of every model that is measured."""
    files = sum(path is not None for path in (spec.evaluation.prompts, spec.evaluation.benign))
    return _measured(spec) * files * (spec.evaluation.limit or _TEST_PROMPTS)


def _judging(guards: Sequence[GuardLoad], judged: int, seconds: float) -> str:
    """The guards' share of the estimate; nothing for `phrases`, which takes no time to speak of."""
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
