"""Whole runs on tiny models with each optimizer, and with all baselines."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from core.contracts.events import (
    CandidateMeasured,
    CandidateScored,
    Event,
    Failed,
    Finished,
    PhaseStarted,
    Progress,
    Warned,
)
from core.contracts.run_spec import RunSpec
from core.jobs.worker import run_worker
from core.models.fingerprint import sha256_of_model
from core.runs.folder import RunFolder
from core.runs.summaries import list_runs
from core.runs.view import fold
from core.search.cocktail import cocktail_weights
from core.settings import Settings
from tests.tiny_runs import Files, models_of, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")

EVERY: tuple[str, ...] = ("cocktail_expert_only", "grid", "equal", "evomm_expert_only", "cocktail")


def run_of(spec: RunSpec, settings: Settings) -> list[Event]:
    folder = RunFolder(settings.runs / "run")
    end = run_worker(spec, settings, folder)
    assert isinstance(end, Finished), end
    return folder.read_events()


def candidates_of(events: list[Event], search: str) -> list[CandidateScored]:
    return [event for event in events if isinstance(event, CandidateScored) and event.search == search]


def mean_loss(events: list[Event], name: str) -> float:
    """Of a parent over the four safety and three domain pairs."""
    model = models_of(events)[name]
    return (4 * (model.ce_safety or 0.0) + 3 * (model.ce_expert or 0.0)) / 7


def test_all_baselines_beside_evomm(tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings) -> None:
    search = {"steps": 6, "compare": list(EVERY), "temperature": 0.1}
    spec = spec_of(tiny_llama, tiny_expert, files, search=search, evaluation={"probe_questions": files.questions})
    events = run_of(spec, settings)
    models = models_of(events)
    assert list(models) == [str(tiny_llama), str(tiny_expert), *EVERY, "evomm"]
    assert [models[name].role for name in EVERY] == ["baseline"] * 5
    for name in EVERY:
        saved = AutoModelForCausalLM.from_pretrained(settings.runs / "run" / "baselines" / name)
        assert sha256_of_model(saved) == models[name].sha256
    _check_cocktails(events, str(tiny_llama), str(tiny_expert))
    _check_grid(events)


def _check_cocktails(events: list[Event], base: str, expert: str) -> None:
    models = models_of(events)
    domain = [models[name].ce_expert or 0.0 for name in (base, expert)]
    both = [mean_loss(events, name) for name in (base, expert)]
    for name, losses in (("cocktail_expert_only", domain), ("cocktail", both)):
        recipe = models[name].recipe
        assert recipe and recipe["method"] == "linear"
        assert recipe["weights"] == pytest.approx(cocktail_weights(losses, 0.1), abs=1e-5)
        assert [candidate.objective for candidate in candidates_of(events, name)] == pytest.approx(losses)


def _check_grid(events: list[Event]) -> None:
    scored = candidates_of(events, "grid")
    rates = {e.candidate: e.accuracy for e in events if isinstance(e, CandidateMeasured) and e.search == "grid"}
    assert len(scored) == len(rates) == 9
    assert all(rate is not None and rate.n == 3 for rate in rates.values())
    best = max(rate.rate for rate in rates.values() if rate)
    first = next(number for number, rate in rates.items() if rate and rate.rate == best)
    assert models_of(events)["grid"].recipe == scored[first].recipe


@pytest.mark.parametrize(("optimizer", "candidates"), [("cocktail", 2), ("grid", 9)])
def test_another_optimizer_for_the_run_itself(
    optimizer: str,
    candidates: int,
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    settings: Settings,
) -> None:
    search = {"optimizer": optimizer, "compare": []}
    evaluation = {"probe_questions": files.questions, "probe": files.probe}
    events = run_of(spec_of(tiny_llama, tiny_expert, files, search=search, evaluation=evaluation), settings)
    merged = models_of(events)[optimizer]
    assert merged.role == "merged"
    assert sha256_of_model(AutoModelForCausalLM.from_pretrained(settings.runs / "run" / "merged")) == merged.sha256
    assert len(candidates_of(events, optimizer)) == candidates
    assert [e.total for e in events if isinstance(e, PhaseStarted) and e.phase == "search"] == [candidates]
    probed = [event.candidate for event in events if isinstance(event, CandidateMeasured)]
    assert probed == (list(range(9)) if optimizer == "grid" else [])
    (listed,) = list_runs(settings)
    assert merged.recipe and listed.method == merged.recipe["method"]
    assert (listed.best_objective is None) == (optimizer == "cocktail")
    card = (settings.runs / "run" / "merged" / "README.md").read_text(encoding="utf-8")
    assert ("LM-Cocktail" if optimizer == "cocktail" else "Grid search") in card


def test_a_grid_without_probe_questions_never_starts(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    spec = spec_of(tiny_llama, tiny_expert, files, search={"compare": ["grid"]})
    end = run_worker(spec, settings, RunFolder(settings.runs / "run"))
    assert isinstance(end, Failed)
    assert "evaluation.probe_questions" in end.hint


def test_a_flat_search_says_so_in_the_log(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    search = {"steps": 40, "stop_when_flat": 5.0, "compare": []}
    events = run_of(spec_of(tiny_llama, tiny_expert, files, search=search), settings)
    assert len(candidates_of(events, "evomm")) == 12
    (reason,) = fold(events).early_ends
    assert "12 of 40" in reason
    assert [event.done for event in events if isinstance(event, Progress) and event.ended_early] == [12]


def test_the_weights_of_a_cocktail_belong_to_their_parents_with_any_anchor(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    pool = {"base": str(tiny_expert), "experts": [{"model": str(tiny_llama)}], "ancestor": str(tiny_llama)}
    spec = spec_of(tiny_expert, tiny_llama, files, pool=pool, search={"optimizer": "cocktail", "compare": []})
    events = run_of(spec, settings)
    recipe = models_of(events)["cocktail"].recipe
    assert recipe
    named = dict(zip((recipe["base"], *recipe["experts"]), recipe["weights"], strict=True))
    losses = [mean_loss(events, name) for name in named]
    assert list(named.values()) == pytest.approx(cocktail_weights(losses), abs=1e-5)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("objective", ["pareto", "constraint"])
def test_other_objectives_run_to_their_merge(
    objective: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    search = {"steps": 12, "objective": objective, "compare": [], "safety_tolerance": 0.0}
    spec = spec_of(tiny_llama, tiny_expert, files, search=search)
    folder = RunFolder(settings.runs / "run")
    assert isinstance(run_worker(spec, settings, folder), Finished)
    events = folder.read_events()
    view = fold(events)
    best = view.best()
    assert best is not None and models_of(events)["evomm"].recipe == best.recipe
    parents = [model.ce_safety or 0.0 for model in view.models if model.role == "parent"]
    for candidate in view.candidates:
        over = max(0.0, (candidate.ce_safety or 0.0) - min(parents))
        assert candidate.violation == (over if objective == "constraint" else 0.0)
    warned = [event for event in events if isinstance(event, Warned) and "keeps the safety loss" in event.message]
    assert bool(warned) == (best.violation > 0)
    assert (view.result is not None and best.candidate in view.result.searches[0].front) or objective == "constraint"
