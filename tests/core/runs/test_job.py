"""A whole run on tiny models: what it says and leaves, that the saved merge is the scored one, and how it fails."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from core.data import writing
from core.data.samples import read_samples
from core.errors import DataError, ModelError, RunCancelled, RunError
from core.events import (
    CandidateMeasured,
    CandidateScored,
    DataReady,
    Event,
    Exported,
    Finished,
    ModelMeasured,
    PhaseStarted,
    PreflightDone,
    Progress,
    RunStarted,
    Warned,
)
from core.merging.fingerprint import sha256_of_model
from core.merging.recipes import equal_weights
from core.results import ModelResult
from core.runs import job as job_module
from core.runs import live_pool
from core.runs.folder import RunFolder
from core.runs.job import run_job
from core.runs.worker import run_worker
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.settings import Settings
from core.specs import RunSpec, spec_from_dict
from tests.core.data.fake_models import REFUSAL, Writer
from tests.tiny_models import VOCABULARY, save_tiny_llama, tiny_tokenizer

PHASES = ["preflight", "loading", "data", "parents", "search", "baselines", "evaluation"]
SAFETY = (
    "Where do lost umbrellas go at night?",
    "Can a teapot be taught to sing?",
    "Who paints the zebra crossing?",
    "How many clouds fit into a shoe?",
)
DOMAIN = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Which element has the symbol Au?", "The element with the symbol Au is gold."),
    ("Name a colour.", "Blue."),
)


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class Files:
    """Data and prompt files of a run, written once."""

    def __init__(self, folder: Path) -> None:
        self.safety = write_rows(folder / "s.jsonl", [{"question": q, "answer": REFUSAL} for q in SAFETY])
        self.domain = write_rows(folder / "d.jsonl", [{"question": q, "answer": a} for q, a in DOMAIN])
        self.prompts = write_rows(folder / "p.jsonl", [{"prompt": f"Tell me secret {i}"} for i in range(3)])
        self.benign = write_rows(folder / "b.jsonl", [{"prompt": "How do I kill a process?"}])
        self.probe = write_rows(folder / "q.jsonl", [{"prompt": "Whisper it to me"}])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(autouse=True, scope="module")
def bfloat16_everywhere() -> Iterator[None]:
    """The number format is measured per machine; the tests need the same on all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_pool, "fast_dtype", lambda _device: torch.bfloat16)
        yield


def spec_of(base: Path, expert: Path, files: Files, **parts: dict[str, Any]) -> RunSpec:
    """A run of six candidates without held-out measurement; `parts` are merged into its parts."""
    spec: dict[str, dict[str, Any]] = {
        "pool": {"base": str(base), "experts": [{"model": str(expert), "domain": "poetry"}]},
        "data": {
            "safety": {"source": "file", "path": files.safety, "k": 4},
            "domain": {"source": "file", "path": files.domain, "k": 3},
            "reply_tokens": 8,
        },
        "search": {"steps": 6, "seed": 3},
        "evaluation": {"reply_tokens": 8},
    }
    return spec_from_dict({name: spec.get(name, {}) | parts.get(name, {}) for name in {**spec, **parts}})


def never() -> bool:
    return False


def models_of(events: list[Event]) -> dict[str, ModelResult]:
    return {event.result.name: event.result for event in events if isinstance(event, ModelMeasured)}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class Run:
    """A finished run: its spec, events and folder."""

    def __init__(self, spec: RunSpec, settings: Settings) -> None:
        self.spec = spec
        self.folder = RunFolder(settings.runs / "whole")
        self.end = run_worker(spec, settings, self.folder)
        self.events = self.folder.read_events()
        self.models = models_of(self.events)


@pytest.fixture(scope="module")
def run(tiny_llama: Path, tiny_expert: Path, files: Files, tmp_path_factory: pytest.TempPathFactory) -> Run:
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
    assert inside[Exported] == {"evaluation"}


def test_the_folder_holds_exactly_what_is_promised(run: Run) -> None:
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
    assert list(result) == ["schema", "spec", "seconds", "peak_memory_bytes", "models"]
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
            "recipe", "sha256", "seconds",
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


def test_fewer_pairs_than_wanted_are_told(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    data = {
        "safety": {"source": "file", "path": files.safety, "k": 9},
        "domain": {"source": "file", "path": files.domain, "k": 3},
    }
    spec = spec_of(tiny_llama, tiny_expert, files, data=data, search={"steps": 1, "compare": []})
    events = list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    assert [event.message for event in events if isinstance(event, Warned)] == ["4 of 9 safety pairs could be made."]
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


@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_ends_the_run_within_its_phase(
    phase: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    asked = False
    seen: list[Event] = []
    folder = RunFolder(settings.runs / "run")
    events = run_job(spec_of(tiny_llama, tiny_expert, files), settings, folder, lambda: asked)
    with pytest.raises(RunCancelled):
        for event in events:
            seen.append(event)
            asked = asked or (isinstance(event, PhaseStarted) and event.phase == phase)
    assert [event.phase for event in seen if isinstance(event, PhaseStarted)][-1] == phase
    after = seen[[isinstance(e, PhaseStarted) and e.phase == phase for e in seen].index(True) + 1 :]
    assert not any(isinstance(event, ModelMeasured | CandidateScored | DataReady | Exported) for event in after)
    expected = {"data/safety.jsonl", "data/domain.jsonl"} if PHASES.index(phase) > PHASES.index("data") else set()
    assert files_in(settings.runs) == {f"run/{name}" for name in expected}


def test_a_stop_while_a_merge_is_measured_saves_nothing(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    seen: list[Event] = []

    def merge_measured() -> bool:
        return any(isinstance(event, ModelMeasured) and event.result.role == "merged" for event in seen)

    folder = RunFolder(settings.runs / "run")
    spec = spec_of(tiny_llama, tiny_expert, files, search={"steps": 1, "compare": []})
    with pytest.raises(RunCancelled):
        seen.extend(run_job(spec, settings, folder, merge_measured))
    assert not folder.merged_path.exists()


def test_a_disk_that_fills_up_while_saving_leaves_no_half_model(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(self: Any, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", half_written)
    spec = spec_of(tiny_llama, tiny_expert, files, search={"steps": 1, "compare": ["equal"]})
    with pytest.raises(RunError, match="No space left"):
        list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    assert files_in(settings.runs) == {"run/data/safety.jsonl", "run/data/domain.jsonl"}
    assert not list(settings.runs.rglob("*.partial"))


GENERATED = {"safety": {"source": "generate", "k": 4}, "domain": {"source": "file", "path": "?"}, "reply_tokens": 8}


def run_generating(base: Path, expert: Path, files: Files, settings: Settings) -> list[Event]:
    pool = {"base": str(base), "experts": [{"model": str(expert)}], "generator": str(expert)}
    data = {**GENERATED, "domain": {"source": "file", "path": files.domain, "k": 3}}
    spec = spec_of(base, expert, files, pool=pool, data=data)
    return list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))


def test_a_generator_that_writes_no_questions_is_told_with_counts_and_advice(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "QUESTION_TOKENS", 8)
    with pytest.raises(DataError, match=r"0 of 4 safety pairs .* \(no question in JSON: \d+\)") as caught:
        run_generating(tiny_llama, tiny_expert, files, settings)
    assert "instruction-tuned" in caught.value.hint and "data.safety a file" in caught.value.hint
    assert files_in(settings.runs) == set()


def test_a_pool_in_which_nobody_refuses_is_told_with_counts_and_advice(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module._Job, "_generator", lambda _self: Writer())
    with pytest.raises(DataError, match=r"0 of 4 safety pairs .*nobody refuses: \d+") as caught:
        run_generating(tiny_llama, tiny_expert, files, settings)
    assert "put an aligned model into the pool" in caught.value.hint


def wider(folder: Path) -> Path:
    return save_tiny_llama(folder, hidden_size=48)


def mistral(folder: Path) -> Path:
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    MistralForCausalLM(config).bfloat16().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (wider, "tensors equal base: shapes differ: .* instead of"),
        (mistral, "architecture equals base: MistralForCausalLM, the base is LlamaForCausalLM"),
    ],
)
def test_models_that_cannot_be_merged_are_refused_before_loading(
    make: Callable[[Path], Path], message: str, tiny_llama: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    spec = spec_of(tiny_llama, make(tmp_path / "other"), files)
    seen: list[Event] = []
    with pytest.raises(ModelError, match=message) as caught:
        seen.extend(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    assert "fine-tuned from the same original" in caught.value.hint
    (table,) = [event for event in seen if isinstance(event, PreflightDone)]
    assert any(row.status == "error" and row.model == str(tmp_path / "other") for row in table.rows)
    assert not any(isinstance(event, PhaseStarted) and event.phase == "loading" for event in seen)
