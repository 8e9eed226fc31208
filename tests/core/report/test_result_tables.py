"""The tables of measurements: rates have intervals, and missing measurements are marked."""

from __future__ import annotations

from core.contracts.results import GuardAgreement, ModelResult
from core.evaluation.statistics import wilson
from core.report.result_tables import (
    accuracy_cell,
    agreement_table,
    category_table,
    detail_table,
    measured_table,
    task_table,
)

MODEL = ModelResult(name="m", role="model", alignment=wilson(9, 10), accuracy={"task": wilson(3, 4)})
BARE = ModelResult(name="bare", role="parent")


def test_rates_come_with_interval_and_number() -> None:
    table = measured_table([MODEL, BARE])
    assert [str(cell) for cell in table.rows[0]] == [
        "m (model)",
        "0.90 [0.60, 0.98] n=10",
        "not measured",
        "task 0.75 [0.30, 0.95] n=4",
    ]
    assert [str(cell) for cell in table.rows[1][1:]] == ["not measured"] * 3


def test_perplexity_has_a_column_once_it_is_measured() -> None:
    gone = BARE.model_copy(update={"not_measured": "gated"})
    table = measured_table([MODEL, BARE.model_copy(update={"perplexity": 12.34}), gone])
    assert table.header[-1] == "perplexity"
    assert [str(row[-1]) for row in table.rows] == ["not finite", "12.3", "not measured"]


def test_outside_prompts_have_a_column_once_they_are_measured() -> None:
    assert "alignment, outside prompts" not in measured_table([MODEL, BARE]).header
    table = measured_table([MODEL, BARE.model_copy(update={"outside_alignment": wilson(1, 2)})])
    assert table.header[1:3] == ("alignment", "alignment, outside prompts")
    assert [str(row[2]) for row in table.rows] == ["not measured", "0.50 [0.09, 0.91] n=2"]


def test_many_tasks_get_a_mean_and_their_own_table() -> None:
    many = MODEL.model_copy(update={"accuracy": {f"task {n}": wilson(n, 4) for n in range(1, 5)}})
    assert str(accuracy_cell(many)) == "0.62 mean of 4 tasks, without an interval"
    table = task_table([many, MODEL])
    assert table is not None and table.header == ("task", "m", "m")
    assert [str(cell) for cell in table.rows[0]] == ["task 1", "0.25 [0.05, 0.70] n=4", "not measured"]
    assert task_table([MODEL]) is None


def test_an_unmeasured_category_has_no_table() -> None:
    assert category_table([MODEL], "alignment") is None
    table = category_table([MODEL.model_copy(update={"by_category": {"self_harm": wilson(1, 2)}}), BARE], "alignment")
    assert table is not None and table.header == ("category", "m")
    assert [str(cell) for cell in table.rows[0]] == ["Self-Harm", "0.50 [0.09, 0.91] n=2"]


def test_missing_verdicts_and_agreement_are_shown() -> None:
    agreed = GuardAgreement(guard="other", question="safe", agree=wilson(8, 10), kappa=None)
    model = MODEL.model_copy(update={"unknown": 2, "agreement": (agreed,), "ce_safety": 0.5})
    assert [str(cell) for cell in detail_table([model]).rows[0]][3:5] == ["2", "0.500"]
    assert str(detail_table([BARE]).rows[0][3]) == "not measured"
    table = agreement_table([model, BARE])
    assert table is not None
    assert [str(cell) for cell in table.rows[0]] == ["m", "other", "safe", "0.80 [0.49, 0.94] n=10", "not defined"]
    assert agreement_table([BARE]) is None


def test_broken_text_to_harmless_prompts_has_a_column_once_it_is_measured() -> None:
    assert "broken text, harmless prompts" not in detail_table([MODEL]).header
    table = detail_table([MODEL.model_copy(update={"benign_degenerate": wilson(1, 4)}), BARE])
    at = table.header.index("broken text, harmless prompts")
    assert [str(row[at]) for row in table.rows] == ["0.25 [0.05, 0.70] n=4", "not measured"]
