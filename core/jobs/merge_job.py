"""The job: one generator from a spec to a merged model, yielding typed events.

preflight -> loading -> data -> parents -> search -> baselines -> evaluation -> export. Errors are raised; the worker
(`core.jobs.worker`) turns them, and a stop, into the run's terminal event. A resumed job gets a `Replay`
(`core.runs.replay`), runs through the same phases and takes from it what was done before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from core.contracts.events import (
    CandidateScored,
    Event,
    Exported,
    Finished,
    GradientStep,
    ModelMeasured,
    Phase,
    PhaseStarted,
    PoolLoaded,
    PreflightDone,
    Progress,
    RunStarted,
    SampleSeen,
    Warned,
)
from core.contracts.optimizers import EQUAL, searches_losses
from core.contracts.reply_verdicts import DisputedReply
from core.contracts.results import WITHOUT, ModelResult, ProbeRates, Role, RunResult, SearchResult
from core.contracts.run_spec import LEAST_PAIRS, RunSpec
from core.data.training_pairs import TrainingPairs
from core.errors import MergeError, RunCancelled, RunError
from core.evaluation.measurement import Measurer, read_test_set
from core.guards.panel import unload
from core.guards.protocol import Guard
from core.guards.registry import load_guard
from core.jobs.data_step import DataStep, save_pairs, summarize_data, training_pairs
from core.jobs.importance_step import score_importance
from core.jobs.live_pool import LivePool, load_pool, warn_about_copies
from core.jobs.parent_scores import ParentScores, losses_of
from core.jobs.run_warnings import (
    broken_merge_warnings,
    single_expert_warnings,
    skipped,
    swapped_prompts_warnings,
    too_few_pairs_warnings,
    unfinished_warnings,
)
from core.jobs.search_setup import (
    accuracy_measurements,
    collect_candidates,
    make_differentiator,
    make_plan,
    make_scorer,
    no_candidate_scored,
    search_result,
)
from core.merging.recipes import Recipe
from core.models.export import export_model, saved_sha256
from core.models.fingerprint import WeightHash
from core.models.memory import MemoryPlan
from core.models.precision import choose_dtype, pick_device
from core.preflight.check_rows import refuse_blocking
from core.preflight.run_check import examine
from core.report.model_card import model_card
from core.runs.folder import RunFolder
from core.runs.input_files import hash_inputs
from core.runs.process import peak_memory_bytes
from core.runs.replay import Replay, continue_log
from core.search.cocktail import parent_recipes
from core.search.evaluator import Evaluator
from core.search.genome import inactive_note
from core.search.registry import make_optimizer
from core.search.scoring import Scores
from core.search.search_loop import run_search
from core.search.search_plan import SearchPlan
from core.settings import Settings


def run_job(
    spec: RunSpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool], replay: Replay | None = None
) -> Iterator[Event]:
    """Run `spec` and save models, data and replies into `folder`.

    Args:
        spec: what to run.
        settings: of this machine.
        folder: of the run.
        should_stop: checked before each step.
        replay: what the run has done before; the result is the same as if it had never stopped.

    Yields:
        Events from `RunStarted` to `Finished`, without those that `replay` holds.

    Raises:
        SafeMergeError: something a person can fix (a model, the data, the disk).
        RunCancelled: `should_stop` returned True.
    """
    if replay is None:
        folder.create()
    replay = replay or Replay()
    yield from continue_log(_Job(spec, settings, folder, should_stop, replay).run(), replay)


@dataclass
class _Job:
    spec: RunSpec
    settings: Settings
    folder: RunFolder
    should_stop: Callable[[], bool]
    replay: Replay
    results: list[ModelResult] = field(default_factory=list)
    disputed: list[DisputedReply] = field(default_factory=list)
    scored_parents: list[ModelResult] = field(default_factory=list)
    searches: list[SearchResult] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[Event]:
        yield RunStarted(spec=self.spec.model_dump(mode="json"), inputs=hash_inputs(self.spec))
        memory = yield from self._preflight()
        tests = read_test_set(self.spec, self.settings)
        guard = load_guard(self.spec.pool.guard, self.settings, self.spec.pool.dtype)
        pool = yield from self._load(memory)
        pairs = yield from self._prepare_data(pool, tests.prompts, guard)
        scorer = make_scorer(self.spec, pool, pairs)
        limit, reply_tokens = self.spec.evaluation.limit, self.spec.evaluation.reply_tokens
        measurer = Measurer(pool.live, pool.tokenizer, guard, tests, limit, reply_tokens)
        evaluator = Evaluator(pool.merge, scorer, measurer.probe_accuracy if tests.probe_questions else None)
        evaluator.differentiator = make_differentiator(self.spec, pool, pairs, scorer, tests.prompts)
        logged = self.replay.of(CandidateScored), accuracy_measurements(self.replay), self.replay.of(GradientStep)
        evaluator.recall(*logged)
        parents = ParentScores(pool, evaluator, scorer.shares, pairs)
        yield from self._measure_parents(pool, parents, measurer)
        if memory and memory.unloads_guards:
            unload(guard)
        yield from self._search_and_compare(pool, evaluator, measurer)
        yield Finished(result=self._result())

    def _check_stop(self) -> None:
        if self.should_stop():
            raise RunCancelled

    def _enter(self, phase: Phase, total: int | None = None) -> PhaseStarted:
        self._check_stop()
        return PhaseStarted(phase=phase, total=total)

    def _preflight(self) -> Generator[Event, None, MemoryPlan | None]:
        yield self._enter("preflight")
        rows, memory = examine(self.spec, self.settings)
        needed = (memory.needed("host"), memory.needed("device")) if memory else (0, 0)
        yield PreflightDone(rows=tuple(rows), host_bytes=needed[0], device_bytes=needed[1])
        refuse_blocking(rows)
        return memory

    def _load(self, memory: MemoryPlan | None) -> Generator[Event, None, LivePool]:
        yield self._enter("loading")
        loaded: list[LivePool] = []
        chosen = choose_dtype(self.spec.pool.dtype, self.settings, pick_device(), logged=self.replay.dtype)
        for event in load_pool(self.spec.pool, self.settings, loaded.append, chosen.dtype, memory):
            yield event
            self._check_stop()
        (pool,) = loaded
        yield from warn_about_copies(pool)
        mode = memory.mode if memory else "resident"
        device = pool.live.device.type
        yield PoolLoaded(dtype=chosen.name, dtype_reason=chosen.reason, device=device, memory=mode)
        return pool

    def _prepare_data(self, pool: LivePool, held_out: list[str], guard: Guard) -> Generator[Event, None, TrainingPairs]:
        sets, benign_k = self.spec.data, self.spec.benign.k if self.spec.benign else 0
        yield self._enter("data", sets.safety.pairs + sets.domain.pairs + benign_k)
        events: list[SampleSeen] = []
        step = DataStep(self.spec, self.settings, pool, guard, held_out, self.should_stop, self.replay)
        for event in step.rows():
            self._check_stop()
            yield event
            if isinstance(event, SampleSeen):
                events.append(event)
        pairs = training_pairs(self.spec, events)
        save_pairs(self.folder, pairs, self.replay)
        yield summarize_data(events)
        yield from too_few_pairs_warnings(self.spec, pairs)
        yield from score_importance(self.spec, pool, pairs, self.replay, self.should_stop)
        return pairs if len(pairs.benign) >= LEAST_PAIRS else pairs._replace(benign=[])

    def _measure_parents(self, pool: LivePool, parents: ParentScores, measurer: Measurer) -> Iterator[Event]:
        yield self._enter("parents", len(pool.members))
        recipes = parent_recipes(pool.genome(self.spec.search))
        for done, name in enumerate(pool.members):
            self._check_stop()
            yield Progress(phase="parents", done=done, total=len(pool.members), message=f"measuring {name}")
            pool.merge.write_parent(name)
            score = parents.scorer_of(name, recipes[name])
            if self.spec.evaluation.parents:
                own = pool.member(name)
                as_itself = replace(measurer, model=own.model, tokenizer=own.tokenizer)
                yield from self._measured(pool, name, "parent", as_itself, score)
            else:
                self.scored_parents.append(ModelResult(name=name, role="parent", **losses_of(score())))
        yield from self._warn_about_parents()

    def _warn_about_parents(self) -> Iterator[Warned]:
        """Warnings when a parent's text is broken or the harmful and benign prompts look swapped."""
        evaluation = self.spec.evaluation
        for parent in self.results:
            if evaluation.fluency and parent.perplexity is None:
                message = f"The perplexity of {parent.name} on a neutral text is not a finite number."
                yield Warned(message=message, hint="Its weights are damaged, or this machine computes them wrongly.")
        yield from swapped_prompts_warnings(self.results, evaluation)

    def _search_and_compare(self, pool: LivePool, evaluator: Evaluator, measurer: Measurer) -> Iterator[Event]:
        plan = self._plan(pool, evaluator, self.spec.search.optimizer)
        yield self._enter("search", make_optimizer(plan).size)
        if note := inactive_note(plan.genome):
            yield Warned(message=note, hint="The search has fewer parameters to find; the result is not affected.")
        probe = self._probe(plan.name, measurer) if searches_losses(plan.optimizer) else None
        best = yield from self._search(plan, evaluator, probe)
        recipes = yield from self._baselines(pool, evaluator)
        recipes |= yield from self._leave_one_out(pool, best)
        recipes[plan.name] = best
        yield from single_expert_warnings(self.spec)
        yield self._enter("evaluation", len(recipes))
        for done, (name, recipe) in enumerate(recipes.items()):
            self._check_stop()
            yield Progress(phase="evaluation", done=done, total=len(recipes), message=f"measuring {name}")
            yield from self._measure_merge(pool, evaluator, measurer, name, recipe)

    def _baselines(self, pool: LivePool, evaluator: Evaluator) -> Generator[Event, None, dict[str, Recipe]]:
        recipes: dict[str, Recipe] = {}
        compare = dict.fromkeys(self.spec.search.compare)
        yield self._enter("baselines", len(compare))
        for name in compare:
            if name == EQUAL:
                recipes[name] = pool.genome(self.spec.search).plain()
                continue
            try:
                recipes[name] = yield from self._search(self._plan(pool, evaluator, name), evaluator, None)
            except MergeError as error:
                yield skipped(name, error)
        return recipes

    def _leave_one_out(self, pool: LivePool, merge: Recipe) -> Generator[Warned, None, dict[str, Recipe]]:
        """Recipes of the run's own merge without each expert in turn, if the spec asks for it and experts remain."""
        experts = [name for name in pool.members if name != self.spec.pool.base and name in merge.experts]
        recipes: dict[str, Recipe] = {}
        if not self.spec.evaluation.leave_one_out or len(experts) < 2:
            return recipes
        for name in experts:
            try:
                recipes[f"{WITHOUT}{name}"] = merge.without(name)
            except MergeError as error:
                yield skipped(f"{WITHOUT}{name}", error)
        return recipes

    def _plan(self, pool: LivePool, evaluator: Evaluator, name: str) -> SearchPlan:
        """The plan of the run's own search, which is named after its optimizer, or of a baseline."""
        genome = pool.genome(self.spec.search, self.replay.mask_version)
        measured = [*self.results, *self.scored_parents]
        return make_plan(self.spec, name, genome, evaluator.scorer, measured)

    def _search(
        self, plan: SearchPlan, evaluator: Evaluator, probe: Callable[[], ProbeRates] | None
    ) -> Generator[Event, None, Recipe]:
        scored: list[CandidateScored] = []
        best = yield from collect_candidates(run_search(plan, evaluator, self.should_stop, probe), scored)
        self.searches.append(search_result(plan.name, scored))
        if best is None:
            raise no_candidate_scored(plan.name, scored)
        return best

    def _probe(self, search: str, measurer: Measurer) -> Callable[[], ProbeRates]:
        """The live probe of a search; it first returns what the log holds, in order."""
        known = iter(self.replay.measured_candidates(search))

        def probe() -> ProbeRates:
            measured = next(known, None)
            if measured is None:
                return measurer.probe()
            return ProbeRates(measured.alignment, measured.accuracy, measured.over_refusal)

        return probe

    def _measure_merge(
        self, pool: LivePool, evaluator: Evaluator, measurer: Measurer, name: str, recipe: Recipe
    ) -> Iterator[Event]:
        role: Role = "merged" if name == self.spec.search.optimizer else "baseline"
        try:
            pool.merge.apply(recipe)
        except MergeError as error:
            if role == "merged":
                raise
            yield skipped(name, error)
            return
        evaluator.measured_before(recipe)
        measured = yield from self._measured(pool, name, role, measurer, partial(evaluator.live_scores, recipe), recipe)
        parents = [model for model in self.results if model.role == "parent"]
        yield from broken_merge_warnings(measured.result, parents)
        if not self.spec.export.folder or name.startswith(WITHOUT):
            return
        if role == "merged":
            yield self._enter("export")
        self._check_stop()
        target = self.folder.merged_path if role == "merged" else self.folder.path / "baselines" / name
        sha256 = saved_sha256(target)
        if sha256 is None:
            card = model_card(name, recipe, self.spec, tuple(self.results))
            names, tokens = pool.mergekit_names, pool.tokenizer_source
            hashes = pool.hashes.start(pool.live)().as_scored()
            sha256 = export_model(pool.live, pool.tokenizer, recipe, card, target, names, tokens, **hashes)
        if sha256 != measured.result.sha256:
            raise MergeError(
                f"The weights in {target} differ from those that were measured.",
                "Move the folder away, and resume the run.",
                code="weights-differ",
            )
        if role == "merged":
            yield Exported(path=str(target), sha256=sha256)

    def _measured(
        self,
        pool: LivePool,
        name: str,
        role: Role,
        measurer: Measurer,
        score: Callable[[], Scores],
        recipe: Recipe | None = None,
    ) -> Generator[Event, None, ModelMeasured]:
        """Measure the measurer's model, unless the run has measured the same weights before.

        Args:
            pool: of the model.
            name: of the model.
            role: of the model.
            measurer: of the model.
            score: returns its losses.
            recipe: of a merge; None for a parent.
        """
        weights, known = pool.hashes.start(measurer.model), self.replay.model(name, role)
        if known and known.result.sha256 != weights().sha256:
            raise RunError(
                f"The weights of {name} differ from those that this run measured.",
                "A model was changed since then, or this machine computes different values: start a new run.",
                code="weights-changed",
            )
        event = known or (yield from self._measure(name, role, measurer, score, recipe, weights))
        self.results.append(event.result)
        self.disputed += event.disputed
        if self.disputed:
            self.folder.write_disputed(self.disputed)
        yield event
        return event

    def _measure(
        self,
        name: str,
        role: Role,
        measurer: Measurer,
        score: Callable[[], Scores],
        recipe: Recipe | None,
        weights: Callable[[], WeightHash],
    ) -> Generator[Event, None, ModelMeasured]:
        losses, numbers = losses_of(score()), None if recipe is None else recipe.model_dump(mode="json")
        measured = measurer.measure(name, role, **losses, recipe=numbers)
        if measured.replies:
            self.folder.write_replies(name, measured.replies)
        if role == "parent":
            yield from unfinished_warnings(measured, measurer.model, measurer.tokenizer, measurer.reply_tokens)
        result = measured.result.model_copy(update={"sha256": weights().sha256})
        return ModelMeasured(result=result, disputed=measured.disputed)

    def _result(self) -> RunResult:
        return RunResult(
            spec=self.spec.model_dump(mode="json"),
            seconds=self.replay.seconds + time.monotonic() - self.started,
            peak_memory_bytes=peak_memory_bytes(),
            models=tuple(self.results),
            searches=tuple(self.searches),
        )
