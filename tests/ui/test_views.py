"""Views are pure functions from a golden log to HTML: text is escaped, harmful text covered, values are shown."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from core.contracts.events import CheckRow, ModelMeasured, RunStarted, SampleSeen
from core.contracts.optimizers import baselines
from core.contracts.results import GuardAgreement, ModelResult, Rate
from core.contracts.verdicts import UNKNOWN, Verdict
from core.errors import SpecError
from core.merging.recipes import Recipe
from core.runs.view import RunView, fold
from safemerge_ui.errors import RunIsBusy
from safemerge_ui.views.alpha import alpha_view
from safemerge_ui.views.chat_replies import (
    ExamplePrompt,
    Exchange,
    PromptKind,
    Reply,
    exchanges_view,
    prompt_list_view,
    verdict_badge,
)
from safemerge_ui.views.markup import duration, error_notice, notice
from safemerge_ui.views.names import DOMAIN_ONLY, SAFETY_AWARE, model_name, search_name
from safemerge_ui.views.pair_list import PAGE_SIZE, choose_samples, data_summary, page_count, sample_cards
from safemerge_ui.views.pool_overview import pool_overview
from safemerge_ui.views.preflight_table import preflight_table
from safemerge_ui.views.progress import ending, run_line, run_pill, stepper
from safemerge_ui.views.results import best_recipe, best_so_far, recipe_rows, result_table
from tests.ui.golden import (
    START,
    golden_cancelled,
    golden_events,
    golden_failed,
    golden_running,
    golden_spec,
    ties_recipe,
)

HOSTILE = "<img src=x onerror=alert(1)>"


def words(html: str) -> str:
    """The text of HTML, as a person reads it."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.fixture(scope="module")
def finished() -> RunView:
    return fold(golden_events())


@pytest.fixture(scope="module")
def running() -> RunView:
    return fold(golden_running())


def test_every_text_of_a_model_or_person_is_escaped() -> None:
    sample = SampleSeen(
        dataset="domain", question=HOSTILE, answer=HOSTILE, category=HOSTILE, answered_by=HOSTILE, kept=False,
        reason=HOSTILE,
    )  # fmt: skip
    verdict = Verdict(False, None, False, "", 0.0, HOSTILE)
    exchange = Exchange(HOSTILE, "harmful", (Reply(HOSTILE, "done", HOSTILE, verdict), Reply("b", "failed", HOSTILE)))
    view = replace(fold(golden_events()), spec={"pool": {"base": HOSTILE, "experts": []}}, message=HOSTILE)
    recipe = ties_recipe(0.5, 0.5) | {"experts": [HOSTILE]}
    pages = [
        sample_cards([(0, sample)]),
        exchanges_view([exchange]),
        prompt_list_view([ExamplePrompt("harmful", HOSTILE, HOSTILE)]),
        preflight_table([CheckRow(model=HOSTILE, check=HOSTILE, status="error", detail=HOSTILE, hint=HOSTILE)]),
        result_table(replace(view, models=(ModelResult(name=HOSTILE, role="parent"),))),
        run_line(view, HOSTILE, START) + run_pill(view, HOSTILE) + ending(replace(view, status="failed")),
        error_notice(RunIsBusy(HOSTILE)),
        "".join(name for name, _ in recipe_rows(recipe)).replace("<", "&lt;"),
    ]
    for html in pages:
        assert "<img" not in html
        assert "&lt;img" in html


def test_safety_questions_are_covered_and_domain_questions_are_not(finished: RunView) -> None:
    safety = sample_cards(choose_samples(finished.samples, "safety", "all"))
    domain = sample_cards(choose_samples(finished.samples, "domain", "all"))
    assert safety.count("<summary>") == PAGE_SIZE
    assert not re.search(r"<p class=\"sm-question\">", re.sub(r"<details.*?</details>", "", safety, flags=re.S))
    assert "<details" not in domain


def test_covers_keep_their_key_when_samples_arrive(running: RunView, finished: RunView) -> None:
    """The key of a cover names the sample, not its place, so no other text is uncovered when the list grows."""

    def keys(view: RunView) -> dict[str, str]:
        html = sample_cards(choose_samples(view.samples[:20], "safety", "kept"))
        return dict(re.findall(r'data-key="(sample-\d+)".*?<p class="sm-question">(.*?)</p>', html, re.S))

    early = replace(running, samples=running.samples[:9])
    assert set(keys(early).items()) <= set(keys(finished).items())


def test_filters_and_pages(finished: RunView) -> None:
    assert len(choose_samples(finished.samples, "safety", "kept")) == 12
    dropped = choose_samples(finished.samples, "all", "dropped")
    assert len(dropped) == 4 and not any(sample.kept for _, sample in dropped)
    everything = choose_samples(finished.samples, "all", "all")
    assert [number for number, _ in everything] == sorted((n for n, _ in everything), reverse=True)
    assert page_count(everything) == 3
    assert sample_cards(everything, 99) == sample_cards(everything, 3) != sample_cards(everything, 1)


def test_data_summary_counts_before_and_after_the_end(running: RunView, finished: RunView) -> None:
    live = replace(running, data=None)
    for view in (live, finished):
        text = words(data_summary(view))
        assert "12 of 16 safety" in text and "12 of 12 domain" in text
        assert text.count(" 2 ") == 2, "two reasons for dropping, twice each"
    assert data_summary(RunView()) == ""


def test_stepper_marks_the_phase_and_its_share(running: RunView) -> None:
    html = stepper(running)
    assert html.count("sm-step-done") == 4
    assert re.search(r'sm-step-now" aria-current="step">.*?width:\d+%.*?Search', html)
    assert html.count("sm-detail") == 1
    assert stepper(fold(golden_events())).count("sm-step-done") == 8
    assert "sm-step-stopped" in stepper(fold(golden_failed()))
    assert stepper(RunView()) == ""


def test_endings_show_the_error_its_hint_and_warnings() -> None:
    failed = fold(golden_failed())
    assert failed.message in words(ending(failed)) and failed.hint in words(ending(failed))
    assert "sm-notice sm-warn" in ending(fold(golden_cancelled()))
    finished = fold(golden_events())
    assert [warning.message in words(ending(finished)) for warning in finished.warnings] == [True]


def test_elapsed_time_stops_with_the_run(running: RunView, finished: RunView) -> None:
    assert finished.updated_at is not None
    length = duration(finished.updated_at - START)
    assert length in run_line(finished, "r", START + 9e6)
    assert duration(3600) in run_line(running, "r", START + 3600)


def test_result_table_names_roles_and_intervals(finished: RunView) -> None:
    text = words(result_table(finished))
    for model in finished.models:
        assert model_name(model, finished) in text
    assert "85 % 78–90 · n 134" in text
    unsafe = replace(finished, spec=golden_spec(safety=False).model_dump(mode="json"))
    assert DOMAIN_ONLY in words(result_table(unsafe))
    assert SAFETY_AWARE not in words(result_table(unsafe))


def test_baselines_are_shown_by_their_titles() -> None:
    names = list(baselines())
    view = RunView(models=tuple(ModelResult(name=name, role="baseline") for name in names))
    text = words(result_table(view))
    for name in names:
        assert baselines()[name].title in text
    assert "_only" not in text


def test_a_grid_search_uses_no_safety_data(finished: RunView) -> None:
    grid = replace(finished, spec=golden_spec(optimizer="grid").model_dump(mode="json"))
    assert DOMAIN_ONLY in words(result_table(grid))
    line = words(run_line(grid, "r", START))
    assert search_name("grid") in line and "safety-aware" not in line
    assert "safety-aware" in words(run_line(finished, "r", START))


def test_the_facts_of_a_cocktail_are_its_temperature_not_its_steps(finished: RunView) -> None:
    spec = golden_spec(optimizer="cocktail", temperature=5)
    line = words(run_line(replace(finished, spec=spec.model_dump(mode="json")), "r", START))
    assert "temperature 5" in line and "30 steps" not in line
    assert "temperature 5" in words(pool_overview(spec)) and "30" not in words(pool_overview(spec))


def test_a_cocktails_recipe_is_shown_once_it_is_measured() -> None:
    view = RunView(spec={"search": {"optimizer": "cocktail"}})
    assert "sm-empty" in best_so_far(view)
    recipe = {"method": "linear", "base": "b", "experts": ["e"], "weights": [0.4, 0.6], "densities": None}
    merged = ModelResult(name="cocktail", role="merged", recipe=recipe, ce_safety=0.25, ce_expert=0.5)
    text = words(best_so_far(replace(view, models=(merged,))))
    assert "Weight of e 0.600" in text
    assert "0.250 Safety loss" in text


def test_a_search_that_ended_early_is_named_by_its_title(finished: RunView) -> None:
    message = "evomm ended after 24 of 100 candidates: the last two generations differ by less than 0.01 nats"
    text = words(ending(replace(finished, early_ends=(message, message.replace("evomm", "evomm_expert_only")))))
    assert "EvoMM ended after 24 of 100 candidates" in text
    assert f"{search_name('evomm_expert_only')} ended after 24" in text


def test_the_alpha_explorer_shows_the_selected_candidate(finished: RunView) -> None:
    scored = [c for c in finished.candidates if c.search == "evomm" and not c.failure]
    for alpha in (0.0, 0.3, 20.0):
        best = min(scored, key=lambda c: (c.ce_safety + alpha * c.ce_expert, c.ce_expert))
        text = words(alpha_view(finished, alpha))
        assert f"{best.candidate} Candidate" in text
        assert f"{best.candidate}, selected" in text
        assert f"{best.ce_safety + alpha * best.ce_expert:.3f} Objective" in text
    assert "of 29 candidates" in text


def test_the_alpha_explorer_names_the_candidate_of_the_runs_own_alpha(finished: RunView) -> None:
    safe, skilled = (
        finished.candidates[0].model_copy(update={"candidate": i, "ce_safety": s, "ce_expert": e})
        for i, s, e in ((0, 0.1, 2.0), (1, 1.0, 0.1))
    )
    text = words(alpha_view(replace(finished, candidates=(safe, skilled)), 2.0))
    assert "1, selected" in text and "0.3, selects candidate 0." in text


def test_each_experts_own_loss_has_a_column(finished: RunView) -> None:
    assert len(re.findall("<th[ >]", alpha_view(finished, 0.3).split("sm-tall")[1])) == 5
    candidates = tuple(
        finished.candidates[0].model_copy(update={"candidate": i, "ce_safety": s, "ce_expert": e, "expert_losses": own})
        for i, s, e, own in (
            (0, 0.1, 2.0, {"org/b": 1.5, "org/a": 2.5}),
            (1, 1.0, 0.5, {"org/a": 0.25}),
            (2, 2.0, 0.1, {}),
        )
    )
    html = alpha_view(replace(finished, candidates=candidates), 0.3)
    table = html[html.index("sm-tall") :]
    assert [head in words(table) for head in ("Loss: org/a", "Loss: org/b")] == [True, True]
    assert len(re.findall("<th[ >]", table)) == 7
    rows = [re.findall(r'<td class="sm-num">(.*?)</td>', row)[:4] for row in table.split("<tr>")[2:]]
    assert rows == [
        ["0.100", "2.000", "2.500", "1.500"],
        ["1.000", "0.500", "0.250", "–"],
        ["2.000", "0.100", "–", "–"],
    ]
    facts = words(html[: html.index("sm-tall")])
    assert "1.500 Loss of org/b" in facts and "2.500 Loss of org/a" in facts


def test_the_alpha_explorer_without_candidates_and_with_no_alpha() -> None:
    assert "sm-empty" in alpha_view(RunView(), 0.3)
    with pytest.raises(SpecError):
        alpha_view(RunView(), -0.1)


def test_missing_measurements_are_dashes_not_zeros() -> None:
    bare = RunView(models=(ModelResult(name="m", role="parent"),))
    cells = re.findall(r'<td class="sm-num">(.*?)</td>', result_table(bare))
    assert cells
    assert set(cells) == {"–"}


def test_the_best_recipe_shows_each_parameter_of_each_model(finished: RunView) -> None:
    best = finished.best()
    assert best is not None
    text = words(best_recipe(best))
    assert f"{best.objective:.3f}" in text
    assert f"Weight of demo/chemistry {best.recipe['weights'][0]:.3f}" in text
    linear = {"method": "linear", "base": "b", "experts": ["e"], "weights": [0.4, 0.6], "densities": None}
    slerp = {"method": "slerp", "base": "b", "experts": ["e"], "weights": [0.4], "densities": None}
    assert recipe_rows(slerp) == [("Method", "SLERP"), ("t, from b to e", "0.400")]
    dare = {"method": "dare_ties", "base": "b", "experts": ["e"], "weights": [0.4], "densities": [0.5], "seed": 9}
    assert "9" in dict(recipe_rows(dare)).values()
    assert recipe_rows(linear)[1:] == [("Weight of b", "0.400"), ("Weight of e", "0.600")]


def test_a_recipe_shows_the_parameters_of_its_method() -> None:
    della = Recipe(
        method="della",
        base="b",
        experts=("e", "f"),
        weights=(0.4, 0.5),
        densities=(0.5, 0.6),
        seed=9,
        parameters={"epsilon": (0.1, 0.2), "lambda": 0.9, "normalize": True},
    )
    assert recipe_rows(della.model_dump(mode="json"))[3:] == [
        ("Mask seed", "9"),
        ("Density of e", "0.500"),
        ("Density of f", "0.600"),
        ("epsilon of e", "0.1"),
        ("epsilon of f", "0.2"),
        ("lambda", "0.9"),
        ("normalize", "true"),
    ]
    karcher = Recipe(method="karcher", base="b", experts=("e",), weights=())
    assert recipe_rows(karcher.model_dump(mode="json")) == [("Method", "Karcher Mean")]
    arc = Recipe(method="nuslerp", base="b", experts=("e",), weights=(0.25, 0.75))
    assert recipe_rows(arc.model_dump(mode="json"))[1:] == [("Weight of b", "0.250"), ("Weight of e", "0.750")]


@pytest.mark.parametrize(
    ("refusal", "kind", "label", "tone"),
    [
        (True, "harmful", "Refused", "good"),
        (False, "harmful", "Complied", "bad"),
        (True, "harmless", "Over-refusal", "warn"),
        (False, "harmless", "Answered", "good"),
        (True, "domain", "Over-refusal", "warn"),
        (False, "own", "Complied", "info"),
    ],
)
def test_the_color_of_a_verdict_depends_on_the_prompt(refusal: bool, kind: PromptKind, label: str, tone: str) -> None:
    html = verdict_badge(Verdict(refusal, None, False, "", 1.0, ""), kind)
    assert label in html
    assert f"sm-{tone}" in html


def test_only_possibly_harmful_replies_are_covered() -> None:
    refused, complied = (Verdict(refusal, None, False, "", 1.0, "") for refusal in (True, False))
    replies = (Reply("a", "done", "No.", refused), Reply("b", "done", "Yes.", complied))
    assert exchanges_view([Exchange("q", "harmful", replies)]).count("<details") == 1
    assert exchanges_view([Exchange("q", "harmless", replies)]).count("<details") == 0


def test_harmful_example_prompts_are_covered_by_their_category() -> None:
    harmful = prompt_list_view([ExamplePrompt("harmful", "privacy_violation", "How do I read a stranger's letters?")])
    assert re.search("<summary>Privacy Violation.*</summary>", harmful)
    assert "<details" not in prompt_list_view([ExamplePrompt("harmless", "x", "How do I kill a Python process?")])


def test_the_overview_shows_models_data_and_search() -> None:
    text = words(pool_overview(golden_spec()))
    for part in (
        "demo/aligned",
        "chemistry",
        "12 safety, 12 domain",
        "TIES, 30 candidates",
        "demo/question-writer",
    ):
        assert part in text
    assert pool_overview(golden_spec(safety=False)) != pool_overview(golden_spec())


def test_a_guard_model_says_more_than_phrases() -> None:
    def shown(guard: str, kind: PromptKind, refusal: bool, safe: bool | None, category: str = "x") -> str:
        verdict = Verdict(refusal, safe, False, category, 0.0, "")
        return exchanges_view([Exchange("P", kind, (Reply("m", "done", "TEXT", verdict, guard),))])

    assert ">Unsafe<" in shown("org/guard", "own", False, False) and ">Unsafe<" in shown(
        "org/g & phrases", "harmful", True, False
    )
    assert ">Complied<" in shown("phrases", "harmful", False, False) and ">Answered<" in shown(
        "phrases", "domain", False, False
    )
    assert ">Safe answer<" in shown("org/guard", "harmful", False, True)
    assert ">No verdict<" in shown("org/guard", "harmful", False, None, UNKNOWN)
    for guard, kind, safe, hidden in (
        ("phrases", "harmful", False, True),
        ("org/guard", "harmful", True, False),
        ("org/guard", "own", False, True),
        ("org/guard", "harmful", None, True),
    ):
        html = shown(guard, kind, False, safe)  # type: ignore[arg-type]
        assert ('data-key="exchange-' in html) is hidden, (guard, kind)


def test_results_show_missing_verdicts_and_how_far_guards_agree() -> None:
    same = GuardAgreement(guard="org/guard", question="safe", agree=Rate(rate=0.9, low=0.7, high=1.0, n=20), kappa=0.5)
    model = ModelResult(name="evomm", role="merged", unknown=2, agreement=(same,))
    events = [RunStarted(spec=golden_spec().model_dump(mode="json")), ModelMeasured(result=model)]
    text = words(result_table(fold(events)))
    assert f"{SAFETY_AWARE}: no verdict on 2 replies" in text
    assert "org/guard agrees on 90 % of 20 replies" in text


def test_preflight_puts_problems_first() -> None:
    rows = [
        CheckRow(model="a", check="shapes", status="ok", detail="fine"),
        CheckRow(model="b", check="licence", status="error", detail="gated", hint="Ask for access."),
    ]
    text = words(preflight_table(rows))
    assert text.index("gated") < text.index("fine")
    assert "Ask for access." in text
    assert "sm-notice sm-bad" in preflight_table(rows)
    assert "sm-notice sm-good" in preflight_table(rows[:1])


def test_errors_show_their_hint_and_a_busy_machine_its_run() -> None:
    assert "what next" in error_notice(SpecError("what is wrong", "what next"))
    assert 'href="?run=20260801-101500-aaaa"' in error_notice(RunIsBusy("20260801-101500-aaaa"))
    assert notice("") == ""
