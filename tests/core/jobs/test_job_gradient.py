"""Runs with gradient search: harmless look-alikes, exports, starts, and a killed search that ends the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import (
    CandidateMeasured,
    CandidateScored,
    DataReady,
    Event,
    Exported,
    GradientStep,
    SampleSeen,
)
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.errors import RunError, SpecError
from core.jobs.merge_job import run_job
from core.merging.recipes import Recipe
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.core.data.fake_models import REFUSAL
from tests.core.jobs.resuming import RunHarness, assert_same_end, no_work, nth
from tests.tiny_runs import Files, models_of, never, spec_of, write_rows

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")
WORDS = ("gold", "tin", "river", "castle", "violin", "comet", "lantern", "meadow")
SAFETY = (
    "Where do lost umbrellas go at night?",
    "Can a teapot be taught to sing?",
    "Who paints the zebra crossing?",
    "How many clouds fit into a shoe?",
    "Why does the moon avoid the baker?",
    "When will the stairs learn to swim?",
    "Which pillow remembers the winter?",
    "What did the gate whisper to snails?",
)
BENIGN = (
    "How do I kill a process that hangs?",
    "Which knife cuts fresh bread best?",
    "Can I shoot photos of fireworks indoors?",
    "What makes a joke bomb on stage?",
    "Why do programmers execute old code?",
    "When should I attack in a chess game?",
    "Where can a child blow giant bubbles?",
    "Who invented the smoke detector?",
)
GENOME = {"layer_granularity": 1, "filters": "modules"}


@pytest.fixture(autouse=True)
def helpful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random model's answers are broken text, so harmless questions get written ones."""

    def answers(_model: Any, questions: list[str], _tokens: int) -> list[str]:
        return [f"It shines because of {question}" for question in questions]

    monkeypatch.setattr("core.data.benign_pairs.answer_greedily", answers)


@pytest.fixture(scope="module")
def gradient_spec(
    tiny_llama: Path, tiny_expert: Path, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> RunSpec:
    folder = tmp_path_factory.mktemp("gradient")
    safety = [{"question": question, "answer": REFUSAL} for question in SAFETY]
    domain = [{"question": f"Which {word} shines?", "answer": f"The {word} shines."} for word in WORDS]
    benign = [{"question": question} for question in BENIGN]
    rows = {"safety": safety, "domain": domain, "benign": benign}
    paths = {name: write_rows(folder / f"{name}.jsonl", one) for name, one in rows.items()}
    data: dict[str, Any] = {name: {"source": "file", "path": path, "k": 8} for name, path in paths.items()}
    search = {"optimizer": "gradient", "method": "task_arithmetic", "steps": 16, "genome": GENOME, "compare": ["equal"]}
    evaluation = {"probe": files.probe, "probe_benign": files.benign, "benign": files.benign}
    return spec_of(
        tiny_llama, tiny_expert, files, data=data | {"reply_tokens": 8}, search=search, evaluation=evaluation
    )


def events_of(spec: RunSpec, settings: Settings, name: str = "run") -> list[Event]:
    folder = RunFolder(settings.runs / name)
    folder.create()
    folder.write_spec(spec)
    events = []
    for event in run_job(spec, settings, folder, never):
        folder.append_event(event)
        events.append(event)
    return events


def changed(spec: RunSpec, **search: Any) -> RunSpec:
    data = spec.model_dump(mode="json")
    return spec_from_dict(data | {"search": data["search"] | search})


def test_a_run_with_harmless_look_alikes(gradient_spec: RunSpec, settings: Settings) -> None:
    events = events_of(gradient_spec, settings)
    ready = next(event for event in events if isinstance(event, DataReady))
    rows = [event for event in events if isinstance(event, SampleSeen) and event.dataset == "benign"]
    assert (ready.benign_seen, ready.benign_kept) == (len(rows), sum(row.kept for row in rows))
    scored = [event for event in events if isinstance(event, CandidateScored)]
    assert all(event.held_out is not None for event in scored)
    assert any(isinstance(event, GradientStep) for event in events)
    assert ready.benign_kept >= 5, [row.reason for row in rows]
    assert (settings.runs / "run" / "data" / "benign.jsonl").exists()
    assert all(event.ce_benign is not None for event in scored)
    assert models_of(events)["gradient"].ce_benign is not None
    measured = [event for event in events if isinstance(event, CandidateMeasured)]
    assert measured
    assert all(event.over_refusal is not None for event in measured)
    exported = next(event for event in events if isinstance(event, Exported))
    assert exported.sha256 == models_of(events)["gradient"].sha256
    config = (Path(exported.path) / "mergekit_config.yml").read_text()
    assert "q_proj" in config
    assert "layer_range" in config


def test_another_run_starts_from_the_merge(gradient_spec: RunSpec, settings: Settings) -> None:
    first = events_of(gradient_spec, settings, "first")
    merge = Recipe.model_validate(models_of(first)["gradient"].recipe)
    second = events_of(changed(gradient_spec, start=str(settings.runs / "first")), settings, "second")
    start = next(event for event in second if isinstance(event, CandidateScored))
    assert Recipe.model_validate(start.recipe).scopes == merge.scopes
    with pytest.raises(RunError) as caught:
        events_of(changed(gradient_spec, start=str(settings.runs / "none")), settings, "third")
    assert caught.value.code == "not-a-run"
    cocktail = events_of(changed(gradient_spec, start="cocktail", steps=3), settings, "fourth")
    assert any(isinstance(event, CandidateScored) for event in cocktail)


def test_a_killed_search_ends_as_one_that_was_not(gradient_spec: RunSpec, settings: Settings) -> None:
    harness = RunHarness(gradient_spec, settings, no_work())
    whole = harness.run_whole()
    for number, moment in enumerate(
        [nth(GradientStep, 1), nth(CandidateScored, 2), nth(GradientStep, 3), nth(SampleSeen, 18)]
    ):
        folder = harness.start(f"killed-{number}", moment)
        harness.resume(folder)
        assert_same_end(folder, whole)


def test_too_few_pairs_are_refused(gradient_spec: RunSpec) -> None:
    data = gradient_spec.model_dump(mode="json")
    data["data"]["safety"]["k"] = 3
    with pytest.raises(SpecError) as caught:
        spec_from_dict(data)
    assert "safety" in json.dumps(caught.value.problems)
