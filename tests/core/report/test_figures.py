"""The charts of a report: valid, the same every time, estimates apart from measurements, any name a model may have."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from core.contracts.results import ModelResult
from core.evaluation.statistics import wilson
from core.report import figures
from core.report.run_record import read_run
from core.runs.view import RunView, fold
from tests.core.report.runs import save_run
from tests.ui.golden import golden_events

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [(node.text or "").strip() for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_measured_model_is_named_in_the_plane() -> None:
    picture = figures.plane(fold(golden_events()))
    assert picture is not None
    shown = texts(picture.svg)
    assert {"aligned", "chemistry", "equal", "evomm_expert_only", "evomm"} <= set(shown)
    assert {"Candidate of evomm, estimated", "Parent, measured", "Merge, measured"} <= set(shown)
    assert "not measured" in picture.caption


def test_pictures_are_the_same_every_time_and_share_no_id(tmp_path: Path) -> None:
    record = read_run(save_run(tmp_path / "run"))
    first, again = (
        [figures.plane(record.view), figures.losses(record.view), figures.categories(record.models)] for _ in range(2)
    )
    assert first == again
    ids: list[str] = []
    for picture in first:
        assert picture is not None
        assert "<dc:date>" not in picture.svg and "matplotlib.org" not in picture.svg
        ids += [node.attrib["id"] for node in ElementTree.fromstring(picture.svg).iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids)) > 10


def test_any_name_can_be_drawn() -> None:
    model = ModelResult(name="org/$x_<b>&^$", role="model", alignment=wilson(1, 2), accuracy={"t": wilson(1, 2)})
    picture = figures.plane(RunView(models=(model,)))
    assert picture is not None and "$x_<b>&^$" in texts(picture.svg)


def test_nothing_to_show_is_no_picture() -> None:
    unmeasured = ModelResult(name="m", role="model", alignment=wilson(1, 2))
    assert figures.plane(RunView(models=(unmeasured,))) is None
    assert figures.losses(RunView()) is None
    assert figures.categories([unmeasured]) is None


def test_a_long_path_has_a_short_name() -> None:
    assert figures.short_name("/home/somebody/models/my-merge/") == "my-merge"
    assert len(figures.short_name("a" * 80)) == 24


def test_names_that_end_alike_are_told_apart() -> None:
    assert figures.short_names(["lab/one", "lab/two"]) == ["one", "two"]
    assert figures.short_names(["a/model", "b/model", "c"]) == ["a/model", "b/model", "c"]
    deep = [f"/home/{who}/a/very/long/path/to/models/model" for who in ("ann", "bob")]
    assert len(set(figures.short_names(deep))) == 2
