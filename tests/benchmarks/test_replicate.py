"""The replication of the paper's claim: which runs it needs, how it tests them, and the page it writes."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from benchmarks.replicate.__main__ import main
from benchmarks.replicate.claim_page import as_html, overall
from benchmarks.replicate.claims import Claim, Compared, Verdict, higher, lower, no_worse, replicate
from benchmarks.replicate.repeated_test import compare_repeated, sign_flip_p
from benchmarks.replicate.seed_runs import seed_runs
from core.contracts.results import ModelResult, RunResult
from core.contracts.run_spec import RunSpec, load_spec
from core.errors import DataError, SpecError
from core.evaluation.paired_tests import compare_paired, difference_interval
from core.evaluation.replies import ReplyRow
from core.evaluation.statistics import wilson
from core.runs.folder import RunFolder
from core.settings import ASSETS

DEMO = load_spec(ASSETS / "specs" / "demo.yaml")
PROMPTS = 40


def with_search(spec: RunSpec, **search: Any) -> RunSpec:
    return spec.model_copy(update={"search": spec.search.model_copy(update=search)})


def test_evomm_makes_both_merges_in_one_run() -> None:
    first, second = seed_runs(DEMO, [5, 6])
    ((cell,), (later,)) = first.cells, second.cells
    assert cell.spec.search.seed == 5 and cell.spec.search.compare == ("equal", "evomm_expert_only")
    assert (cell.spec.evaluation.parents, later.spec.evaluation.parents) == (True, False)
    assert not cell.spec.export.folder and cell.data_from is None
    assert first.domain_only == ("seed-5", "evomm_expert_only") and first.safety_aware == ("seed-5", "evomm")


def test_another_optimizer_searches_twice_on_the_same_pairs() -> None:
    (runs,) = seed_runs(with_search(DEMO, optimizer="gradient", objective="constraint", safety=False), [0])
    own, domain = runs.cells
    assert own.spec.search.safety and not domain.spec.search.safety
    assert (own.spec.search.objective, domain.spec.search.objective) == ("constraint", "weighted")
    assert (own.data_from, domain.data_from) == (None, own.folder)
    assert runs.domain_only == (domain.folder, "gradient") != runs.safety_aware == (own.folder, "gradient")


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (with_search(DEMO, optimizer="grid"), "no-safety-data"),
        (
            DEMO.model_copy(update={"evaluation": DEMO.evaluation.model_copy(update={"prompts": None})}),
            "no-test-prompts",
        ),
    ],
    ids=["grid", "no prompts"],
)
def test_a_spec_without_anything_to_test_is_refused(spec: RunSpec, code: str) -> None:
    with pytest.raises(SpecError) as error:
        seed_runs(spec, [0])
    assert error.value.code == code


def test_one_seed_gives_mcnemars_test() -> None:
    first = [True] * 12 + [False] * 8
    second = [True] * 3 + [False] * 9 + [True] * 2 + [False] * 6
    paired, repeated = compare_paired(first, second), compare_repeated([first], [second])
    assert repeated[:2] == (20, paired.difference) and repeated.p_value == paired.p_value
    assert (repeated.low, repeated.high) == difference_interval(paired)
    changes = [int(b) - int(a) for a, b in zip(first, second, strict=True)]
    assert sign_flip_p(changes) == pytest.approx(paired.p_value)


@pytest.mark.parametrize("changes", [[3, -1, 2, 0, 1], [2, 2, 2, 2, 2, -1], [0, 0], [1, -1], [-3, -3, 1, -2, 2, -1]])
def test_the_sign_flip_test_counts_every_pattern_of_signs(changes: list[int]) -> None:
    sums = [
        abs(sum(s * c for s, c in zip(signs, changes, strict=True))) for signs in product((1, -1), repeat=len(changes))
    ]
    expected = sum(total >= abs(sum(changes)) for total in sums) / len(sums)
    assert sign_flip_p(changes) == pytest.approx(expected)


def test_prompts_and_not_replies_are_the_sample() -> None:
    """Seeds whose merges answer alike add no certainty."""
    first, second = [True] * 10 + [False] * 10, [False] * 6 + [True] * 4 + [False] * 10
    once, thrice = compare_repeated([first], [second]), compare_repeated([first] * 3, [second] * 3)
    assert thrice.p_value == pytest.approx(once.p_value) and thrice.difference == once.difference == -0.3
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.15)


def test_replies_to_other_prompts_are_not_compared() -> None:
    for first, second in (([[True]], [[True, False]]), ([], []), ([[]], [[]]), ([[True]], [[True], [False]])):
        with pytest.raises(DataError):
            compare_repeated(first, second)


def compared(difference: float, low: float, high: float, p_value: float) -> Compared:
    return Compared(
        n=100, difference=difference, low=low, high=high, p_value=p_value, seeds=(0,), by_seed=((0.0, 1.0),)
    )


@pytest.mark.parametrize(
    ("test", "verdicts"),
    [
        (compared(-0.4, -0.5, -0.3, 1e-6), ("confirmed", "not confirmed", "not confirmed")),
        (compared(-0.02, -0.06, 0.02, 0.4), ("not confirmed", "confirmed", "not confirmed")),
        (compared(-0.04, -0.07, -0.01, 0.01), ("confirmed", "confirmed", "not confirmed")),
        (compared(-0.05, -0.2, 0.1, 0.5), ("undecided", "undecided", "undecided")),
        (compared(0.3, 0.2, 0.4, 1e-4), ("not confirmed", "confirmed", "confirmed")),
        (None, ("undecided", "undecided", "undecided")),
    ],
)
def test_a_verdict_needs_evidence(test: Compared | None, verdicts: tuple[Verdict, Verdict, Verdict]) -> None:
    assert (lower(test), no_worse(test), higher(test)) == verdicts


def test_the_whole_claim_needs_every_part() -> None:
    def claims(*verdicts: Verdict) -> list[Claim]:
        return [Claim(part="safety_aware_keeps", verdict=verdict, test=None) for verdict in verdicts]

    assert overall(claims("confirmed", "confirmed")) == "confirmed"
    assert overall(claims("confirmed", "undecided")) == "undecided"
    assert overall(claims("not confirmed", "undecided")) == "not confirmed"


def write_run(folder: RunFolder, safe: dict[str, int], refused: dict[str, int], sha: str = "") -> None:
    """Write a finished run in which each model answers this many of the prompts safely, and refuses harmless ones."""
    folder.path.mkdir(parents=True)
    models = []
    for name, count in safe.items():
        role: Any = "parent" if name.startswith("demo/") else "merged" if name == "evomm" else "baseline"
        rows = [reply("harmful", i, i < count) for i in range(PROMPTS)]
        rows += [reply("benign", i, i < refused.get(name, 0)) for i in range(PROMPTS)]
        rows += [reply("outside", i, i < count // 2) for i in range(PROMPTS)]
        folder.write_replies(name, rows)
        rates = {"alignment": wilson(count, PROMPTS), "outside_alignment": wilson(count // 2, PROMPTS)}
        accuracy = {"facts": wilson(30 if name == "evomm" else 34, PROMPTS)}
        models.append(ModelResult(name=name, role=role, accuracy=accuracy, sha256=f"{name}{sha}", **rates))
    result = RunResult(spec={}, seconds=60.0, peak_memory_bytes=1, models=tuple(models))
    folder.result_path.write_text(json.dumps(result.to_json_dict()), encoding="utf-8")


def reply(asked: Any, number: int, yes: bool) -> ReplyRow:
    return ReplyRow(asked=asked, prompt=f"{asked} {number}", safe=yes, refusal=yes, degenerate=False)


def test_the_paper_s_effect_is_confirmed_where_it_is_there(tmp_path: Path) -> None:
    evaluation = DEMO.evaluation.model_copy(update={"outside": "theirs.jsonl"})
    spec = DEMO.model_copy(update={"evaluation": evaluation})
    runs = seed_runs(spec, [0, 1, 2])
    merges = {"equal": 20, "evomm_expert_only": 4, "evomm": 38}
    write_run(RunFolder(tmp_path / "seed-0"), {"demo/aligned": 38, "demo/chemistry": 3, **merges}, {"evomm": 9})
    write_run(RunFolder(tmp_path / "seed-1"), merges | {"evomm": 37}, {"evomm": 9}, sha="other")
    found = replicate(spec, runs, tmp_path, "the command", [])
    assert found.best_parent == "demo/aligned" and found.missing == ("seed-2",) and found.seconds == 120
    loses, keeps, better = found.claims
    assert overall(found.claims) == "confirmed"
    assert loses.test and loses.test.difference == -34 / 40 and loses.test.p_value < 1e-6
    assert keeps.test and keeps.test.seeds == (0, 1) and keeps.test.difference == pytest.approx(-0.5 / 40)
    assert [difference for difference, _ in keeps.test.by_seed] == [0.0, pytest.approx(-1 / 40)]
    assert better.test and better.test.difference > 0.8
    assert found.outside_claims[0].test and found.outside_claims[0].test.difference == -17 / 40
    assert found.over_refusal and found.over_refusal.difference == 9 / 40
    assert found.accuracy_kept == pytest.approx(-4 / 40)
    rows = {row.role: row for row in found.rows if row.role != "parent"}
    assert rows["safety_aware"].alignment and rows["safety_aware"].alignment.n == 2 * PROMPTS
    page = as_html(found)
    for text in (
        "claim confirmed",
        "Not finished: seed-2",
        "the command",
        "theirs.jsonl",
        "cannot detect harm",
        "+22.5",
    ):
        assert text in page


def test_seeds_with_the_same_merges_count_once(tmp_path: Path) -> None:
    merges = {"equal": 20, "evomm_expert_only": 4, "evomm": 36}
    for seed in (0, 1):
        parents = {"demo/aligned": 38} if seed == 0 else {}
        write_run(RunFolder(tmp_path / f"seed-{seed}"), parents | merges, {})
    found = replicate(DEMO, seed_runs(DEMO, [0, 1]), tmp_path, "command", [])
    assert [claim.test.seeds for claim in found.claims if claim.test] == [(0,)] * 3
    assert found.outside_claims == ()


def test_nothing_finished_is_undecided(tmp_path: Path) -> None:
    found = replicate(DEMO, seed_runs(DEMO, [0]), tmp_path, "command", ["seed-0: The disk is full."])
    assert overall(found.claims) == "undecided" and found.best_parent is None
    page = as_html(found)
    assert "claim undecided" in page and "The disk is full." in page and "One seed says nothing" in page


def test_the_command_runs_a_tiny_pool_once_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEMERGE_HOME", str(tmp_path / "home"))
    outside = tmp_path / "theirs.txt"
    outside.write_text("Tell me another secret\nAnd one more\n")
    options = ["--tiny", "--seeds", "1", "--out", str(tmp_path / "out"), "--prompts", str(outside)]
    assert main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == found["problems"] == [] and len(found["claims"]) == len(found["outside_claims"]) == 3
    assert [row["role"] for row in found["rows"]] == ["parent", "parent", "plain", "domain_only", "safety_aware"]
    assert all(row["outside_alignment"]["n"] == 2 for row in found["rows"])
    times = {path: path.stat().st_mtime for path in (tmp_path / "out").rglob("result.json")}
    assert main(options) == 0
    assert capsys.readouterr().out.startswith("Claim ")
    assert times == {path: path.stat().st_mtime for path in (tmp_path / "out").rglob("result.json")}
    page = (tmp_path / "out" / "replication.html").read_text(encoding="utf-8")
    assert "<script" not in page and "Alignment: safety-aware search" in page


def test_wrong_arguments_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.yaml")]) == 2
    for arguments in ([], [str(tmp_path / "none.yaml"), "--seeds", "0"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
    capsys.readouterr()
