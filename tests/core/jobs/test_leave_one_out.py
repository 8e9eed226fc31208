"""`evaluation.leave_one_out`: the run's own merge without each expert in turn, measured and resumed like a baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.events import Event, Finished, ModelMeasured, PhaseStarted, Warned
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.errors import SpecError
from core.evaluation.audit import expert_costs
from core.evaluation.replies import read_replies
from core.jobs.worker import resume_worker, run_worker
from core.merging.recipes import Recipe
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.core.jobs.resuming import DEAD, Killed, nth, without_times
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import Files, models_of, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "second", nudge_seed=2)


def spec_with(base: Path, experts: list[Path], files: Files) -> RunSpec:
    return spec_of(
        base,
        experts[0],
        files,
        pool={"experts": [{"model": str(expert), "domain": "poetry"} for expert in experts]},
        search={"steps": 4, "seed": 3, "compare": ["equal"]},
        evaluation={"prompts": files.prompts, "reply_tokens": 8, "leave_one_out": True},
    )


def figures(folder: RunFolder) -> dict[str, object]:
    return {name: without_times(model.model_dump()) for name, model in models_of(folder.read_events()).items()}


def test_each_expert_is_left_out_in_turn_and_a_killed_run_continues(
    tiny_llama: Path, tiny_expert: Path, second: Path, files: Files, settings: Settings
) -> None:
    spec = spec_with(tiny_llama, [tiny_expert, second], files)
    whole = RunFolder(settings.runs / "whole")
    run_worker(spec, settings, whole)
    events = whole.read_events()
    assert isinstance(events[-1], Finished), events[-1]
    results = models_of(events)
    left_out = {f"without {one}": other for one, other in ((tiny_expert, second), (second, tiny_expert))}
    assert list(results) == [str(tiny_llama), str(tiny_expert), str(second), "equal", *left_out, "evomm"]
    merge = Recipe.model_validate(results["evomm"].recipe)
    for name, other in left_out.items():
        result = results[name]
        assert (result.role, Recipe.model_validate(result.recipe).experts) == ("baseline", (str(other),))
        assert Recipe.model_validate(result.recipe) == merge.without(name.removeprefix("without "))
        assert result.sha256 not in (results["evomm"].sha256, results[str(other)].sha256)
        assert result.alignment and result.ce_safety is not None
    assert [path.name for path in (whole.path / "baselines").iterdir()] == ["equal"]
    (total,) = [event.total for event in events if isinstance(event, PhaseStarted) and event.phase == "evaluation"]
    assert total == 4
    costs = expert_costs(list(results.values()), read_replies(whole.path / "replies", results))
    assert {cost.expert for cost in costs} == {str(tiny_expert), str(second)}
    assert {cost.cost.n for cost in costs} == {3}
    reached = nth(ModelMeasured, 5)

    def kill(event: Event) -> None:
        if reached(event):
            raise Killed

    folder = RunFolder(settings.runs / "killed")
    with pytest.raises(Killed):
        run_worker(spec, settings, folder, on_event=kill)
    folder.write_worker(DEAD)
    assert isinstance(resume_worker(settings, folder), Finished)
    assert figures(folder) == figures(whole)


def test_a_single_expert_is_not_left_out_and_a_warning_says_so(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    folder = RunFolder(settings.runs / "one")
    run_worker(spec_with(tiny_llama, [tiny_expert], files), settings, folder)
    events = folder.read_events()
    assert list(models_of(events)) == [str(tiny_llama), str(tiny_expert), "equal", "evomm"]
    assert ["evaluation.leave_one_out" in event.message for event in events if isinstance(event, Warned)].count(
        True
    ) == 1


def test_an_expert_without_which_no_merge_is_left_is_reported_and_the_run_continues(
    tiny_llama: Path, tiny_expert: Path, second: Path, files: Files, settings: Settings
) -> None:
    spec = spec_with(tiny_llama, [tiny_expert, second], files).model_dump(mode="json")
    spec["search"] |= {"optimizer": "cocktail", "temperature": 1e-6, "compare": []}
    folder = RunFolder(settings.runs / "alone")
    run_worker(spec_from_dict(spec), settings, folder)
    events = folder.read_events()
    assert isinstance(events[-1], Finished), events[-1]
    results = models_of(events)
    assert Recipe.model_validate(results["cocktail"].recipe).weights == (0.0, 0.0, 1.0)
    assert [name for name in results if name.startswith("without ")] == [f"without {tiny_expert}"]
    (warned,) = [event for event in events if isinstance(event, Warned) and f"'without {second}'" in event.hint]
    assert warned.message


def test_the_time_estimate_counts_them(tiny_llama: Path, tiny_expert: Path, second: Path, files: Files) -> None:
    from core.preflight.resources import _measured_count

    spec = spec_with(tiny_llama, [tiny_expert, second], files)
    assert _measured_count(spec) == 7
    assert _measured_count(spec_with(tiny_llama, [second], files)) == 4


def test_a_method_that_needs_all_models_is_refused() -> None:
    experts = [{"model": "lab/a"}, {"model": "lab/b"}]
    spec = {
        "pool": {"base": "lab/base", "experts": experts},
        "data": {"safety": {"source": "file", "path": "s.jsonl"}},
        "search": {"method": "model_stock"},
        "evaluation": {"leave_one_out": True},
    }
    with pytest.raises(SpecError, match="model_stock"):
        spec_from_dict(spec)
    assert spec_from_dict(spec | {"evaluation": {}})
