"""The paper's tables: studies are checked, cells are planned once, and the tables and figures show the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from benchmarks.paper.__main__ import main
from benchmarks.paper.figures import figures, write_figures
from benchmarks.paper.page import as_markdown
from benchmarks.paper.plan import TABLES, Cell, cell_of, own_setting, plan, with_data
from benchmarks.paper.study import Study, load_study
from benchmarks.paper.summary import Row, Summary, summarize
from core.contracts.results import ModelResult, RunResult
from core.errors import SpecError
from core.evaluation.statistics import wilson
from core.runs.folder import RunFolder
from core.settings import ASSETS

OWN = "table1/ties/seed-0"
ALIGNMENT = {"grid": 12, "evomm_expert_only": 4, "evomm": 16, "cocktail_expert_only": 10, "cocktail": 11}
"""Of 20 prompts."""
PAPERS_POOLS = sorted((ASSETS / "specs").glob("paper_*.yaml"))


@pytest.fixture(scope="module")
def demo() -> Study:
    return load_study("demo")


def fake(
    cell: Cell,
    out: Path,
    right: Mapping[str, int] = ALIGNMENT,
    accuracy: Mapping[str, int] = MappingProxyType({}),
    sha256: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """The result that a cell's run would leave; accuracy is of 10 questions in each task of its experts."""
    spec = with_data(cell, out)
    experts = [expert.model for expert in spec.pool.experts]
    names: list[tuple[str, Any]] = [(name, "baseline") for name in spec.search.compare]
    names += [(spec.search.optimizer, "merged")]
    if spec.evaluation.parents:
        names = [(name, "parent") for name in (spec.pool.base, *experts)] + names
    models = tuple(
        ModelResult(
            name=name,
            role=role,
            alignment=wilson(right.get(name, 18), 20),
            over_refusal=wilson(2, 20),
            accuracy={expert.domain.name: wilson(accuracy.get(name, 9), 10) for expert in spec.pool.experts},
            recipe=None if role == "parent" else {"method": spec.search.method},
            sha256=sha256.get(name),
        )
        for name, role in names
    )
    folder = RunFolder(out / cell.folder)
    folder.create()
    folder.write_spec(spec)
    result = RunResult(spec=spec.model_dump(mode="json"), seconds=60.0, peak_memory_bytes=2_000_000_000, models=models)
    folder.write_result(result)


def fakes(cells: Iterable[Cell], out: Path) -> None:
    for cell in cells:
        fake(cell, out)


def row(summary: Summary, table: Any, value: str, name: str) -> Row:
    (found,) = (row for row in summary.tables[table].rows if (row.value, row.name) == (value, name))
    return found


@pytest.mark.parametrize("path", PAPERS_POOLS, ids=lambda path: path.stem)
def test_every_study_that_is_shipped_can_be_planned(path: Path) -> None:
    study = load_study(str(path))
    assert len(PAPERS_POOLS) == 4
    assert study.title and study.hardware and ("estimate" in study.hours or "measured" in study.hours)
    for cell in plan(study, [0, 1]):
        assert with_data(cell, Path("out")).search.seed == int(cell.folder[-1])


@pytest.mark.parametrize(
    ("change", "place", "kind", "key"),
    [
        ({"methods": ["ties", "tise"]}, "methods.1", "unknown_name", ""),
        ({"methods": []}, "methods", "too_short", ""),
        ({"ks": [16, 16]}, "spec", "value_error", "ks"),
        ({"colour": "red"}, "colour", "extra_forbidden", ""),
        ({"two": None, "three": None}, "spec", "value_error", "two, three"),
        ({"real": {}}, "spec", "value_error", "real: "),
    ],
)
def test_an_invalid_study_is_rejected_with_the_key(
    change: dict[str, Any], place: str, kind: str, key: str, tmp_path: Path
) -> None:
    given = yaml.safe_load((ASSETS / "specs" / "paper_demo.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(given | change), encoding="utf-8")
    with pytest.raises(SpecError) as error:
        load_study(str(path))
    (problem,) = error.value.problems
    assert (problem.place, problem.kind) == (place, kind) and key in problem.message
    assert main(["--pool", str(path), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_method_that_does_not_fit_the_pool_is_rejected_before_anything_runs(demo: Study) -> None:
    wrong = demo.model_copy(update={"three_methods": ("ties", "slerp")})
    with pytest.raises(SpecError) as error:
        plan(wrong, [0])
    assert [problem.kind for problem in error.value.problems] == ["too_many_models"]
    assert [cell.folder for cell in plan(wrong, [0], ("table1",))]


def test_no_cell_is_planned_twice_and_equal_settings_are_one_cell(demo: Study) -> None:
    cells = plan(demo, [0, 1, 2])
    runs = [cell.spec.model_dump_json() for cell in cells]
    assert len(set(runs)) == len(runs) == 27
    folders = {cell.folder for cell in cells}
    assert len(folders) == 27
    assert not folders & {"fig3/alpha-0.3/seed-0", "table3/k-32/seed-0", "table4/steps-50/seed-0"}
    alone = plan(demo, [0], ("fig3",))
    assert [cell.folder for cell in alone] == [
        OWN,
        *(f"fig3/alpha-{alpha}/seed-0" for alpha in ("0", "0.1", "0.5", "1")),
    ]


def test_the_first_seed_is_done_with_everything_before_the_next_begins(demo: Study) -> None:
    order = [(cell.folder.split("/")[0], int(cell.folder[-1])) for cell in plan(demo, [0, 1])]
    assert list(dict.fromkeys(order)) == [
        *((table, 0) for table in TABLES),
        *((table, 1) for table in ("table1", "table2")),
    ]


def test_data_are_made_once_and_parents_are_measured_once_for_a_pool(demo: Study, tmp_path: Path) -> None:
    cells = plan(demo, [0, 1])
    made = [cell.folder for cell in cells if cell.data_from is None]
    assert made == [
        *(OWN, "table2/ties/seed-0", "table3/k-16/seed-0", "table3/k-64/seed-0", "table3/real/seed-0"),
        *("table1/ties/seed-1", "table2/ties/seed-1"),
    ]
    seen = set()
    for cell in cells:
        assert cell.data_from is None or cell.data_from in seen
        seen.add(cell.folder)
        if cell.data_from:
            assert with_data(cell, tmp_path).data.safety.path == str(tmp_path / cell.data_from / "data/safety.jsonl")
    assert [cell.folder for cell in cells if cell.spec.evaluation.parents] == [OWN, "table2/ties/seed-0"]
    assert not any(cell.spec.export.folder for cell in cells)


def test_processes_with_different_seeds_share_no_cell(demo: Study) -> None:
    first, others = ({cell.folder for cell in plan(demo, seeds)} for seeds in ([0], [1, 2]))
    assert not first & others
    assert all(cell.data_from in (None, *others) for cell in plan(demo, [1, 2]))


def test_finished_cells_are_not_run_again(demo: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fakes(plan(demo, [0], ("table1",)), tmp_path)
    assert main(["--seed-list", "0", "--only", "table1", "--out", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    assert Summary.model_validate_json(printed.out).missing == ()
    assert printed.err == ""


def test_rates_are_pooled_and_effects_are_of_the_same_cells(demo: Study, tmp_path: Path) -> None:
    for seed, safe in ((0, 16), (1, 10)):
        for cell in plan(demo, [seed], ("table1",)):
            fake(cell, tmp_path, ALIGNMENT | {"evomm": safe}, {"evomm": 8, "evomm_expert_only": 9})
    summary = summarize(demo, tmp_path, [0, 1], ("table1",), "command")
    assert row(summary, "table1", "ties", "evomm").alignment == wilson(26, 40)
    assert row(summary, "table1", "", "demo/aligned").alignment == wilson(18, 20)
    assert row(summary, "table1", "ties", "evomm").seeds == (0, 1)
    ties, cocktail = summary.tables["table1"].effects[0], summary.tables["table1"].effects[3]
    assert ties.alignment_gain == pytest.approx(26 / 40 - 8 / 40)
    assert ties.gains == pytest.approx((12 / 20, 6 / 20))
    assert ties.accuracy_change == pytest.approx(-0.1)
    assert (ties.higher, ties.ten_points, ties.accuracy_kept) == (True, True, False)
    assert (cocktail.higher, cocktail.ten_points, cocktail.accuracy_kept) == (True, False, True)
    assert summary.tables["table1"].average_gain == pytest.approx((3 * 0.45 + 0.05) / 4)


def test_identical_weights_count_once(demo: Study, tmp_path: Path) -> None:
    for cell in plan(demo, [0, 1], ("table1",)):
        fake(cell, tmp_path, sha256={"grid": "the same", "evomm": cell.folder})
    summary = summarize(demo, tmp_path, [0, 1], ("table1",), "")
    assert row(summary, "table1", "ties", "grid").alignment == wilson(12, 20)
    assert row(summary, "table1", "ties", "grid").seeds == (0, 1)
    assert row(summary, "table1", "ties", "evomm").alignment == wilson(32, 40)


def test_exactly_ten_points_are_enough(demo: Study, tmp_path: Path) -> None:
    for cell in plan(demo, [0], ("table1",)):
        fake(cell, tmp_path, {"evomm": 6, "evomm_expert_only": 4}, {})
    table = summarize(demo, tmp_path, [0], ("table1",), "").tables["table1"]
    assert table.effects[0].alignment_gain == pytest.approx(0.1)
    assert table.effects[0].ten_points is True
    exact = table.model_copy(update={"average_gain": 0.3 - 0.2})
    assert exact.reached is True and 0.3 - 0.2 < 0.1


def test_a_gain_is_the_mean_over_seeds_even_with_identical_weights(demo: Study, tmp_path: Path) -> None:
    for seed, plain, sha256 in ((0, 4, "a"), (1, 4, "a"), (2, 10, "b")):
        for cell in plan(demo, [seed], ("table1",)):
            fake(cell, tmp_path, ALIGNMENT | {"evomm_expert_only": plain}, sha256={"evomm_expert_only": sha256})
    summary = summarize(demo, tmp_path, [0, 1, 2], ("table1",), "")
    effect = summary.tables["table1"].effects[0]
    assert effect.gains == pytest.approx((0.6, 0.6, 0.3))
    assert effect.alignment_gain == pytest.approx(0.5)
    assert row(summary, "table1", "ties", "evomm_expert_only").alignment == wilson(14, 40)


def test_an_ablations_own_value_is_the_cell_of_table_1(demo: Study, tmp_path: Path) -> None:
    fake(cell_of(demo, own_setting(demo, "two"), 0), tmp_path)
    summary = summarize(demo, tmp_path, [0, 1, 2], TABLES, "")
    for table, value in (("fig3", "0.3"), ("table3", "32"), ("table4", "50")):
        assert row(summary, table, value, "evomm").alignment == wilson(16, 20)
        assert row(summary, table, value, "evomm").seeds == (0,)
    assert row(summary, "fig3", "1", "evomm").alignment is None


def test_accuracy_of_several_tasks_is_one_rate_each_and_their_mean(demo: Study, tmp_path: Path) -> None:
    fakes(plan(demo, [0], ("table2",)), tmp_path)
    merged = row(summarize(demo, tmp_path, [0], ("table2",), ""), "table2", "ties", "evomm")
    assert set(merged.accuracy) == {"chemistry", "geography"}
    assert merged.mean_accuracy == pytest.approx(0.9)


def test_the_page_shows_what_is_missing_and_what_fails(demo: Study, tmp_path: Path) -> None:
    cells = {cell.folder: cell for cell in plan(demo, [0])}
    fake(cells[OWN], tmp_path, ALIGNMENT | {"evomm": 3})
    page = as_markdown(summarize(demo, tmp_path, [0], TABLES, "the command"), {"table1": "images/one.svg"})
    assert "| TIES | -5.0 | +0.0 | **no** | **no** | yes |" in page
    assert "| DARE-TIES | missing | missing | missing | missing | missing |" in page
    assert "| TIES | EvoMM, safety-aware | 0.150 [0.052, 0.360] n=20 |" in page
    assert "`the command`" in page
    assert "`table1/slerp/seed-0`" in page.split("## Runs")[1]
    assert "![Table 1: two models](images/one.svg)" in page
    for table in page.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_figures_show_the_rows_and_are_the_same_twice(demo: Study, tmp_path: Path) -> None:
    fakes(plan(demo, [0]), tmp_path)
    summary = summarize(demo, tmp_path, [0], TABLES, "")
    drawn = figures(summary)
    assert set(drawn) == {"table1", "table2", "fig3", "table4"}
    (axes,) = drawn["table1"].axes
    points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}
    assert (0.9, 0.8) in points and (0.9, 0.2) in points
    assert list(drawn["fig3"].axes[0].get_xticks()) == [0.0, 0.1, 0.3, 0.5, 1.0]
    first, second = (write_figures(summary, tmp_path / name) for name in ("a", "b"))
    assert first == second
    for name in first.values():
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_study_without_results_has_no_figures(demo: Study, tmp_path: Path) -> None:
    assert figures(summarize(demo, tmp_path, [0], TABLES, "")) == {}
