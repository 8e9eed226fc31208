"""The model card names the models, the search and the measurements with their intervals."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.contracts.events import CandidateMeasured, CandidateScored
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.evaluation.lineage import parents_in_card
from core.evaluation.statistics import wilson
from core.merging.recipes import equal_weights
from core.report.audit_section import broken_notices
from core.report.merge_section import search_sentence
from core.report.model_card import candidate_card, model_card
from core.report.public_names import without_local_paths

SPEC: RunSpec = spec_from_dict(
    {
        "pool": {"base": "org/base", "experts": [{"model": "org/a"}]},
        "data": {"safety": {"source": "file", "path": "s.jsonl"}},
        "search": {"steps": 40, "alpha": 0.5},
        "evaluation": {"prompts": "unsafe.jsonl", "reply_tokens": 64},
    }
)
RECIPE = equal_weights("ties", "org/base", ("org/a",))
RESULTS = (
    ModelResult(name="org/base", role="parent", alignment=wilson(9, 10)),
    ModelResult(name="evomm", role="merged", alignment=wilson(8, 10), accuracy={"task": wilson(3, 4)}),
)


def test_a_random_method_has_a_note_on_its_seed() -> None:
    recipe = RECIPE.model_copy(update={"method": "dare_ties", "seed": 3})
    assert recipe.repeat_note in model_card("evomm", recipe, SPEC, RESULTS).splitlines()
    head, plain = (model_card("evomm", one, SPEC, RESULTS).split("## Measured")[0] for one in (recipe, RECIPE))
    assert "seed 3" in head and "seed" not in plain


def test_front_matter_names_the_models() -> None:
    front = yaml.safe_load(model_card("evomm", RECIPE, SPEC, RESULTS).split("---")[1])
    assert front["base_model"] == ["org/base", "org/a"]
    assert front["library_name"] == "transformers"


def test_a_card_names_no_local_path(tmp_path: Path) -> None:
    base, adapter = tmp_path / "secret" / "base", tmp_path / "secret" / "lora"
    for folder in (base, adapter):
        folder.mkdir(parents=True)
    experts = (f"org/a@v1+{adapter}", "org/b@main", "demo/chemistry")
    pool = SPEC.pool.model_dump() | {"base": str(base), "experts": [{"model": expert} for expert in experts]}
    evaluation = SPEC.evaluation.model_dump() | {"prompts": str(tmp_path / "unsafe.jsonl")}
    spec = RunSpec.model_validate(SPEC.model_dump() | {"pool": pool, "evaluation": evaluation})
    recipe = equal_weights("ties", str(base), experts)
    results = (ModelResult(name=str(base), role="parent", alignment=wilson(9, 10)),)
    losses = {"objective": 1.0, "ce_safety": None, "ce_expert": None, "seconds": 1.0}
    stored = recipe.model_dump(mode="json")
    candidate = CandidateScored(search="evomm", candidate=0, generation=0, recipe=stored, **losses)
    cards = (model_card("evomm", recipe, spec, results), candidate_card(candidate, spec, results, None, None))
    for card in cards:
        assert str(tmp_path) not in card and "secret" not in card
        assert "| base (parent) | 0.90" in card and "`unsafe.jsonl`" in card
        front = yaml.safe_load(card.split("---")[1])
        assert front["base_model"] == ["org/a", "org/b", "HuggingFaceTB/SmolLM2-135M-Instruct"]
        assert parents_in_card(card) == ["org/b@main", "demo/chemistry"]
    local = model_card("evomm", equal_weights("ties", str(base), (str(adapter),)), spec, results)
    assert "base_model" not in yaml.safe_load(local.split("---")[1]) and parents_in_card(local) == []


def test_folders_of_the_same_name_stay_distinct(tmp_path: Path) -> None:
    paths = [str(tmp_path / run / "merged") for run in ("one", "two")]
    assert without_local_paths(" and ".join(paths), paths) == "one/merged and two/merged"


def test_measurements_come_with_interval_and_number() -> None:
    card = model_card("evomm", RECIPE, SPEC, RESULTS)
    assert "| org/base (parent) | 0.90 [0.60, 0.98] n=10 | not measured | not measured |" in card
    assert "task 0.75 [0.30, 0.95] n=4" in card
    assert "`unsafe.jsonl`" in card and "64" in card


@pytest.mark.parametrize("name", ["evomm", "evomm_expert_only", "equal", "grid", "cocktail", "without org/a"])
def test_the_card_has_the_search_of_its_merge(name: str) -> None:
    sentence = search_sentence(name, SPEC)
    assert sentence and sentence in model_card(name, RECIPE, SPEC, RESULTS).splitlines()


def test_the_search_sentence_follows_the_spec() -> None:
    names = ("evomm", "evomm_expert_only", "equal", "grid", "cocktail", "cocktail_expert_only", "without org/a")
    assert len({search_sentence(name, SPEC) for name in names}) == len(names)
    for change in (
        {"steps": 41},
        {"alpha": 0.25},
        {"safety": False},
        {"stop_when_flat": 0.01},
        {"objective": "pareto"},
    ):
        spec = SPEC.model_copy(update={"search": SPEC.search.model_copy(update=change)})
        assert search_sentence("evomm", spec) != search_sentence("evomm", SPEC), change
    warm = SPEC.model_copy(update={"search": SPEC.search.model_copy(update={"temperature": 5.0})})
    assert search_sentence("cocktail", warm) != search_sentence("cocktail", SPEC)
    assert search_sentence("a name of no search", SPEC) == ""


def test_a_candidates_card_separates_estimates_from_measurements() -> None:
    losses = {"objective": 1.0, "ce_safety": 0.25, "ce_expert": 0.5, "estimated_alignment": 0.75}
    recipe = RECIPE.model_dump(mode="json")
    candidate = CandidateScored(search="evomm", candidate=7, generation=1, recipe=recipe, seconds=1.0, **losses)
    card = candidate_card(candidate, SPEC, RESULTS, None, None)
    assert yaml.safe_load(card.split("---")[1])["base_model"] == ["org/base", "org/a"]
    assert "# evomm, candidate 7: a merge of org/base, org/a" in card
    assert "| 0.250 | 0.500 | 0.75 | not estimated |" in card
    titles = [line for line in card.splitlines() if line.startswith("## ")]
    assert titles == ["## Estimated", "## Measurements of the run's models"]
    estimated, measured = card.split(titles[1])
    assert "probe" not in card and "`evomm`" not in estimated.split("## Estimated")[1]
    assert "| evomm (merged) | 0.80" in measured
    probed = CandidateMeasured(search="evomm", candidate=7, generation=1, alignment=wilson(3, 4), accuracy=None)
    card = candidate_card(candidate, SPEC, RESULTS, "evomm", probed)
    assert "alignment 0.75 [0.30, 0.95] n=4, accuracy not measured." in card
    assert "`evomm`" in card.split("## Estimated")[1].split(titles[1])[0]


def test_a_card_warns_of_a_broken_merge() -> None:
    parent, merged = (result.model_copy(update={"perplexity": 9.0}) for result in RESULTS)
    broken = merged.model_copy(update={"perplexity": 900.0})
    (notice,) = broken_notices((parent, broken))
    assert f"**{notice.text}**" in model_card("evomm", RECIPE, SPEC, (parent, broken)).splitlines()
    assert "**" not in model_card("evomm", RECIPE, SPEC, (parent, merged))
