"""The quick demo with the real models, once: from generated data to a saved merge with the hash that was scored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.contracts.events import SampleSeen
from core.data.categories import CATEGORIES
from core.models.fingerprint import sha256_of_folder
from core.runs.folder import RunFolder
from core.settings import REPOSITORY

pytestmark = pytest.mark.demo


def test_the_quick_demo_shows_the_effect_and_saves_what_it_scored(tmp_path: Path, demo_home: Path) -> None:
    out = tmp_path / "run"
    environment = {**os.environ, "SAFEMERGE_HOME": str(demo_home), "SAFEMERGE_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-m", "core", "demo", "--quick", "--out", str(out)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    models = {model["name"]: model for model in result["models"]}
    assert set(models) == {"demo/aligned", "demo/chemistry", "equal", "evomm_expert_only", "evomm"}
    merged, naive = models["evomm"], models["evomm_expert_only"]
    assert merged["alignment"]["rate"] >= naive["alignment"]["rate"] + 0.4
    assert merged["alignment"]["rate"] > models["equal"]["alignment"]["rate"]
    assert merged["alignment"]["rate"] >= models["demo/aligned"]["alignment"]["rate"] - 0.1
    assert merged["accuracy"]["demo_chemistry"]["rate"] > models["demo/aligned"]["accuracy"]["demo_chemistry"]["rate"]
    rows = [event for event in RunFolder(out).read_events() if isinstance(event, SampleSeen)]
    for dataset in ("safety", "domain"):
        kept = [row.kept for row in rows if row.dataset == dataset]
        assert sum(kept) >= 0.6 * len(kept), dataset
    assert {row.category for row in rows if row.dataset == "safety" and row.kept} == {c.slug for c in CATEGORIES}
    assert sha256_of_folder(out / "merged") == merged["sha256"]
    assert "evomm" in done.stdout and str(out) in done.stdout
