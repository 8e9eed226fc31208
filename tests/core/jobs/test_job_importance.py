"""Runs by methods that need importance scores: resumed runs and saved candidates have the weights that were scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.contracts.events import CandidateScored, Event, Failed, Finished, ImportanceScored, Progress
from core.contracts.merge_methods import METHODS, rival_methods
from core.contracts.run_spec import RunSpec
from core.errors import DataError, RunError, SpecError
from core.jobs import importance_step
from core.jobs.export_worker import run_export
from core.jobs.merge_job import run_job
from core.jobs.worker import run_worker
from core.models.chat_format import encode_pair
from core.runs.candidates import find_candidate
from core.runs.folder import RunFolder
from core.search.importance import SNIP, SQUARES
from core.settings import Settings
from tests.core.data.fake_models import REFUSAL
from tests.core.jobs.resuming import RunHarness, assert_same_end, no_work, nth
from tests.core.merging.rivals import references
from tests.raising import raises
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import DOMAIN, SAFETY, Files, models_of, never, spec_of, write_rows

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")
NEEDY = tuple(name for name in rival_methods() if METHODS[name].importance)


class Models(NamedTuple):
    """Folders of tiny models."""

    ancestor: Path
    base: Path
    experts: tuple[Path, Path]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    ancestor, base, one, other = (
        save_tiny_llama(folder / name, nudge_seed=seed)
        for name, seed in (("ancestor", None), ("base", 3), ("one", 4), ("other", 5))
    )
    return Models(ancestor, base, (one, other))


def spec_for(method: str, tiny: Models, files: Files, **parts: Any) -> RunSpec:
    search = {"method": method, "steps": 3, "compare": ["equal"]} | parts.pop("search", {})
    pool = {"ancestor": str(tiny.ancestor)} if METHODS[method].needs_ancestor else {}
    pool |= parts.pop("pool", {})
    return spec_of(tiny.base, tiny.experts[0], files, search=search, pool=pool, **parts)


@pytest.fixture(scope="module", params=NEEDY)
def run(
    request: pytest.FixtureRequest,
    bfloat16_everywhere: None,
    tiny: Models,
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[RunFolder, Settings]:
    """A finished run of each method."""
    home = tmp_path_factory.mktemp("run")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0)
    folder = RunFolder(settings.runs / "whole")
    end = run_worker(spec_for(request.param, tiny, files), settings, folder)
    assert isinstance(end, Finished), end
    return folder, settings


def new_folder(settings: Settings) -> RunFolder:
    folder = RunFolder(settings.runs / "run")
    folder.create()
    return folder


def scored(events: list[Event]) -> ImportanceScored:
    (event,) = [event for event in events if isinstance(event, ImportanceScored)]
    return event


def test_scores_are_computed_once_after_the_data_and_logged(run: tuple[RunFolder, Settings]) -> None:
    events = list(run[0].read_events())
    event = scored(events)
    kinds = [one.kind for one in events]
    assert kinds.index("data_ready") < kinds.index("importance_scored") < kinds.index("candidate_scored")
    pairs = {"led": 2 * (len(SAFETY) + len(DOMAIN)), "alignmerge": len(SAFETY)}
    assert event.pairs == pairs[event.method] and event.seconds > 0 and len(event.sha256) == 64
    assert any(isinstance(one, Progress) and one.message == "importance scores" for one in events)


def test_every_saved_candidate_has_the_weights_that_were_scored(
    run: tuple[RunFolder, Settings], tmp_path: Path
) -> None:
    folder, settings = run
    steps: list[str] = []
    request = find_candidate(folder, None, alpha=0.3, target=tmp_path / "best")
    sha256 = run_export(request, settings, steps.append)
    assert sha256 == models_of(folder.read_events())["evomm"].sha256
    assert any("importance scores" in step for step in steps)
    other = find_candidate(folder, 1, target=tmp_path / "other")
    assert run_export(other, settings, steps.append) == run_export(
        find_candidate(folder, 1, target=tmp_path / "again"), settings, steps.append
    )
    text = (tmp_path / "best" / "mergekit_config.yml").read_text(encoding="utf-8")
    assert "from the recipe and the run's training pairs" in text.replace("\n# ", " ")


def test_a_candidate_is_not_saved_with_other_scores(run: tuple[RunFolder, Settings], tmp_path: Path) -> None:
    folder, settings = run
    copied = RunFolder(Path(shutil.copytree(folder.path, tmp_path / "copied")))
    digest = scored(list(folder.read_events())).sha256
    copied.events_path.write_text(copied.events_path.read_text().replace(digest, "0" * 64))
    with raises(RunError, "importance-changed"):
        run_export(find_candidate(copied, 1, target=tmp_path / "other"), settings, lambda _step: None)
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module", params=NEEDY)
def bench(
    request: pytest.FixtureRequest,
    bfloat16_everywhere: None,
    tiny: Models,
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunHarness:
    home = tmp_path_factory.mktemp("resumed")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0)
    return RunHarness(spec_for(request.param, tiny, files), settings, no_work())


@pytest.mark.parametrize("kind", [ImportanceScored, CandidateScored])
def test_a_killed_run_ends_the_same(kind: type[Event], bench: RunHarness) -> None:
    whole = bench.run_whole()
    folder = bench.start(f"killed-{kind.__name__}", nth(kind, 1))
    bench.resume(folder)
    assert_same_end(folder, whole)
    scored(list(folder.read_events()))
    shutil.rmtree(whole.folder.path)


def test_a_resumed_run_refuses_other_scores(bench: RunHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.start("changed", nth(CandidateScored, 1))
    monkeypatch.setattr(importance_step, "SNIP", SQUARES)
    monkeypatch.setattr(importance_step, "SQUARES", SNIP)
    bench.resume(folder)
    end = list(folder.read_events())[-1]
    assert isinstance(end, Failed) and "importance scores" in end.message and "pairs" in end.hint


def test_an_expert_without_pairs_is_refused(tiny: Models, files: Files, settings: Settings, tmp_path: Path) -> None:
    rows = [{"question": q, "answer": a, "answered_by": str(tiny.experts[0])} for q, a in DOMAIN]
    experts = [{"model": str(one), "domain": name} for one, name in zip(tiny.experts, ("poetry", "law"), strict=True)]
    domain = {"source": "file", "path": write_rows(tmp_path / "owned.jsonl", rows), "k": 3}
    safety = {"source": "file", "path": files.safety, "k": 4}
    spec = spec_for("led", tiny, files, pool={"experts": experts}, data={"safety": safety, "domain": domain})
    with raises(DataError, "expert-without-pairs"):
        list(run_job(spec, settings, new_folder(settings), never))


def test_an_expert_that_is_the_ancestor_elects_nothing(tiny: Models, files: Files, settings: Settings) -> None:
    twin = shutil.copytree(tiny.ancestor, settings.home / "twin")
    experts = [{"model": str(one), "domain": "poetry"} for one in (tiny.experts[0], twin)]
    spec = spec_for("led", tiny, files, pool={"experts": experts}, search={"steps": 1})
    events = list(run_job(spec, settings, new_folder(settings), never))
    assert isinstance(events[-1], Finished) and not any(e.failure for e in events if isinstance(e, CandidateScored))


@pytest.mark.parametrize("method", NEEDY)
@pytest.mark.parametrize("search", [{"optimizer": "gradient"}, {"compare": ["gradient"]}])
def test_gradient_search_has_no_derivative(method: str, search: dict[str, Any], tiny: Models, files: Files) -> None:
    with pytest.raises(SpecError) as error:
        spec_for(method, tiny, files, search=search)
    assert [problem.kind for problem in error.value.problems] == ["method_without_derivative"]


def slow_scores(
    folder: Path, pairs: list[tuple[str, str]], of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Sum over the pairs of a function of weight and gradient, in float64, one plain backward pass each."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sums = {name: torch.zeros_like(tensor) for name, tensor in model.named_parameters()}
    for question, answer in pairs:
        ids, start = encode_pair(tokenizer, question, answer)
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        model.zero_grad()
        (-sum(logits[place - 1, ids[place]] for place in range(start, len(ids)))).backward()
        for name, tensor in model.named_parameters():
            sums[name] += of(tensor.detach(), tensor.grad)
    return sums


def state(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())


def test_led_of_a_whole_run_equals_the_formula(tiny: Models, files: Files, settings: Settings) -> None:
    spec = spec_for("led", tiny, files, pool={"dtype": "float32"}, search={"steps": 1})
    folder = new_folder(settings)
    list(run_job(spec, settings, folder, never))
    tasks = {"base": (tiny.base, [(q, REFUSAL) for q in SAFETY]), "expert": (tiny.experts[0], list(DOMAIN))}
    scores = {
        (name, by, key): tensor
        for name, (own, pairs) in tasks.items()
        for by, model in (("base", tiny.ancestor), ("own", own))
        for key, tensor in slow_scores(model, pairs, lambda weight, slope: (weight * slope).abs()).items()
    }
    members = {name: state(own) for name, (own, _) in tasks.items()}
    with torch.no_grad():
        expected = references.led(state(tiny.ancestor), members, scores, {"base": 0.1, "expert": 0.4}, 0.9)
    found = load_file(folder.path / "baselines" / "equal" / "model.safetensors")
    equal = torch.cat([(found[key] == tensor.bfloat16()).reshape(-1) for key, tensor in expected.items()])
    assert float(equal.float().mean()) > 0.999  # the order of scores that are nearly equal depends on rounding
    ancestor = {key: tensor.bfloat16() for key, tensor in state(tiny.ancestor).items()}
    changed = torch.cat([(found[key] != ancestor[key]).reshape(-1) for key in expected])
    assert 0.02 < float(changed.float().mean()) < 0.5


def test_alignmerge_of_a_whole_run_equals_the_formula(tiny: Models, files: Files, settings: Settings) -> None:
    spec = spec_for("alignmerge", tiny, files, pool={"dtype": "float32"}, search={"steps": 1})
    folder = new_folder(settings)
    list(run_job(spec, settings, folder, never))
    squares = slow_scores(tiny.base, [(q, REFUSAL) for q in SAFETY], lambda _, slope: slope**2)
    fisher = {key: (tensor / len(SAFETY)).bfloat16() for key, tensor in squares.items()}
    names = ("alignment_weight", "subspace_share", "budget", "budget_weight")
    published = [METHODS["alignmerge"].parameter(name).default for name in names]
    with torch.no_grad():
        expected = references.AlignMerge(state(tiny.base), [state(tiny.experts[0])], fisher, *published).merge()
    found = load_file(folder.path / "baselines" / "equal" / "model.safetensors")
    equal = torch.cat([(found[key] == tensor.bfloat16()).reshape(-1) for key, tensor in expected.items()])
    assert float(equal.float().mean()) > 0.995  # entries at the subspace's border depend on rounding
