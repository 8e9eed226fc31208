"""The data step of a run: training pairs from models, files or datasets, as the spec says.

A set may have several sources (`mix`). They are used one after the other, each for its own k, and no question twice.

Generated questions, and answers to domain questions, are cached between runs (`core.models.reply_cache`). The pool's
replies to unsafe questions are not: some of them comply, and no harmful answer is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import NamedTuple

import torch

from core.contracts.data_spec import BenignSpec, SourceSpec, TrainingSetSpec
from core.contracts.events import DataReady, Progress, SampleSeen
from core.contracts.run_spec import RunSpec
from core.data.benign_pairs import (
    BenignSetup,
    NewDrafts,
    make_benign,
    most_aligned,
    read_questions,
    written_questions,
)
from core.data.domain_catalog import resolve_domain
from core.data.generate_domain import generate_domain
from core.data.generate_safety import SafetyModels, generate_safety
from core.data.import_pairs import interleave_categories, read_pairs
from core.data.opened_source import OpenedSource, open_source
from core.data.question_rounds import TextModel
from core.data.refusals import RefusalSetup, refuse_questions
from core.data.training_pairs import (
    DATASETS,
    Dataset,
    Provenance,
    TrainingPairs,
    provenances,
    samples_from_events,
    was_edited,
)
from core.errors import RunError
from core.guards.protocol import Guard
from core.jobs.live_pool import LivePool, LoadedModel
from core.models.fingerprint import sha256_of_model
from core.models.loading import load_model, load_tokenizer
from core.models.precision import pick_device
from core.models.references import parse_reference
from core.models.reply_cache import CachedModel, identify, open_cache
from core.runs.folder import RunFolder
from core.runs.replay import Replay
from core.settings import Settings

Events = Iterator[SampleSeen | Progress]


class _Part(NamedTuple):
    """One source of a training set.

    Attributes:
        number: its index among the sources of the set.
        seen: questions that earlier sources added to the set.
    """

    source: SourceSpec
    number: int
    seen: tuple[str, ...]


@dataclass(frozen=True)
class DataStep:
    """The data step of a run.

    Attributes:
        held_out: prompts of every measurement, which training pairs must not contain.
        replay: the log of the run; rounds in it are not generated again.
    """

    spec: RunSpec
    settings: Settings
    pool: LivePool
    guard: Guard
    held_out: Sequence[str]
    should_stop: Callable[[], bool]
    replay: Replay

    def safety(self) -> Events:
        """D_safety: generated, or from a file or dataset; the pool's refusals answer questions without an answer."""
        return self._all_sources("safety", self.spec.data.safety, self._safety)

    def domain(self) -> Events:
        """D_expert: the experts' own questions and answers, or pairs from a file or dataset."""
        return self._all_sources("domain", self.spec.data.domain, self._domain)

    def rows(self) -> Events:
        """The rows of the log unchanged, also where a model would answer differently now; then the missing ones."""
        return self.replay.of(SampleSeen) if self.replay.data_complete else self.every_set()

    def every_set(self) -> Events:
        """The rows of all training sets."""
        rows: list[SampleSeen] = []
        for event in chain(self.safety(), self.domain()):
            rows += [event] if isinstance(event, SampleSeen) and event.dataset == "safety" else []
            yield event
        yield from self.benign(rows)

    def benign(self, safety: Sequence[SampleSeen]) -> Events:
        """D_benign: harmless look-alikes, answered by the member that refused most safety questions; may be empty.

        Args:
            safety: the rows of D_safety.
        """
        spec = self.spec.benign
        if spec is None:
            return
        name = most_aligned(self.pool.members, safety)
        known = iter(self.replay.rows("benign"))
        seen = tuple(row.question for row in safety if row.kept)
        setup = BenignSetup(
            self._cached_member(name),
            name,
            self.guard,
            self.spec.data.reply_tokens,
            self.should_stop,
            self.held_out,
            seen,
        )
        for event in make_benign(setup, self._benign_drafts(spec), k=spec.k, replayed=self.replay.rounds("benign")):
            yield next(known, event) if isinstance(event, SampleSeen) else event

    def _benign_drafts(self, spec: BenignSpec) -> NewDrafts:
        if spec.file is not None:
            opened = open_source(spec.file, "benign", self.settings)
            return read_questions(interleave_categories(opened.rows))
        generator = self._generator(self.pool.live.dtype)
        return written_questions(generator, str(self.spec.pool.generator), self.spec.search.seed)

    def _all_sources(self, dataset: Dataset, spec: TrainingSetSpec, rows_of: Callable[[_Part], Events]) -> Events:
        """The rows of all sources in order. Rows of the log stay as they are, also if a model would now differ."""
        known, kept = iter(self.replay.rows(dataset)), list[str]()
        for number, source in enumerate(spec.sources):
            before = tuple(kept)
            for event in rows_of(_Part(source, number, before)):
                if isinstance(event, SampleSeen):
                    row = next(known, event.model_copy(update={"part": number}))
                    kept += [row.question] * row.kept
                    yield row
                else:
                    yield event.model_copy(update={"done": len(before) + event.done, "total": spec.pairs})

    def _safety(self, part: _Part) -> Events:
        source, seed = part.source, self.spec.search.seed
        if source.source != "generate":
            yield from self._imported_safety(part)
            return
        generator = self._generator(self.pool.live.dtype)
        yield from generate_safety(
            SafetyModels(generator, self._refusers(), str(self.spec.pool.generator)),
            self.guard,
            k=source.k,
            held_out=self.held_out,
            seed=seed,
            should_stop=self.should_stop,
            max_new_tokens=self.spec.data.reply_tokens,
            replayed=self.replay.rounds("safety", part.number),
            seen=part.seen,
            fallback=self.spec.data.safety.fallback_refusals,
        )

    def _domain(self, part: _Part) -> Events:
        source = part.source
        if source.source != "generate":
            opened = self._open(part, "domain")
            yield from read_pairs(opened, "domain", k=source.k, held_out=self.held_out, seen=part.seen)
            return
        experts = {
            expert.model: (self._cached_member(expert.model), resolve_domain(expert.domain))
            for expert in self.spec.pool.experts
        }
        yield from generate_domain(
            experts,
            k=source.k,
            held_out=self.held_out,
            seed=self.spec.search.seed,
            should_stop=self.should_stop,
            max_new_tokens=self.spec.data.reply_tokens,
            replayed=self.replay.rounds("domain", part.number),
            seen=part.seen,
        )

    def _imported_safety(self, part: _Part) -> Events:
        k, opened = part.source.k, self._open(part, "safety")
        if opened.answered:
            yield from read_pairs(opened, "safety", k=k, held_out=self.held_out, guard=self.guard, seen=part.seen)
            return
        asking = RefusalSetup(
            self._refusers(),
            self.guard,
            self.spec.data.reply_tokens,
            self.spec.search.seed,
            self.spec.data.safety.fallback_refusals,
        )
        yield from refuse_questions(
            [row.sample for row in interleave_categories(opened.rows)],
            asking,
            k=k,
            held_out=self.held_out,
            should_stop=self.should_stop,
            replayed=self.replay.rounds("safety", part.number),
            seen=part.seen,
        )

    def _open(self, part: _Part, dataset: Dataset) -> OpenedSource:
        """Open a source; a resumed run needs the commit of the dataset that it started with."""
        source = part.source
        opened = open_source(source, dataset, self.settings)
        rows = self.replay.rows(dataset, part.number)
        if rows and source.source == "dataset" and not rows[0].source.startswith(f"{opened.name}#"):
            raise RunError(
                f"The dataset {opened.name} differs from the one that this run started with "
                f"({rows[0].source.split('#')[0]}).",
                "The dataset was changed: start a new run, and name a commit as id@revision.",
                code="dataset-changed",
            )
        return opened

    def _refusers(self) -> dict[str, TextModel]:
        """The models that answer unsafe questions: the members of the pool; replies that comply are discarded."""
        return {name: self.pool.as_text_model(name) for name in self.pool.members}

    def _cached_member(self, name: str) -> TextModel:
        member, own = self.pool.as_text_model(name), self.pool.member(name)

        def identity() -> str:
            self.pool.merge.write_parent(name)
            return identify(own.model, self.pool.hashes.sha256(own.model))

        return self._cached(member, own.tokenizer, identity)

    def _generator(self, dtype: torch.dtype) -> TextModel:
        reference = parse_reference(str(self.spec.pool.generator), self.settings)
        model = load_model(reference, self.settings, dtype, pick_device())
        generator = LoadedModel(model, load_tokenizer(reference, self.settings))
        return self._cached(generator, generator.tokenizer, lambda: identify(model, sha256_of_model(model)))

    def _cached(self, model: TextModel, tokenizer: object, identity: Callable[[], str]) -> TextModel:
        replies = open_cache(self.settings)
        return model if replies is None else CachedModel(model, tokenizer, cache(identity), replies)


def training_pairs(spec: RunSpec, events: Sequence[SampleSeen]) -> TrainingPairs:
    """The kept pairs of all training sets."""
    benign: Provenance = "file" if spec.benign and spec.benign.source == "file" else "generated"
    return TrainingPairs(
        samples_from_events(events, "safety", *provenances(spec.data.safety)),
        samples_from_events(events, "domain", *provenances(spec.data.domain)),
        samples_from_events(events, "benign", benign),
    )


def save_pairs(folder: RunFolder, pairs: TrainingPairs, replay: Replay) -> None:
    """Write the training sets as the log holds them, also over a damaged file.

    Raises:
        RunError: a person has edited a set since the run wrote it (code `data-changed`).
    """
    for dataset, samples in zip(DATASETS, pairs, strict=True):
        if not samples and dataset == "benign":
            continue
        if replay.data_complete and was_edited(path := folder.data_path(dataset), samples):
            raise RunError(
                f"{path} was changed since the run wrote it.",
                f"Restore or delete it, or start a new run with it as the file of data.{dataset}.",
                code="data-changed",
            )
        folder.write_data(dataset, samples)


def summarize_data(events: Sequence[SampleSeen]) -> DataReady:
    """Count the kept and dropped pairs of all sets."""
    seen = Counter(event.dataset for event in events)
    kept = Counter(event.dataset for event in events if event.kept)
    return DataReady(
        safety_kept=kept["safety"],
        safety_seen=seen["safety"],
        domain_kept=kept["domain"],
        domain_seen=seen["domain"],
        benign_kept=kept["benign"],
        benign_seen=seen["benign"],
        dropped=dict(Counter(event.reason for event in events if not event.kept)),
    )
