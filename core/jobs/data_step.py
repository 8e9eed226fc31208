"""How a run gets its training pairs: which models are asked, or which file or dataset is read, as the spec says.

A set may have several sources (`mix`): they come one after the other, each for its own k, and no question twice.

Written questions, and answers to domain questions, are remembered between runs (`core.models.reply_cache`). What the
pool replies to unsafe questions is not: some of it complies, and no harmful answer is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch

from core.contracts.data_spec import SourceSpec, TrainingSetSpec
from core.contracts.events import Progress, SampleSeen
from core.contracts.run_spec import RunSpec
from core.data.domain_catalog import resolve_domain
from core.data.generate_domain import generate_domain
from core.data.generate_safety import SafetyModels, generate_safety
from core.data.import_pairs import interleave_categories, read_pairs
from core.data.opened_source import OpenedSource, open_source
from core.data.question_rounds import TextModel
from core.data.refusals import RefusalSetup, refuse_questions
from core.data.training_pairs import Dataset
from core.errors import RunError
from core.guards.protocol import Guard
from core.jobs.live_pool import LivePool, LoadedModel
from core.models.fingerprint import sha256_of_model
from core.models.loading import load_model, load_tokenizer
from core.models.precision import pick_device
from core.models.references import parse_reference
from core.models.reply_cache import CachedModel, identify, open_cache
from core.runs.replay import Replay
from core.settings import Settings

Events = Iterator[SampleSeen | Progress]


class _Part(NamedTuple):
    """One source of a training set.

    Attributes:
        number: its place among the sources of the set.
        seen: questions that the sources before it brought into the set.
    """

    source: SourceSpec
    number: int
    seen: tuple[str, ...]


@dataclass(frozen=True)
class DataStep:
    """The data step of a run.

    Attributes:
        held_out: prompts of every measurement.
        past: rounds that were made before are taken from it.
    """

    spec: RunSpec
    settings: Settings
    pool: LivePool
    guard: Guard
    held_out: Sequence[str]
    should_stop: Callable[[], bool]
    replay: Replay

    def safety(self) -> Events:
        """D_safety: generated, or of a file or dataset, whose questions the pool refuses where it has no answers."""
        return self._all_sources("safety", self.spec.data.safety, self._safety)

    def domain(self) -> Events:
        """D_expert: the experts' own questions and answers, or pairs of a file or dataset."""
        return self._all_sources("domain", self.spec.data.domain, self._domain)

    def _all_sources(self, dataset: Dataset, wanted: TrainingSetSpec, make: Callable[[_Part], Events]) -> Events:
        """The sources in turn. Rows that the log has come as they are there, whatever a model would say today."""
        known, kept = iter(self.replay.rows(dataset)), list[str]()
        for number, source in enumerate(wanted.sources):
            before = tuple(kept)
            for event in make(_Part(source, number, before)):
                if isinstance(event, SampleSeen):
                    row = next(known, event.model_copy(update={"part": number}))
                    kept += [row.question] * row.kept
                    yield row
                else:
                    yield event.model_copy(update={"done": len(before) + event.done, "total": wanted.pairs})

    def _safety(self, part: _Part) -> Events:
        wanted, seed = part.source, self.spec.search.seed
        if wanted.source != "generate":
            yield from self._imported_safety(part)
            return
        generator = self._generator(self.pool.live.dtype)
        yield from generate_safety(
            SafetyModels(generator, self._refusers(), str(self.spec.pool.generator)),
            self.guard,
            k=wanted.k,
            held_out=self.held_out,
            seed=seed,
            should_stop=self.should_stop,
            max_new_tokens=self.spec.data.reply_tokens,
            replayed=self.replay.rounds("safety", part.number),
            seen=part.seen,
            fallback=self.spec.data.safety.fallback_refusals,
        )

    def _domain(self, part: _Part) -> Events:
        wanted = part.source
        if wanted.source != "generate":
            material = self._open(part, "domain")
            yield from read_pairs(material, "domain", k=wanted.k, held_out=self.held_out, seen=part.seen)
            return
        experts = {
            expert.model: (self._remembering_member(expert.model), resolve_domain(expert.domain))
            for expert in self.spec.pool.experts
        }
        yield from generate_domain(
            experts,
            k=wanted.k,
            held_out=self.held_out,
            seed=self.spec.search.seed,
            should_stop=self.should_stop,
            max_new_tokens=self.spec.data.reply_tokens,
            replayed=self.replay.rounds("domain", part.number),
            seen=part.seen,
        )

    def _imported_safety(self, part: _Part) -> Events:
        k, material = part.source.k, self._open(part, "safety")
        if material.answered:
            yield from read_pairs(material, "safety", k=k, held_out=self.held_out, guard=self.guard, seen=part.seen)
            return
        asking = RefusalSetup(
            self._refusers(),
            self.guard,
            self.spec.data.reply_tokens,
            self.spec.search.seed,
            self.spec.data.safety.fallback_refusals,
        )
        yield from refuse_questions(
            [row.sample for row in interleave_categories(material.rows)],
            asking,
            k=k,
            held_out=self.held_out,
            should_stop=self.should_stop,
            replayed=self.replay.rounds("safety", part.number),
            seen=part.seen,
        )

    def _open(self, part: _Part, dataset: Dataset) -> OpenedSource:
        """Open a source; a dataset must be of the commit that a resumed run began with."""
        source = part.source
        material = open_source(source, dataset, self.settings)
        rows = self.replay.rows(dataset, part.number)
        if rows and source.source == "dataset" and not rows[0].source.startswith(f"{material.name}#"):
            raise RunError(
                f"{material.name} is not what this run began with ({rows[0].source.split('#')[0]}).",
                "The dataset was changed: start a new run, and name a commit as id@revision.",
            )
        return material

    def _refusers(self) -> dict[str, TextModel]:
        """Who is asked unsafe questions: the members themselves, so that a reply that complies is never kept."""
        return {name: self.pool.as_text_model(name) for name in self.pool.members}

    def _remembering_member(self, name: str) -> TextModel:
        member = self.pool.as_text_model(name)

        def identity() -> str:
            self.pool.merge.write_parent(name)
            return identify(self.pool.live, sha256_of_model(self.pool.live))

        return self._remembering(member, self.pool.tokenizer, identity)

    def _generator(self, dtype: torch.dtype) -> TextModel:
        reference = parse_reference(str(self.spec.pool.generator), self.settings)
        model = load_model(reference, self.settings, dtype, pick_device())
        speaker = LoadedModel(model, load_tokenizer(reference, self.settings))
        return self._remembering(speaker, speaker.tokenizer, lambda: identify(model, sha256_of_model(model)))

    def _remembering(self, model: TextModel, tokenizer: object, identity: Callable[[], str]) -> TextModel:
        replies = open_cache(self.settings)
        return model if replies is None else CachedModel(model, tokenizer, cache(identity), replies)
