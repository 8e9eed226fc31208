"""Importance scores of the pool's weights on the training pairs, for the methods that need them.

A run computes them once, after its training data, and logs their hash. They are not saved: a resumed run, and a command
that saves a candidate, compute them again from the logged pairs and refuse to continue where the hash differs, because
the same recipe would then give other weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from core.contracts.events import ImportanceScored, Progress
from core.contracts.merge_methods import METHODS
from core.contracts.run_spec import RunSpec
from core.data.training_pairs import Sample, TrainingPairs
from core.errors import DataError, RunCancelled, RunError
from core.jobs.live_pool import LivePool
from core.merging.rivals.importance import ElectionRanks, FisherDiagonal, Importance
from core.models.out_of_memory import translate_oom
from core.runs.replay import Replay
from core.search.expert_losses import expert_shares
from core.search.importance import SNIP, SQUARES, Contribution, ImportanceSums

_PAIRS_PER_REPORT = 8


class _Pass(NamedTuple):
    """One pass over training pairs: the weights of `written`, scored for the task of `model`."""

    model: str
    written: str
    samples: Sequence[Sample]


def score_importance(
    spec: RunSpec, pool: LivePool, pairs: TrainingPairs, replay: Replay, should_stop: Callable[[], bool]
) -> Iterator[Progress | ImportanceScored]:
    """Compute the importance scores that the run's method needs, if any, and give them to the pool.

    Args:
        spec: of the run.
        pool: the loaded pool.
        pairs: the training pairs.
        replay: the log of the run; its hash must be that of the new scores.
        should_stop: checked before each pair.

    Yields:
        Progress, then the event that the log has, or the new one.

    Raises:
        DataError: an expert has no domain pairs (code `expert-without-pairs`).
        MergeError: a score is not finite (code `importance-not-finite`).
        RunError: the scores differ from those that the run merged with (code `importance-changed`).
        RunCancelled: `should_stop` returned True.
    """
    if METHODS[spec.search.method].importance is None:
        return
    started, plan = time.monotonic(), _plan(spec, pool, pairs)
    importance, total, done = plan.importance, sum(len(one.samples) for one in plan.passes), 0
    sums = ImportanceSums(plan.contribution, _place(pool))
    for one in plan.passes:
        names = pool.merge.changed_by(one.model) if one.model in pool.merge.experts else pool.merge.changing
        pool.merge.write_parent(one.written)
        own = pool.member(one.written)
        for count in sums.add(own.model, own.tokenizer, one.samples, names):
            if should_stop():
                raise RunCancelled
            if count % _PAIRS_PER_REPORT == 0:
                yield _progress(done + count, total, one.written)
        with translate_oom("The order of the importance scores"):
            for key in list(sums.sums):
                importance.note(one.model, key, sums.sums.pop(key).div_(len(one.samples)))
        done += len(one.samples)
    yield _progress(total, total, "")
    pool.merge.facts.importance = importance
    event = ImportanceScored(
        method=spec.search.method, sha256=importance.sha256(), pairs=total, seconds=time.monotonic() - started
    )
    yield _as_logged(event, replay)


class _Plan(NamedTuple):
    """What is computed: where the scores go, what a pair adds to them, and the passes over the pairs."""

    importance: Importance
    contribution: Contribution
    passes: list[_Pass]


def _plan(spec: RunSpec, pool: LivePool, pairs: TrainingPairs) -> _Plan:
    storage = pool.merge.storage
    if METHODS[spec.search.method].importance == "fisher":
        return _Plan(FisherDiagonal(storage), SQUARES, [_Pass(spec.pool.base, spec.pool.base, pairs.safety)])
    return _Plan(ElectionRanks(storage), SNIP, _election_passes(spec, pool, pairs))


def _election_passes(spec: RunSpec, pool: LivePool, pairs: TrainingPairs) -> list[_Pass]:
    """LED-Merging: each member and the ancestor, on the member's own pairs (safety pairs for the aligned model)."""
    owners = expert_shares(pairs.domain, spec.pool.experts, None).owners
    tasks: dict[str, Sequence[Sample]] = {spec.pool.base: pairs.safety}
    for expert in spec.pool.experts:
        own = [pair for pair, owner in zip(pairs.domain, owners, strict=True) if owner in (expert.model, "")]
        if not own:
            raise DataError(
                f"{expert.model} has no domain pair, and {METHODS[spec.search.method].title} scores its weights on its "
                "own pairs.",
                "Give rows of the domain file answered_by (the expert's reference) or category (its domain's name).",
                code="expert-without-pairs",
            )
        tasks[expert.model] = own
    return [_Pass(model, written, own) for model, own in tasks.items() for written in (pool.anchor, model)]


def _place(pool: LivePool) -> torch.device:
    """Where sums are held: on the host where the task vectors are, else beside the live model."""
    return torch.device("cpu") if pool.merge.storage.on_host else pool.merge.storage.device


def _progress(done: int, total: int, model: str) -> Progress:
    message = f"importance scores of {model}" if model else "importance scores"
    return Progress(phase="data", done=done, total=total, message=message)


def _as_logged(event: ImportanceScored, replay: Replay) -> ImportanceScored:
    """The log's event, which must have the same hash; the new one where the log has none."""
    known = next(replay.of(ImportanceScored), None)
    if known is not None and known.sha256 != event.sha256:
        raise RunError(
            "The importance scores of the weights, computed again from this run's training pairs, differ from those "
            "that its candidates were merged with.",
            "A model was changed, or this machine or number of threads rounds differently: continue where the run was "
            "started, or start a new run with the pairs in its data folder.",
            code="importance-changed",
        )
    return known or event
