"""The comparison with published methods runs on tiny models, and its page shows what is measured and missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.marked_section import keep_section, replace_section
from benchmarks.paper.plan import with_data
from benchmarks.paper.study import load_study
from benchmarks.rivals import __main__ as command
from benchmarks.rivals.__main__ import main, write
from benchmarks.rivals.chart import chart
from benchmarks.rivals.cost import Cost, cost_of, mean_cost
from benchmarks.rivals.entries import Scale, cells, entries
from benchmarks.rivals.measured import Comparison, Row
from benchmarks.rivals.tables import as_page, as_section, winners
from core.contracts.events import CandidateScored, Event, GradientStep, ImportanceScored
from core.contracts.merge_methods import METHODS, rival_methods
from core.contracts.optimizers import OPTIMIZERS
from core.contracts.search_spec import MODULES
from core.errors import SpecError
from core.evaluation.statistics import wilson
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import Files, spec_of


def row(title: str, safe: int, right: int, group: str = "rival") -> Row:
    rates = {"alignment": wilson(safe, 20), "over_refusal": wilson(2, 20), "accuracy": {"facts": wilson(right, 10)}}
    return Row(title=title, group=group, seeds=(0,), perplexity=(30.0, 30.0, 30.0), **rates)


def comparison(*rows: Row) -> Comparison:
    own = row("EvoMM, safety-aware", 16, 8, "search")
    values: dict[str, Any] = {"command": "a", "study": load_study("demo"), "seeds": (0,), "scale": {}, "missing": ()}
    return Comparison(**values, pools={"two": (own, *rows)}, hours=1.0)


def test_every_method_has_a_row_with_published_and_one_with_searched_parameters() -> None:
    study = load_study("demo")
    titles = [entry.title for entry in entries(study, "two")]
    assert len(set(titles)) == len(titles) == 7 + ("gradient" in OPTIMIZERS) + 2 * len(rival_methods())
    planned = cells(study, "three", [0, 1], "demo/base", Scale(limit=4, steps=2, k=12))
    assert len(planned) == 2 * (1 + ("gradient" in OPTIMIZERS) + len(rival_methods()))
    for cell in planned:
        method = cell.spec.search.method
        assert (cell.spec.pool.ancestor is not None) == METHODS[method].needs_ancestor
        assert (cell.spec.search.steps, cell.spec.data.safety.k, cell.spec.evaluation.limit) == (2, 12, 4)
        assert (cell.data_from is None) == cell.folder.startswith("three/ties/")


def test_a_pool_without_an_ancestor_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        cells(load_study("demo"), "two", [0], None, Scale())
    assert error.value.code == "no-ancestor"


def test_the_page_says_where_a_published_method_wins() -> None:
    better, mixed, same = row("Better", 18, 8), row("Mixed", 19, 7), row("Same", 16, 8)
    assert winners(comparison(better, mixed, same).pools["two"]) == [better]
    assert "Better" in as_section(comparison(better, mixed)) and "Mixed" not in as_section(comparison(better, mixed))
    assert "Same" not in as_section(comparison(same))
    (legend,) = chart(comparison(better, mixed)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["EvoMM, safety-aware", "Better", "Mixed"]


def test_a_method_has_the_same_marker_in_every_pool() -> None:
    plain, searched = row("LATA, default parameters", 18, 8), row("LATA, searched", 19, 8)
    first, second = comparison(plain, searched), comparison(row("Other, searched", 17, 8), plain, searched)
    both = first.model_copy(update={"pools": {"two": first.pools["two"], "three": second.pools["two"]}})
    markers: dict[str, set[str]] = {}
    for axes in chart(both).axes:
        for line in axes.get_lines():
            markers.setdefault(str((line.get_xdata(), line.get_ydata())), set()).add(str(line.get_marker()))
    assert len(markers) == 4 and all(len(found) == 1 for found in markers.values())


def test_a_section_is_replaced_and_kept() -> None:
    page = replace_section("# Results\n\nold\n", "rivals", "one")
    again = replace_section(page, "rivals", "two \\1")
    assert again.count("<!-- rivals: start -->") == 1 and "two \\1" in again and "one" not in again
    kept = keep_section("# Results\n\nnew\n", again, "rivals")
    assert "two \\1" in kept and "new" in kept and "old" not in kept
    assert keep_section("new", "no section", "rivals") == "new"


@pytest.fixture
def study(tiny_llama: Path, tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAFEMERGE_HOME", str(tmp_path / "home"))
    files = Files(tmp_path)
    evaluation = {"reply_tokens": 8, "prompts": files.prompts, "benign": files.benign}
    evaluation |= {"probe_questions": files.questions}
    data = {
        "safety": {"source": "file", "path": files.safety, "k": 5},
        "domain": {"source": "file", "path": files.domain, "k": 5},
    }
    two = spec_of(tiny_llama, tiny_expert, files, data=data, evaluation=evaluation)
    named = {"title": "tiny", "hardware": "any", "hours": "none", "two": two.model_dump(mode="json")}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(named), encoding="utf-8")
    return tmp_path / "study.yaml"


def test_a_comparison_runs_once_and_writes_its_page(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("safe_lora", "interpolation", "alignmerge")
    monkeypatch.setattr("benchmarks.rivals.entries.rival_methods", lambda: methods)
    monkeypatch.setattr("benchmarks.rivals.entries.GRADIENT", "not an optimizer")
    ancestor = str(save_tiny_llama(tmp_path / "ancestor", nudge_seed=9))
    options = ["--pool", str(study), "--out", str(tmp_path / "out"), "--seeds", "1", "--steps", "2", "--k", "5"]
    options += ["--limit", "2", "--ancestor", ancestor]
    assert main([*options, "--summarise", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["missing"]) == 4
    assert main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == [] and found["scale"] == {"limit": 2, "steps": 2, "k": 5}
    rows = {one["title"]: one for one in found["pools"]["two"]}
    assert all(one["alignment"]["n"] == 2 for one in rows.values())
    searched = rows["Safe LoRA, searched"]
    assert set(searched["tests"]["evomm"]) == {"alignment", "over_refusal"}
    assert searched["seconds"] > 0 and searched["candidates"] == 2
    plain = rows["Safe LoRA, default parameters"]
    assert (plain["seconds"], plain["candidates"]) == (None, None)
    assert "Interpolation of aligned and fine-tuned, published parameters" in rows
    scores = rows["AlignMerge, default parameters"]
    assert scores["candidates"] is None and 0 < scores["seconds"] < rows["AlignMerge, searched"]["seconds"]
    times = {path: path.stat().st_mtime for path in (tmp_path / "out").rglob("result.json")}
    assert main([*options, "--write"]) == 0
    assert times == {path: path.stat().st_mtime for path in (tmp_path / "out").rglob("result.json")}
    page = (tmp_path / "out" / "rivals.md").read_text(encoding="utf-8")
    assert "missing" not in page and "SafeMERGE (Djuhera et al.) is another project" in page
    assert "rivals.md" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "images" / "rivals.svg").exists()


def candidate(search: str, number: int, seconds: float, tokens: int) -> CandidateScored:
    recipe = {"method": "led"}
    return CandidateScored(
        search=search,
        candidate=number,
        generation=0,
        recipe=recipe,
        objective=1.0,
        ce_safety=0.5,
        ce_expert=0.5,
        seconds=seconds,
        tokens=tokens,
    )


def test_the_cost_of_a_search_counts_candidates_that_another_search_had_scored() -> None:
    importance = ImportanceScored(method="led", sha256="0", pairs=4, seconds=100.0)
    step = GradientStep(search="gradient", step=0, batch=None, objective=1.0, seconds=7.0)
    log: list[Event] = [
        importance,
        candidate("evomm", 0, 2.0, 50),
        candidate("evomm", 1, 4.0, 50),
        step,
        candidate("gradient", 0, 0.001, 0),
        candidate("cocktail", 0, 5.0, 50).model_copy(update={"failure": "out of memory", "tokens": 0}),
    ]
    assert cost_of(log, "evomm") == (2, 106.0)
    assert cost_of(log, "gradient") == (1, 110.0)
    assert cost_of(log, "cocktail") == (1, 105.0)
    assert cost_of(log, "equal") == (None, 100.0)
    assert cost_of(log[1:], "equal") == (None, None)
    assert mean_cost([Cost(2, 10.0), Cost(4, 20.0)]) == (3.0, 15.0)
    assert mean_cost([Cost(None, None)]) == (None, None)


def test_an_unmeasured_comparison_says_so(tmp_path: Path) -> None:
    empty = comparison(Row(title="Other", group="rival"))
    assert "no published method is measured yet" in as_section(empty)
    assert "missing" in as_page(empty)
    write(empty, tmp_path)
    assert command.SECTION in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_gradient_rows_search_every_projection_with_the_studys_look_alikes(tmp_path: Path) -> None:
    study = load_study("demo")
    (cell,) = [c for c in cells(study, "three", [0], "demo/base", Scale()) if c.folder.startswith("three/gradient")]
    spec = with_data(cell, tmp_path)
    assert spec.search.genome.filters == (MODULES,)
    assert (spec.search.alpha, spec.search.beta) == (3.0, 3.0)
    assert spec.data.benign is not None and spec.data.benign.path == study.gradient["data"]["benign"]["path"]
    assert spec.data.safety.path == str(tmp_path / "three" / "ties" / "seed-0" / "data" / "safety.jsonl")
