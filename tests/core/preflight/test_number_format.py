"""The preflight row for the number format, in runs and comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.comparison_spec import ComparisonSpec, any_spec_from_dict
from core.models import precision
from core.models.precision import stored_speed
from core.preflight.comparison_check import examine_comparison
from core.preflight.number_format import number_format_row
from core.preflight.run_check import preflight
from core.settings import Settings
from tests.number_format import pin_number_format
from tests.tiny_runs import Files, spec_of


@pytest.mark.parametrize(("requested", "named"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_the_row_names_the_format_that_the_models_will_have(
    requested: str,
    named: str,
    tiny_llama: Path,
    tiny_expert: Path,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pin_number_format(monkeypatch, "float32")
    spec = spec_of(tiny_llama, tiny_expert, Files(tmp_path))
    spec = spec.model_copy(update={"pool": spec.pool.model_copy(update={"dtype": requested})})
    compared = any_spec_from_dict({"models": [{"model": str(tiny_llama)}], "dtype": requested, "evaluation": {}})
    assert isinstance(compared, ComparisonSpec)
    for rows in (preflight(spec, settings), examine_comparison(compared, settings).rows):
        (row,) = [row for row in rows if row.check == "number format"]
        assert row.status == "ok" and row.detail.startswith(f"{named}: ")


def test_a_machine_that_cannot_store_its_measurement_gets_an_error_row(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.write_text("a file, not a folder")
    monkeypatch.setattr(precision, "stored_speed", stored_speed)
    assert number_format_row("auto", settings).status == "error"
    assert number_format_row("float32", settings).status == "ok"
