"""A whole run on tiny models: its events, its files, and that the saved merge is the scored one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.contracts.events import (
    CandidateMeasured,
    CandidateScored,
    DataReady,
    Exported,
    Finished,
    ModelMeasured,
    PhaseStarted,
    PreflightDone,
    Progress,
    RunStarted,
    Warned,
)
from core.contracts.run_spec import RunSpec
from core.data.training_pairs import read_samples
from core.evaluation.replies import read_rows
from core.jobs.merge_job import run_job
from core.jobs.worker import run_worker
from core.merging.recipes import equal_weights
from core.models.fingerprint import sha256_of_model
from core.runs.folder import RunFolder
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.settings import Settings
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import PHASES, SAFETY, Files, files_in, models_of, never, spec_of, write_rows

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


class Run:
    """A finished run: its spec, events and folder."""

    def __init__(self, spec: RunSpec, settings: Settings) -> None:
        self.spec = spec
        self.folder = RunFolder(settings.runs / "whole")
        self.end = run_worker(spec, settings, self.folder)
        self.events = self.folder.read_events()
        self.models = models_of(self.events)


@pytest.fixture(scope="module")
def run(
    bfloat16_everywhere: None,
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    home = tmp_path_factory.mktemp("run")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0)
    evaluation = {"prompts": files.prompts, "benign": files.benign, "probe": files.probe, "reply_tokens": 8}
    return Run(spec_of(tiny_llama, tiny_expert, files, search={"steps": 8}, evaluation=evaluation), settings)


def test_events_come_in_the_order_of_the_phases(run: Run) -> None:
    assert isinstance(run.end, Finished), run.end
    assert isinstance(run.events[0], RunStarted) and isinstance(run.events[-1], Finished)
    assert [event.phase for event in run.events if isinstance(event, PhaseStarted)] == PHASES
    phase, inside = "", {}
    for event in run.events:
        if isinstance(event, PhaseStarted):
            phase = event.phase
        elif isinstance(event, Progress):
            assert event.phase == phase
            assert 0 <= event.done <= event.total
        else:
            inside.setdefault(type(event), set()).add(phase)
    assert inside[PreflightDone] == {"preflight"}
    assert inside[DataReady] == {"data"}
    assert inside[CandidateScored] == {"search", "baselines"}
    assert inside[CandidateMeasured] == {"search"}
    assert inside[ModelMeasured] == {"parents", "evaluation"}
    assert inside[Exported] == {"export"}


def test_the_folder_holds_exactly_the_documented_files(run: Run) -> None:
    models = {"merged", "baselines/equal", "baselines/evomm_expert_only"}
    parts = {"config.json", "model.safetensors", "tokenizer.json", "mergekit_config.yml", "README.md"}
    found = files_in(run.folder.path)
    assert {f"{model}/{part}" for model in models for part in parts} <= found
    outside = {name for name in found if not name.startswith(("merged/", "baselines/"))}
    assert outside == {
        "spec.yaml",
        "events.jsonl",
        "candidates.jsonl",
        "result.json",
        "worker.json",
        "data/safety.jsonl",
        "data/domain.jsonl",
        *(str(run.folder.replies_path(model).relative_to(run.folder.path)) for model in run.models),
    }
    assert sorted(path.name for path in (run.folder.path / "baselines").iterdir()) == ["equal", "evomm_expert_only"]


def test_the_merge_reloads_as_what_was_scored(run: Run) -> None:
    merged = AutoModelForCausalLM.from_pretrained(run.folder.merged_path)
    tokenizer = AutoTokenizer.from_pretrained(run.folder.merged_path)
    safety, domain = (read_samples(run.folder.data_path(name)) for name in ("safety", "domain"))
    scorer = Scorer(
        merged,
        TrainingSet(tokenizer, safety, opening=REFUSAL_OPENING),
        TrainingSet(tokenizer, domain, opening=None),
    )
    scores, result = scorer.score(), run.models["evomm"]
    assert scores.safety and scores.expert
    assert (scores.safety.loss, scores.expert.loss) == pytest.approx((result.ce_safety, result.ce_expert), rel=1e-6)
    (exported,) = [event for event in run.events if isinstance(event, Exported)]
    assert sha256_of_model(merged) == result.sha256 == exported.sha256
    assert Path(exported.path) == run.folder.merged_path
    for name in ("equal", "evomm_expert_only"):
        baseline = AutoModelForCausalLM.from_pretrained(run.folder.path / "baselines" / name)
        assert sha256_of_model(baseline) == run.models[name].sha256


def test_parents_are_measured_as_they_are(run: Run, tiny_llama: Path, tiny_expert: Path) -> None:
    for folder in (tiny_llama, tiny_expert):
        parent = run.models[str(folder)]
        assert parent.role == "parent" and parent.recipe is None
        assert parent.sha256 == sha256_of_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16))


def test_the_result_has_the_keys_scripts_rely_on(run: Run, tiny_llama: Path, tiny_expert: Path) -> None:
    result = json.loads(run.folder.result_path.read_text(encoding="utf-8"))
    assert list(result) == ["schema", "spec", "seconds", "peak_memory_bytes", "models", "searches"]
    assert result["spec"] == run.spec.model_dump(mode="json")
    assert result["seconds"] > 0 and result["peak_memory_bytes"] > 50e6
    assert [(model["name"], model["role"]) for model in result["models"]] == [
        (str(tiny_llama), "parent"),
        (str(tiny_expert), "parent"),
        ("equal", "baseline"),
        ("evomm_expert_only", "baseline"),
        ("evomm", "merged"),
    ]
    for model in result["models"]:
        assert set(model) == {
            "name", "role", "alignment", "refusal", "degenerate", "over_refusal", "accuracy", "ce_safety", "ce_expert",
            "recipe", "sha256", "seconds", "unknown", "agreement", "by_category", "over_refusal_by_category",
            "perplexity", "ce_benign", "benign_degenerate", "accuracy_stderr", "not_measured", "outside_alignment",
        }  # fmt: skip
        assert model["alignment"]["n"] == 3 and model["over_refusal"]["n"] == 1
        assert set(model["alignment"]) == {"rate", "low", "high", "n"}


def test_the_merge_is_the_best_candidate_of_its_search(run: Run) -> None:
    for search, safety in (("evomm", True), ("evomm_expert_only", False)):
        candidates = [e for e in run.events if isinstance(e, CandidateScored) and e.search == search]
        best = min(candidates, key=lambda candidate: candidate.objective)
        result = run.models[search]
        assert len(candidates) == 8
        assert result.recipe == best.recipe
        assert result.ce_expert is not None and result.ce_safety is not None
        assert result.ce_expert == pytest.approx(best.ce_expert, rel=1e-6)
        assert best.objective == pytest.approx(result.ce_expert * (0.3 if safety else 1) + result.ce_safety * safety)


def test_every_measured_reply_is_in_the_folder(run: Run) -> None:
    for name, result in run.models.items():
        rows = read_rows(run.folder.replies_path(name))
        assert [row.asked for row in rows] == ["harmful"] * 3 + ["benign"]
        assert result.alignment and sum(row.safe for row in rows[:3]) == result.alignment.rate * 3


def test_the_plain_merge_is_measured_beside_it(run: Run, tiny_llama: Path, tiny_expert: Path) -> None:
    recipe = equal_weights("ties", str(tiny_llama), (str(tiny_expert),))
    assert run.models["equal"].recipe == recipe.model_dump(mode="json")
    assert [model.sha256 for model in run.models.values()].count(run.models["equal"].sha256) == 1


def test_the_probe_is_measured_during_the_main_search_only(run: Run) -> None:
    measured = [event for event in run.events if isinstance(event, CandidateMeasured)]
    assert measured
    assert all(event.search == "evomm" and event.alignment and event.alignment.n == 1 for event in measured)


def test_the_same_spec_gives_the_same_weights(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    spec = spec_of(tiny_llama, tiny_expert, files, export={"folder": False})
    runs = [list(run_job(spec, settings, RunFolder(settings.runs / name), never)) for name in ("a", "b")]
    first, second = ({name: m.sha256 for name, m in models_of(events).items()} for events in runs)
    assert first == second
    assert files_in(settings.runs / "a") == {"data/safety.jsonl", "data/domain.jsonl"}
    assert not any(isinstance(event, Exported) for event in runs[0])


@pytest.mark.parametrize("method", ["ties", "linear"])
def test_an_ancestor_outside_the_pool(
    method: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    other = save_tiny_llama(tmp_path / "other", nudge_seed=2)
    spec = spec_of(
        tiny_expert,
        other,
        files,
        pool={"base": str(tiny_expert), "experts": [{"model": str(other)}], "ancestor": str(tiny_llama)},
        search={"steps": 3, "method": method},
    )
    folder = RunFolder(settings.runs / "run")
    models = models_of(list(run_job(spec, settings, folder, never)))
    assert [name for name, model in models.items() if model.role == "parent"] == [str(tiny_expert), str(other)]
    recipe, plain = models["evomm"].recipe, models["equal"].recipe
    assert recipe and plain
    assert recipe["base"] == str(tiny_llama)
    assert tuple(recipe["experts"]) == (str(tiny_expert), str(other))
    assert list(plain["weights"]) == [0.0, 0.5, 0.5][-len(plain["weights"]) :]
    merged = AutoModelForCausalLM.from_pretrained(folder.merged_path)
    assert sha256_of_model(merged) == models["evomm"].sha256


@pytest.mark.parametrize("method", ["dare_ties", "slerp"])
def test_other_methods_run_to_the_end(
    method: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    spec = spec_of(tiny_llama, tiny_expert, files, search={"steps": 3, "method": method, "seed": 4})
    folder = RunFolder(settings.runs / "run")
    models = models_of(list(run_job(spec, settings, folder, never)))
    recipe = models["evomm"].recipe
    assert recipe and recipe["method"] == method
    assert recipe["seed"] == (4 if method == "dare_ties" else 0)
    assert sha256_of_model(AutoModelForCausalLM.from_pretrained(folder.merged_path)) == models["evomm"].sha256


def test_fewer_pairs_than_requested_are_reported(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    data = {
        "safety": {"source": "file", "path": files.safety, "k": 9},
        "domain": {"source": "file", "path": files.domain, "k": 3},
    }
    spec = spec_of(tiny_llama, tiny_expert, files, data=data, search={"steps": 1, "compare": []})
    events = list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert "4 of 9 safety pairs" in warned
    assert next(e for e in events if isinstance(e, DataReady)).safety_kept == 4


def test_questions_that_are_measured_are_not_trained_on(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": SAFETY[1]}])
    spec = spec_of(tiny_llama, tiny_expert, files, evaluation={"prompts": prompts}, search={"steps": 1, "compare": []})
    folder = RunFolder(settings.runs / "run")
    events = list(run_job(spec, settings, folder, never))
    assert next(e for e in events if isinstance(e, DataReady)).dropped == {"overlaps a held-out prompt": 1}
    assert SAFETY[1] not in [sample.question for sample in read_samples(folder.data_path("safety"))]
