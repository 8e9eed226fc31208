"""Will a run fit this machine, and how long may it take? Memory and disk by arithmetic, time by a stated guess.

The arithmetic is shown in each row, so that a person can tell which part to make smaller.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core.events import CheckRow
from core.models.compatibility import gigabytes
from core.models.metadata import ModelMetadata
from core.search.genome import Genome
from core.search.grid import grid_recipes
from core.settings import Settings
from core.specs import RunSpec

RUN = "run"
_BF16_BYTES, _F32_BYTES = 2, 4
_LIBRARIES_BYTES = 900_000_000
_TIGHT = 0.8
# Assumptions of the time estimate, all of them said in its row.
_CPU_FLOPS_PER_CORE = 100e9
_GPU_FLOPS = 60e12
_TOKENS_PER_PAIR = 40
_MOST_TOKENS_PER_REPLY = 64
_WRITING_SLOWDOWN = 3
_TEST_PROMPTS = 200


class PoolMetadata(NamedTuple):
    """Metadata of the models that could be read.

    Attributes:
        merged: base, experts and ancestor: in memory together while searching.
        others: generator and guard: in memory beside the pool while data is made.
    """

    base: ModelMetadata
    merged: Sequence[ModelMetadata]
    others: Sequence[ModelMetadata]


def check_resources(spec: RunSpec, pool: PoolMetadata, settings: Settings) -> Iterator[CheckRow]:
    """Rows for memory, disk and time of the whole run."""
    yield _memory_row(pool, available_memory_bytes())
    yield from _disk_rows(spec, pool, settings)
    yield _time_row(spec, pool.base)


def available_memory_bytes() -> int:
    """Memory that can be used now: the machine's, or what a container's limit leaves when that is less."""
    import psutil

    machine = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return machine
    return min(machine, int(limit) - used) if limit.isdigit() else machine


def _memory_row(pool: PoolMetadata, available: int) -> CheckRow:
    """Peak of a run: weights in float32, the live model, and whichever model is being read or generates questions."""
    parameters = pool.base.parameters
    resident, live = parameters * _F32_BYTES, parameters * _BF16_BYTES
    reading = max([resident, *(model.parameters * _BF16_BYTES for model in pool.others)])
    needed = len(pool.merged) * resident + live + reading + _LIBRARIES_BYTES
    detail = (
        f"{len(pool.merged)} models x {gigabytes(resident)} in float32 + live model {gigabytes(live)} + one being read "
        f"{gigabytes(reading)} + libraries {gigabytes(_LIBRARIES_BYTES)} = {gigabytes(needed)}"
    )
    detail += f"; {gigabytes(available)} available"
    if needed > available:
        hint = "Close other programs, use a larger machine or fewer or smaller models."
        return CheckRow(model=RUN, check="memory", status="error", detail=detail, hint=hint)
    if needed > _TIGHT * available:
        hint = "It may get tight: close other programs."
        return CheckRow(model=RUN, check="memory", status="warning", detail=detail, hint=hint)
    return CheckRow(model=RUN, check="memory", status="ok", detail=detail)


def _disk_rows(spec: RunSpec, pool: PoolMetadata, settings: Settings) -> Iterator[CheckRow]:
    """Downloads under `settings.home` and the merged model under `settings.runs`; one row when they share a disk."""
    new = {_download_key(model): model.size_bytes for model in (*pool.merged, *pool.others) if not model.cached}
    download = sum(new.values())
    merges = 1 + len(spec.search.compare) if spec.export.folder else 0
    export = pool.base.parameters * _BF16_BYTES * merges
    home, runs = _existing(settings.home), _existing(settings.runs)
    if home.stat().st_dev == runs.stat().st_dev:
        parts = f"downloads {gigabytes(download)} + {merges} saved merges {gigabytes(export)}"
        yield _disk_row("disk", f"{parts} = {gigabytes(download + export)}", download + export, home)
    else:
        yield _disk_row("disk for downloads", f"downloads {gigabytes(download)}", download, home)
        yield _disk_row("disk for runs", f"{merges} saved merges {gigabytes(export)}", export, runs)


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


def _time_row(spec: RunSpec, base: ModelMetadata) -> CheckRow:
    gpu = Path("/dev/nvidia0").exists()
    flops = _GPU_FLOPS if gpu else _CPU_FLOPS_PER_CORE * (os.cpu_count() or 1)
    reading = flops / (2 * base.parameters)
    writing = reading / _WRITING_SLOWDOWN
    searched = [_candidates(name, spec) for name in (spec.search.optimizer, *spec.search.compare)]
    pairs = spec.data.safety.k + spec.data.domain.k
    search_s = sum(searched) * pairs * _TOKENS_PER_PAIR / reading
    replies = _replies(spec)
    length = min(spec.evaluation.reply_tokens, _MOST_TOKENS_PER_REPLY)
    reply_s = replies * length / writing
    detail = (
        f"estimate: about {_duration(search_s + reply_s)}: {sum(searched):,} candidates x {pairs} pairs "
        f"x {_TOKENS_PER_PAIR} tokens read ({_duration(search_s)}) + {replies:,} replies x {length} tokens "
        f"written ({_duration(reply_s)}), assuming {reading:,.0f} tokens/s read and {writing:,.0f} written on "
        f"{'a GPU' if gpu else f'{os.cpu_count()} CPU cores'}"
    )
    return CheckRow(model=RUN, check="time", status="ok", detail=detail)


def _candidates(name: str, spec: RunSpec) -> int:
    """Candidates that a search scores; LM-Cocktail only looks at the parents, which are scored anyway."""
    if name == "grid":
        experts = tuple(expert.model for expert in spec.pool.experts)
        return len(grid_recipes(Genome(spec.search.method, spec.pool.base, experts)))
    return spec.search.steps if name.startswith("evomm") else 0


def _replies(spec: RunSpec) -> int:
    """Replies that the run has models write: for the training pairs, and to test every parent and merge."""
    parents = 1 + len(spec.pool.experts)
    asked = {"generate": 1 + parents, "dataset": 0 if spec.data.safety.columns.answer else parents}
    safety = spec.data.safety.k * asked.get(spec.data.safety.source, 0)
    domain = spec.data.domain.k * 2 if spec.data.domain.source == "generate" else 0
    files = sum(path is not None for path in (spec.evaluation.prompts, spec.evaluation.benign))
    tested = (parents + 1 + len(spec.search.compare)) * files * (spec.evaluation.limit or _TEST_PROMPTS)
    return safety + domain + tested


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
