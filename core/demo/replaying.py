"""The pool of a recorded run, loaded again: its members and merges reply, and its candidates are scored on safety."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from core.contracts.events import CandidateScored
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec
from core.data.training_pairs import read_samples
from core.errors import RunError
from core.jobs.live_pool import LivePool, load_pool
from core.merging.recipes import Recipe
from core.models.fingerprint import sha256_of_model
from core.models.generation import generate_all
from core.models.precision import choose_dtype, pick_device
from core.search.scoring import REFUSAL_OPENING, TrainingSet
from core.settings import Settings

REPLY_TOKENS = 40
"""Longest recorded reply to a harmless prompt."""


class ReplayedPool:
    """The loaded pool of a finished run.

    Args:
        spec: the run's.
        models: the run's results, which name the recipes and the hashes of the weights.
        settings: of this machine.
    """

    def __init__(self, spec: RunSpec, models: Sequence[ModelResult], settings: Settings) -> None:
        loaded: list[LivePool] = []
        dtype = choose_dtype(spec.pool.dtype, settings, pick_device()).dtype
        for _ in load_pool(spec.pool, settings, loaded.append, dtype):
            pass
        self._pool = loaded[0]
        self._models = {model.name: model for model in models}

    def reply(self, name: str, prompts: Sequence[str]) -> list[str]:
        """The replies of a model of the results, decoded greedily.

        Raises:
            RunError: its weights are not those that the run measured (code `weights-changed`).
        """
        pool, result = self._pool, self._models[name]
        if result.recipe is None:
            pool.merge.write_parent(name)
        else:
            pool.merge.apply(Recipe.model_validate(result.recipe))
        if result.sha256 and sha256_of_model(pool.live) != result.sha256:
            raise RunError(
                f"The weights of {name} differ from those that the run measured.",
                "Record on the machine that made the run.",
                code="weights-changed",
            )
        member = pool.member(name)
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return generate_all(member.model, member.tokenizer, conversations, max_new_tokens=REPLY_TOKENS)

    def refusals_begun(self, candidates: Sequence[CandidateScored], pairs: Path) -> Iterator[tuple[int, float]]:
        """Yield each candidate's number and the share of safety pairs whose refusal it would begin greedily."""
        safety = TrainingSet(self._pool.tokenizer, read_samples(pairs), opening=REFUSAL_OPENING)
        known: dict[Recipe, float] = {}
        for candidate in candidates:
            recipe = Recipe.model_validate(candidate.recipe)
            if recipe not in known:
                self._pool.merge.apply(recipe)
                known[recipe] = safety.score(self._pool.live).greedy_share
            yield candidate.candidate, known[recipe]
