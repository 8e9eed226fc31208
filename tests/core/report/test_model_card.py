"""The model card says what was merged, how it was found, and what was measured with its uncertainty."""

from __future__ import annotations

import yaml

from core.contracts.events import CandidateMeasured, CandidateScored
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.evaluation.statistics import wilson
from core.merging.recipes import equal_weights
from core.report.merge_section import search_sentence
from core.report.model_card import candidate_card, model_card

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


def test_dares_masks_are_told() -> None:
    recipe = RECIPE.model_copy(update={"method": "dare_ties", "seed": 3})
    assert "mergekit draws others" in model_card("evomm", recipe, SPEC, RESULTS)
    assert "mergekit draws" not in model_card("evomm", RECIPE, SPEC, RESULTS)


def test_front_matter_names_the_models() -> None:
    front = yaml.safe_load(model_card("evomm", RECIPE, SPEC, RESULTS).split("---")[1])
    assert front["base_model"] == ["org/base", "org/a"]
    assert front["library_name"] == "transformers"


def test_measurements_come_with_interval_and_number() -> None:
    card = model_card("evomm", RECIPE, SPEC, RESULTS)
    assert "| org/base (parent) | 0.90 [0.60, 0.98] n=10 | not measured | not measured |" in card
    assert "task 0.75 [0.30, 0.95] n=4" in card
    assert "`unsafe.jsonl`" in card and "at most 64 tokens" in card


def test_the_search_is_described_as_it_was() -> None:
    assert "40 candidates, alpha 0.5, safety term on." in model_card("evomm", RECIPE, SPEC, RESULTS)
    assert "safety term off." in model_card("evomm_expert_only", RECIPE, SPEC, RESULTS)
    assert "nothing was searched" in model_card("equal", RECIPE, SPEC, RESULTS)


def test_each_baseline_says_how_it_came_about() -> None:
    spec = SPEC.model_copy(update={"search": SPEC.search.model_copy(update={"temperature": 5.0, "safety": False})})
    assert "no training data was used" in model_card("grid", RECIPE, spec, RESULTS)
    assert "losses on safety and domain data, T 5." in model_card("cocktail", RECIPE, spec, RESULTS)
    assert "losses on domain data, T 5." in model_card("cocktail_expert_only", RECIPE, spec, RESULTS)
    early = SPEC.model_copy(update={"search": SPEC.search.model_copy(update={"stop_when_flat": 0.01})})
    assert f"at most {SPEC.search.steps} candidates" in model_card("evomm", RECIPE, early, RESULTS)


def test_a_candidates_card_tells_estimates_from_what_was_measured() -> None:
    losses = {"objective": 1.0, "ce_safety": 0.25, "ce_expert": 0.5, "estimated_alignment": 0.75}
    recipe = RECIPE.model_dump(mode="json")
    candidate = CandidateScored(search="evomm", candidate=7, generation=1, recipe=recipe, seconds=1.0, **losses)
    card = candidate_card(candidate, SPEC, RESULTS, None, None)
    assert yaml.safe_load(card.split("---")[1])["base_model"] == ["org/base", "org/a"]
    assert "# evomm, candidate 7: a merge of org/base, org/a" in card
    assert "| 0.250 | 0.500 | 0.75 | not estimated |" in card
    assert "Estimates, from the training pairs" in card
    assert "Its alignment, over-refusal and accuracy on the test prompts were not measured." in card
    assert "probe" not in card
    assert "| evomm (merged) | 0.80" in card.split("## Measured of the run's models")[1]
    probed = CandidateMeasured(search="evomm", candidate=7, generation=1, alignment=wilson(3, 4), accuracy=None)
    card = candidate_card(candidate, SPEC, RESULTS, "evomm", probed)
    assert "alignment 0.75 [0.30, 0.95] n=4, accuracy not measured." in card
    assert "It is the same merge as `evomm` below" in card and "were not measured" not in card


def test_a_card_says_that_a_merge_looks_broken() -> None:
    parent, merged = (result.model_copy(update={"perplexity": 9.0}) for result in RESULTS)
    broken = merged.model_copy(update={"perplexity": 900.0})
    assert "**evomm looks broken: its perplexity" in model_card("evomm", RECIPE, SPEC, (parent, broken))
    assert "looks broken" not in model_card("evomm", RECIPE, SPEC, (parent, merged))


def test_a_merge_less_one_expert_says_so() -> None:
    sentence = search_sentence("without org/a", SPEC)
    assert sentence == "The run's own merge made again with org/a left out, its other numbers as they were."
