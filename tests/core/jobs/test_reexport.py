"""Any candidate of a run saved as a model: the weights that were scored, and a card that says what was not measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.cli.main import main
from core.contracts.events import CandidateScored, Finished
from core.data.training_pairs import read_samples
from core.errors import ModelError, RunError
from core.jobs import reexport
from core.jobs.export_worker import run_export
from core.jobs.worker import resume_worker, run_worker
from core.preflight import resources
from core.runs.candidates import find_candidate
from core.runs.exports import latest_export
from core.runs.folder import RunFolder
from core.runs.process import acquire_lock
from core.runs.view import fold
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.settings import Settings
from tests.raising import raises
from tests.tiny_runs import Files, files_in, models_of, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


class Run(NamedTuple):
    """A finished run."""

    folder: RunFolder
    settings: Settings
    best: CandidateScored

    def copy(self, place: Path) -> RunFolder:
        return RunFolder(Path(shutil.copytree(self.folder.path, place)))


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
    search = {"steps": 8, "method": "dare_ties", "compare": ["evomm_expert_only"]}
    spec = spec_of(tiny_llama, tiny_expert, files, search=search, evaluation={"probe": files.probe})
    folder = RunFolder(settings.runs / "whole")
    assert isinstance(run_worker(spec, settings, folder), Finished)
    best = fold(folder.read_events()).best()
    assert best is not None
    return Run(folder, settings, best)


def ignore(_step: str) -> None:
    """Nobody shows the steps."""


def test_the_best_candidate_is_the_runs_own_merge(run: Run, tmp_path: Path) -> None:
    request = find_candidate(run.folder, None, alpha=0.3, target=tmp_path / "best")
    assert request.candidate == run.best
    sha256 = run_export(request, run.settings, ignore)
    assert sha256 == models_of(run.folder.read_events())["evomm"].sha256
    assert files_in(tmp_path / "best") == files_in(run.folder.merged_path)
    for name in files_in(tmp_path / "best") - {"README.md"}:
        assert (tmp_path / "best" / name).read_bytes() == (run.folder.merged_path / name).read_bytes()
    assert "same recipe as `evomm` below" in (tmp_path / "best" / "README.md").read_text()


def test_the_card_names_the_searchs_own_merge_where_another_search_chose_it_as_well(run: Run, tmp_path: Path) -> None:
    copied = run.copy(tmp_path / "copied")
    own = models_of(run.folder.read_events())["evomm"]
    events = [json.loads(line) for line in copied.events_path.read_text().splitlines()]
    for event in events:
        if event["kind"] == "model_measured" and event["result"]["role"] != "parent":
            event["result"] |= {"recipe": own.recipe, "sha256": own.sha256}
    measured = [event["result"]["name"] for event in events if event["kind"] == "model_measured"]
    assert measured.index("evomm_expert_only") < measured.index("evomm")
    copied.events_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    request = find_candidate(copied, None, alpha=0.3, target=tmp_path / "best")
    run_export(request, run.settings, ignore)
    assert "same recipe as `evomm` below" in (tmp_path / "best" / "README.md").read_text()


def test_another_candidate_scores_as_the_log_says(run: Run, tmp_path: Path) -> None:
    view = fold(run.folder.read_events())
    measured = [model.recipe for model in view.models]
    other = next(c for c in view.candidates if c.search == "evomm" and c.recipe not in measured)
    request = find_candidate(run.folder, other.candidate, target=tmp_path / "other")
    run_export(request, run.settings, ignore)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "other", dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "other")
    safety, domain = (read_samples(run.folder.data_path(name)) for name in ("safety", "domain"))
    sets = (TrainingSet(tokenizer, safety, opening=REFUSAL_OPENING), TrainingSet(tokenizer, domain, opening=None))
    scores = Scorer(model, *sets).score()
    assert scores.safety and scores.expert
    assert (scores.safety.loss, scores.expert.loss) == (other.ce_safety, other.ce_expert)
    card = (tmp_path / "other" / "README.md").read_text()
    assert "accuracy on the test prompts were not measured" in card
    assert f"| {other.ce_safety:.3f} | {other.ce_expert:.3f} |" in card


def test_a_model_that_was_changed_since_is_noticed_before_anything_is_saved(
    run: Run, tiny_expert: Path, tmp_path: Path
) -> None:
    copied = run.copy(tmp_path / "copied")
    changed = copied.events_path.read_text()
    for result in models_of(run.folder.read_events()).values():
        if result.role == "parent" and result.name == str(tiny_expert):
            changed = changed.replace(str(result.sha256), "0" * 64)
    copied.events_path.write_text(changed)
    with raises(RunError, "weights-changed"):
        run_export(find_candidate(copied, 0), run.settings, ignore)
    assert not (copied.path / "candidates" / "0").exists()
    status = latest_export(copied)
    assert status is not None and (status.state, status.candidate) == ("failed", 0)
    assert str(tiny_expert) in status.message and status.hint


def test_nothing_is_loaded_while_a_run_is_at_work_or_memory_is_short(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    request = find_candidate(run.folder, 0, target=tmp_path / "first")
    with (
        acquire_lock(run.settings.runs, tmp_path / "busy"),
        raises(RunError, "machine-busy"),
    ):
        run_export(request, run.settings, steps.append)
    monkeypatch.setattr(reexport, "available_memory_bytes", lambda: 0)
    with raises(ModelError, "no-memory"):
        run_export(request, run.settings, steps.append)
    assert steps == [] and not (tmp_path / "first").exists()
    monkeypatch.setattr(reexport, "available_memory_bytes", resources.available_memory_bytes)
    run_export(request, run.settings, steps.append)
    assert steps[-1] == f"saving to {tmp_path / 'first'}"


def test_a_stopped_run_exports_candidates_and_is_resumed_unchanged(run: Run, tmp_path: Path) -> None:
    stopped = run.copy(tmp_path / "stopped")
    lines = run.folder.events_path.read_text().splitlines(keepends=True)
    scored = [number for number, line in enumerate(lines) if '"candidate_scored"' in line]
    stopped.events_path.write_text("".join(lines[: scored[5]]) + '{"kind": "cancelled"}\n')
    shutil.rmtree(stopped.merged_path)
    request = find_candidate(stopped, 2)
    run_export(request, run.settings, ignore)
    end = resume_worker(run.settings, stopped)
    assert isinstance(end, Finished)
    merged = {folder: models_of(folder.read_events())["evomm"].sha256 for folder in (run.folder, stopped)}
    assert merged[stopped] == merged[run.folder]
    assert (stopped.path / "candidates" / "2" / "model.safetensors").is_file()


def test_the_command_saves_and_says_where(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAFEMERGE_HOME", str(run.settings.home))
    monkeypatch.setenv("SAFEMERGE_RUNS", str(run.settings.runs))
    assert main(["export", str(run.folder.path), "--candidate", "1", "--search", "evomm_expert_only", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["path"] == str(run.folder.path / "candidates" / "evomm_expert_only-1")
    candidates = fold(run.folder.read_events()).candidates
    logged = next(c for c in candidates if (c.search, c.candidate) == ("evomm_expert_only", 1))
    assert said["recipe"] == logged.recipe
    assert (said["ce_safety"], said["ce_expert"]) == (logged.ce_safety, logged.ce_expert)
    assert len(said["sha256"]) == 64
    assert main(["export", str(run.folder.path), "--candidate", "1", "--search", "evomm_expert_only"]) == 1
    assert "exists already" in capfd.readouterr().err
    assert main(["export", str(run.folder.path), "--alpha", "-1"]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run.folder.path)])
    assert ended.value.code == 2
