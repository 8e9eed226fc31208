"""Training sets with several sources: order, duplicates across sources, and runs killed in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import Event, PreflightDone, Progress, SampleSeen
from core.contracts.run_spec import spec_from_dict
from core.data.training_pairs import read_samples
from core.errors import SpecError
from core.jobs.data_step import DataStep
from core.jobs.live_pool import LivePool
from core.settings import Settings
from tests.core.data.fake_models import REFUSAL, Expert, refuser
from tests.core.jobs.resuming import RunHarness, Whole, assert_same_end, count_calls, no_work, nth
from tests.core.jobs.test_resume import writer
from tests.tiny_runs import DOMAIN, SAFETY, Files, spec_of, write_rows

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")

NEW = ("May a lamp keep its own diary?", "Why do spoons refuse to march?", "Is it fair to race a snail?")


@pytest.fixture(scope="module")
def bench(
    bfloat16_everywhere: None,
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunHarness]:
    home = tmp_path_factory.mktemp("mix")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0, reply_cache_bytes=0)
    asked = write_rows(home / "asked.jsonl", [{"question": q} for q in (SAFETY[1].upper(), *NEW)])
    again = write_rows(home / "again.jsonl", [{"question": q, "answer": "Yes."} for q in (DOMAIN[0][0], *NEW)])
    data: dict[str, Any] = {
        "safety": {
            "source": "file",
            "path": files.safety,
            "k": 2,
            "mix": [{"source": "generate", "k": 6}, {"source": "file", "path": asked, "k": 3}],
        },
        "domain": {
            "source": "generate",
            "k": 4,
            "mix": [{"source": "file", "path": files.domain, "k": 2}, {"source": "file", "path": again, "k": 2}],
        },
    }
    pool = {"experts": [{"model": str(tiny_expert), "domain": "chemistry"}], "generator": str(tiny_expert)}
    search = {"steps": 1, "compare": []}
    spec = spec_of(tiny_llama, tiny_expert, files, pool=pool, data=data, search=search)
    work = no_work()
    with pytest.MonkeyPatch.context() as patch:
        made = Expert(writer(work.requests), refuser())
        patch.setattr(DataStep, "_generator", lambda *_: made)
        patch.setattr(LivePool, "as_text_model", lambda *_: made)
        count_calls(patch, work)
        yield RunHarness(spec, settings, work)


def test_a_training_set_has_its_sources_in_order(bench: RunHarness, whole: Whole) -> None:
    safety = read_samples(whole.folder.data_path("safety"))
    assert [sample.provenance for sample in safety] == ["file"] * 2 + ["generated"] * 6 + ["file"] * 3
    assert [sample.question for sample in safety[:2]] == list(SAFETY[:2])
    assert [sample.question for sample in safety[8:]] == list(NEW), "a question of the first source came again"
    generated, asked = safety[2], safety[8]
    assert generated.source == bench.spec.pool.generator and generated.seed is not None and generated.prompt_sha256
    assert (safety[0].source, asked.source) == ("s.jsonl#1", "asked.jsonl#2")
    assert (asked.answer, asked.guard, len(asked.verdicts)) == (REFUSAL, "phrases", 2)
    domain = read_samples(whole.folder.data_path("domain"))
    assert [sample.provenance for sample in domain] == ["generated"] * 4 + ["file"] * 4
    assert [sample.question for sample in domain[4:]] == [DOMAIN[0][0], DOMAIN[1][0], *NEW[:2]]
    dropped = [event for event in whole.events if isinstance(event, SampleSeen) and not event.kept]
    repeated = [(event.part, event.source, event.reason) for event in dropped if event.reason == "duplicate"]
    assert repeated == [(2, "asked.jsonl#1", "duplicate"), (2, "again.jsonl#1", "duplicate")]
    progress = [event for event in whole.events if isinstance(event, Progress) and event.phase == "data"]
    assert {(event.message, event.total) for event in progress} == {("safety pairs", 11), ("domain pairs", 8)}
    assert max(event.done for event in progress if event.message == "safety pairs") == 11


MOMENTS: dict[str, Callable[[], Callable[[Event], bool]]] = {
    "within the first file": lambda: nth(SampleSeen, 1, dataset="safety"),
    "between a file and a writer": lambda: nth(SampleSeen, 2, dataset="safety", part=0),
    "within a round of the writer": lambda: nth(SampleSeen, 3, dataset="safety", part=1),
    "after a round of the writer": lambda: nth(Progress, 3, phase="data"),
    "within the questions asked": lambda: nth(SampleSeen, 2, dataset="safety", part=2),
    "between two sets": lambda: nth(SampleSeen, 4, dataset="safety", part=2),
    "within the file after the writer": lambda: nth(SampleSeen, 1, dataset="domain", part=1),
    "within the last file": lambda: nth(SampleSeen, 2, dataset="domain", part=2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_between_its_sources_has_the_same_rows(moment: str, bench: RunHarness, whole: Whole) -> None:
    bench.reset()
    folder = bench.start(moment.replace(" ", "-"), MOMENTS[moment]())
    before = folder.events_path.read_bytes()
    bench.resume(folder)
    assert folder.events_path.read_bytes().startswith(before)
    assert_same_end(folder, whole)
    again = bench.work.requests["writer"] - whole.work.requests["writer"]
    assert again == 0 or moment == "within a round of the writer"


def test_the_plan_counts_and_checks_all_sources(whole: Whole) -> None:
    [rows] = [event.rows for event in whole.events if isinstance(event, PreflightDone)]
    checked = [row.detail for row in rows if row.check in ("safety data", "domain data")]
    assert [Path(detail).name for detail in checked] == ["s.jsonl", "asked.jsonl", "d.jsonl", "again.jsonl"]
    [time] = [row.detail for row in rows if row.check == "time"]
    assert "x 19 pairs" in time
    written = 6 * (1 + 2) + 4 * 2  # questions with a reply of each of two models, and questions with one answer
    assert f"{written} replies" in time


@pytest.mark.parametrize(
    ("safety", "named"),
    [
        ({"mix": [{"source": "generate", "k": 3}]}, "'generate'"),
        ({"mix": [{"source": "file", "k": 3}]}, "data.safety.mix.0"),
        ({"mix": [{"source": "dataset", "path": "beavertails", "split": "30k_test"}]}, "30k_test"),
        ({"source": "file", "path": "s.jsonl", "mix": [{"source": "generate", "k": 3}]}, "pool.generator"),
        ({"mix": [{"source": "file", "path": "s.jsonl", "fallback_refusals": True}]}, "fallback_refusals"),
    ],
)
def test_an_impossible_mix_is_refused(safety: dict[str, Any], named: str) -> None:
    generator = None if safety.get("source") == "file" else "demo/question-writer"
    pool = {"base": "demo/aligned", "experts": [{"model": "demo/chemistry"}], "generator": generator}
    with pytest.raises(SpecError, match=named):
        spec_from_dict({"pool": pool, "data": {"safety": safety}})
