"""The number format: one decision per machine, the same for every process, unless the user sets it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from core.errors import SafeMergeError
from core.models import precision
from core.models.precision import FOLDER, Speed, choose_dtype, measure_speed, stored_speed
from core.settings import Settings

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def measured_format(one_number_format: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests test the decision itself, which all others have pinned."""
    monkeypatch.setattr(precision, "stored_speed", stored_speed)


def measure_as(monkeypatch: pytest.MonkeyPatch, speed: Speed) -> None:
    monkeypatch.setattr(precision, "measure_speed", lambda: speed)


@pytest.mark.parametrize(
    ("bfloat16_s", "name"), [(0.5, "bfloat16"), (1.2, "bfloat16"), (1.3, "float32"), (40.0, "float32")]
)
def test_bfloat16_unless_it_is_clearly_slower(
    bfloat16_s: float, name: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_as(monkeypatch, Speed(bfloat16_s, 1.0))
    chosen = choose_dtype("auto", settings, CPU)
    assert (chosen.name, chosen.dtype) == (name, getattr(torch, name))
    assert chosen.reason


def test_the_decision_does_not_change_with_a_later_measurement(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_as(monkeypatch, Speed(0.5, 1.0))
    first = choose_dtype("auto", settings, CPU)
    measure_as(monkeypatch, Speed(40.0, 1.0))
    assert choose_dtype("auto", settings, CPU) == first


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_a_format_that_is_set_needs_no_measurement(
    name: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "stored_speed", None)
    for device in (CPU, GPU):
        assert choose_dtype(name, settings, device).name == name  # type: ignore[arg-type]
        assert choose_dtype("auto", settings, device, logged=name).name == name


@pytest.mark.parametrize(
    ("capability", "name"), [((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float16(
    capability: tuple[int, int], name: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V100 (7.0) and T4 (7.5) report bfloat16 because torch counts its emulation."""

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    chosen = choose_dtype("auto", settings, GPU)
    assert (chosen.name, chosen.dtype) == (name, getattr(torch, name))
    assert choose_dtype("auto", settings, GPU, logged="float16").dtype == torch.float16


def test_processes_that_ask_together_measure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread would measure something else; all get what the first has stored."""
    together, calls = threading.Barrier(4), list[int]()

    def measure() -> Speed:
        calls.append(len(calls))
        return Speed(1.0 + len(calls), 1.0)

    def ask(_: int) -> Speed:
        together.wait()
        return stored_speed(tmp_path / "home" / FOLDER)

    monkeypatch.setattr(precision, "measure_speed", measure)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(ask, range(4)))
    assert found == {Speed(2.0, 1.0)} and len(calls) == 1


def test_another_number_of_threads_is_measured_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_as(monkeypatch, Speed(0.5, 1.0))
    stored_speed(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1234)
    measure_as(monkeypatch, Speed(3.0, 1.0))
    assert stored_speed(tmp_path) == Speed(3.0, 1.0)
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(rows) == 2 and any("1234 threads" in row["machine"] for row in rows)


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"bfloat16_s": 1}', '{"bfloat16_s": 0, "float32_s": 0}'])
def test_a_damaged_measurement_is_replaced(damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_as(monkeypatch, Speed(0.5, 1.0))
    stored_speed(tmp_path)
    (path,) = tmp_path.glob("*.json")
    path.write_text(damaged)
    assert stored_speed(tmp_path) == Speed(0.5, 1.0)
    assert json.loads(path.read_text())["float32_s"] == 1.0


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    with pytest.raises(SafeMergeError) as caught:
        stored_speed(tmp_path / "home" / FOLDER)
    assert caught.value.code == "home-not-writable"
    assert "pool.dtype" in caught.value.hint


def test_this_machine_can_be_measured() -> None:
    assert min(measure_speed()) > 0
