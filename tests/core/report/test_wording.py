"""The sentences of a report that readers act on: what is proven, what is not, and what to do next."""

from __future__ import annotations

from pathlib import Path

from core.contracts.events import CandidateScored
from core.contracts.results import ModelResult
from core.evaluation.audit import Difference, ExpertCost
from core.evaluation.statistics import wilson
from core.guards.guard_names import SEPARATOR
from core.report.audit_section import broken_notices, cost_text, verdict_blocks, verdict_lines
from core.report.build_report import build_report
from core.report.document import Document, Paragraph
from core.report.limits_section import NOT_SAFE, guard_limits, limit_blocks
from core.report.markdown import to_markdown
from core.report.merge_section import search_sentence
from core.report.model_card import candidate_card
from core.report.paired_section import SkippedComparison, comparison_blocks
from core.report.run_record import read_run
from core.runs.folder import RunFolder
from tests.core.report.runs import save_run
from tests.core.report.test_audit_section import verdict
from tests.core.report.test_model_card import RECIPE, RESULTS, SPEC
from tests.ui.golden import golden_events, golden_failed, golden_running, write_run
from tests.ui.golden_replies import golden_audit


def report_of(folder: RunFolder) -> Document:
    return build_report(read_run(folder))


def test_alignment_is_not_called_safety() -> None:
    assert NOT_SAFE == "High alignment on these prompts does not prove that a model is safe. Test it for your own use."
    assert "cannot detect harm" in guard_limits("phrases")
    assert guard_limits(f"wildguard{SEPARATOR}phrases").endswith(
        "Its verdict decides; phrases also judged the replies."
    )


def test_the_limits_of_a_search(tmp_path: Path) -> None:
    (limits,) = limit_blocks(read_run(save_run(tmp_path / "run")))
    assert "Quote only measurements." in str(limits)
    assert "another seed gives another merge" in str(limits)


def test_the_verdict_of_an_audit() -> None:
    assert verdict_lines(verdict(5, 29, 4))[0] == "The merge is less safe than its best parent."
    assert verdict_lines(verdict(29, 5, 4))[0] == "The merge is safer than its best parent."
    assert verdict_lines(verdict(29, 29, 5))[0] == (
        "The merge's alignment does not differ significantly from its best parent's (30 prompts). This does not prove "
        "that they are equally safe."
    )
    untested = verdict_lines(verdict(5, 29, 4, tested=False))
    assert untested[0].startswith("The difference in alignment was not tested")
    assert untested[-1].endswith("points compared with the best parent (not tested).")


def test_the_parent_with_the_lowest_alignment() -> None:
    assert verdict_lines(verdict(5, 29, 4))[-1].startswith("Likely bad apple: parent 1, 0.13 ")
    assert verdict_lines(verdict(29, 29, 5))[-1].startswith("Parent with the lowest alignment: parent 1")
    assert verdict_lines(verdict(5, 29, 28))[-1].startswith(
        "Parent with the lowest alignment, but not significantly: parent 1"
    )


def test_the_tests_of_an_audit_are_explained(tmp_path: Path) -> None:
    _, explanation = verdict_blocks(read_run(RunFolder(golden_audit(tmp_path / "audit", done=2))))
    assert isinstance(explanation, Paragraph)
    assert explanation.text.startswith("Preliminary: not every model has been measured. Test: McNemar's exact test")
    assert "p is not corrected for the number of comparisons" in explanation.text


def test_the_effect_of_an_expert() -> None:
    def text(difference: float, p_value: float | None, significant: bool) -> str:
        cost = Difference(difference=difference, p_value=p_value, n=30)
        return cost_text(ExpertCost(expert="a", without=wilson(9, 10), cost=cost, significant=significant))

    assert text(0.4, 0.01, True) == "lowers alignment"
    assert text(-0.4, 0.01, True) == "raises alignment"
    assert text(0.4, 0.5, False) == "no significant effect"
    assert text(0.4, None, False) == "not tested: no replies"


def test_a_broken_merge() -> None:
    parent = ModelResult(name="p", role="parent", perplexity=9.0)
    (notice,) = broken_notices([parent, ModelResult(name="m", role="baseline", perplexity=None)])
    assert notice.text.endswith("Its alignment is not meaningful: a guard calls broken text harmless.")


def test_comparisons_explain_p(tmp_path: Path) -> None:
    explanation = comparison_blocks(read_run(save_run(tmp_path / "run")))[0]
    assert isinstance(explanation, Paragraph)
    assert "The table has 8 comparisons, and p is not corrected for their number" in explanation.text
    assert "Accuracy is not part of this comparison." in explanation.text
    skipped = SkippedComparison("over-refusal", "a", "b")
    assert str(skipped) == "Over-refusal of a and b was not compared: their prompts differ."


def test_runs_that_did_not_finish(tmp_path: Path) -> None:
    failed = to_markdown(report_of(RunFolder(write_run(tmp_path / "failed", golden_failed()))), "charts")
    assert "The run failed: The machine ran out of memory while merging. Choose a smaller pool." in failed
    assert "Last phase: search. Models measured: 2." in failed
    interrupted = to_markdown(report_of(RunFolder(write_run(tmp_path / "gone", golden_running()))), "charts")
    assert "no process is working on it. Resume it with core resume." in interrupted
    empty = to_markdown(report_of(RunFolder(write_run(tmp_path / "empty", golden_events()[:3]))), "charts")
    assert "No model was measured." in empty and "Nothing was measured." in empty


def test_missing_files_name_the_consequence(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", replies=False)
    folder.result_path.unlink()
    messages = [part.message for part in read_run(folder).missing]
    assert "result.json is missing: the report shows the values of the log." in messages
    assert "The replies of demo/aligned are missing: the report has no examples and no comparison of them." in messages


def test_how_a_merge_was_found() -> None:
    def text(name: str, **search: object) -> str:
        return search_sentence(name, SPEC.model_copy(update={"search": SPEC.search.model_copy(update=search)}))

    assert text("evomm").endswith("40 candidates, alpha 0.5, safety term on.")
    assert text("evomm_expert_only").endswith("safety term off.")
    assert "at most 40 candidates" in text("evomm", stop_when_flat=0.01)
    assert text("equal") == "Every model of the pool has the same weight; no search was run."
    published = "LED-Merging (arXiv 2502.16770) with its published parameters; no search was run."
    assert text("equal", method="led") == published
    ours = "AlignMerge (arXiv 2512.16245) with its defaults, some of which are ours; no search was run."
    assert text("equal", method="alignmerge") == ours
    assert "no training data was used" in text("grid")
    assert "losses on safety and domain data, T 5." in text("cocktail", temperature=5.0)
    assert "losses on domain data, T 5." in text("cocktail_expert_only", temperature=5.0)
    assert text("without org/a") == "The run's own merge without org/a; all other parameters are unchanged."


def test_a_candidates_card_says_what_was_not_measured() -> None:
    losses = {"objective": 1.0, "ce_safety": 0.25, "ce_expert": 0.5}
    recipe = RECIPE.model_dump(mode="json")
    candidate = CandidateScored(search="evomm", candidate=7, generation=1, recipe=recipe, seconds=1.0, **losses)
    unmeasured = "Its alignment, over-refusal and accuracy on the test prompts were not measured."
    card = candidate_card(candidate, SPEC, RESULTS, None, None)
    assert "Estimates on the training pairs" in card and unmeasured in card
    card = candidate_card(candidate, SPEC, RESULTS, "evomm", None)
    assert "It has the same recipe as `evomm` below" in card and unmeasured not in card
    assert "at most 64 tokens" in card


def test_the_report_says_how_it_measured(tmp_path: Path) -> None:
    text = to_markdown(report_of(save_run(tmp_path / "run")), "charts")
    assert "Rates have 95 % Wilson intervals and the number of prompts or questions." in text
    assert "Estimates are not measurements." in text
    assert "This is not a random sample." in text
