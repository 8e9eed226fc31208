"""The charts of a report: valid and reproducible SVG, with estimates apart from measurements and any model name."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from core.contracts.results import ModelResult
from core.evaluation.statistics import wilson
from core.report import charts
from core.report.run_record import read_run
from core.runs.view import RunView, fold
from tests.core.report.runs import save_run
from tests.ui.golden import golden_events

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [(node.text or "").strip() for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_measured_model_is_named_in_the_plane() -> None:
    chart = charts.plane(fold(golden_events()))
    assert chart is not None
    shown = texts(chart.svg)
    assert {"aligned", "chemistry", "equal", "evomm_expert_only", "evomm"} <= set(shown)
    assert {"Candidate of evomm, estimated", "Parent, measured", "Merge, measured"} <= set(shown)
    assert chart.caption


def test_charts_are_reproducible_and_share_no_id(tmp_path: Path) -> None:
    record = read_run(save_run(tmp_path / "run"))
    first, again = (
        [charts.plane(record.view), charts.losses(record.view), charts.categories(record.models)] for _ in range(2)
    )
    assert first == again
    ids: list[str] = []
    for chart in first:
        assert chart is not None
        assert "<dc:date>" not in chart.svg and "matplotlib.org" not in chart.svg
        ids += [node.attrib["id"] for node in ElementTree.fromstring(chart.svg).iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids)) > 10


def test_any_model_name_can_be_drawn() -> None:
    model = ModelResult(name="org/$x_<b>&^$", role="model", alignment=wilson(1, 2), accuracy={"t": wilson(1, 2)})
    chart = charts.plane(RunView(models=(model,)))
    assert chart is not None and "$x_<b>&^$" in texts(chart.svg)


def test_without_data_there_is_no_chart() -> None:
    unmeasured = ModelResult(name="m", role="model", alignment=wilson(1, 2))
    assert charts.plane(RunView(models=(unmeasured,))) is None
    assert charts.losses(RunView()) is None
    assert charts.categories([unmeasured]) is None


def test_a_long_path_has_a_short_name() -> None:
    assert charts.short_name("/home/somebody/models/my-merge/") == "my-merge"
    assert len(charts.short_name("a" * 80)) == 24


def test_names_with_the_same_end_stay_distinct() -> None:
    assert charts.short_names(["lab/one", "lab/two"]) == ["one", "two"]
    assert charts.short_names(["a/model", "b/model", "c"]) == ["a/model", "b/model", "c"]
    deep = [f"/home/{who}/a/very/long/path/to/models/model" for who in ("ann", "bob")]
    assert len(set(charts.short_names(deep))) == 2
