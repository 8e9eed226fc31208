"""ZeroGPU: what runs inside a lent GPU, how errors come out of it, and what is refused. No GPU is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
import pytest

from core.contracts.comparison_spec import ComparisonSpec, any_spec_from_dict
from core.contracts.events import Cancelled
from core.errors import SafeMergeError
from core.models.references import parse_reference
from core.models.streaming import Decoding
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.settings import Settings
from safemerge_ui import api, launching, zero_gpu
from safemerge_ui.app import create_app
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.errors import NoMergesHere
from safemerge_ui.zero_gpu import LONGEST_S, Refusal, ZeroGpu, run_seconds
from tests.ui.golden import golden_events, golden_spec, write_run

CONVERSATION = [{"role": "user", "content": "What is carbon?"}]


@dataclass
class Lender:
    """Takes the place of `spaces.GPU`: calls functions here, and records which and for how long."""

    durations: list[Any] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, *, duration: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        self.durations.append(duration)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                self.calls.append(arguments)
                if self.error is not None:
                    raise self.error
                return function(*arguments)

            return call

        return decorate


def comparison(folder: Path, models: int = 1, **evaluation: Any) -> ComparisonSpec:
    prompts = folder / "prompts.jsonl"
    prompts.write_text('{"prompt": "What is carbon?"}\n', encoding="utf-8")
    names = [str(folder), *(f"org/model-{number}" for number in range(1, models))]
    values = {
        "models": [{"model": name} for name in names],
        "guard": "phrases",
        "evaluation": {"prompts": str(prompts), **evaluation},
    }
    spec = any_spec_from_dict(values)
    assert isinstance(spec, ComparisonSpec)
    return spec


def page_texts(app: gr.Blocks) -> str:
    """The HTML of the whole page."""
    return "".join(str(block.value) for block in app.blocks.values() if isinstance(block, gr.HTML))


@pytest.fixture
def lender() -> Lender:
    return Lender()


@pytest.fixture
def gpu(settings: Settings, lender: Lender) -> ZeroGpu:
    return ZeroGpu(settings, lender)


@pytest.fixture
def lent(settings: Settings, gpu: ZeroGpu) -> AppContext:
    return make_context(replace(settings, zero_gpu=True), zero_gpu=gpu)


def test_replies_verdicts_and_streams_are_those_of_the_cache(
    gpu: ZeroGpu, settings: Settings, tiny_llama: Path
) -> None:
    ref = parse_reference(str(tiny_llama), settings)
    pieces = list(gpu.stream(ref, CONVERSATION, Decoding(160)))
    assert pieces[-1] == gpu.reply(ref, "What is carbon?")
    assert gpu.judge("phrases", "How?", "I'm sorry, but I can't help with that.").refusal
    assert not gpu.holds(ref)


def test_phrases_asks_for_no_gpu(gpu: ZeroGpu, lender: Lender) -> None:
    gpu.judge("phrases", "How?", "Like this.")
    assert lender.calls == []


def test_an_explained_error_comes_out_of_the_other_process(gpu: ZeroGpu, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SafeMergeError) as caught:
        gpu.judge("family:", "How?", "Like this.")
    assert caught.value.code
    assert zero_gpu._or_raise("text") == "text"
    with pytest.raises(SafeMergeError) as raised:
        zero_gpu._or_raise(Refusal("What happened.", "What to do.", "a-code"))
    assert (raised.value.code, raised.value.hint) == ("a-code", "What to do.")


def test_the_end_of_the_gpu_time_is_explained(
    gpu: ZeroGpu, lender: Lender, settings: Settings, tiny_llama: Path
) -> None:
    lender.error = gr.Error("Try again in 2:00:00", title="ZeroGPU quota exceeded")
    ref = parse_reference(str(tiny_llama), settings)
    for call in (lambda: gpu.reply(ref, "Hi"), lambda: list(gpu.stream(ref, CONVERSATION, Decoding()))):
        with pytest.raises(SafeMergeError) as caught:
            call()
        assert caught.value.code == "zero-gpu" and "2:00:00" in caught.value.message


def test_a_comparison_runs_inside_one_call(
    gpu: ZeroGpu, lender: Lender, settings: Settings, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = comparison(tiny_llama)
    run_id = gpu.start(spec)
    assert lender.calls[0][0] == spec
    folder = RunFolder(settings.runs / run_id)
    for _ in range(600):
        if read_view(folder).over:
            break
        zero_gpu.time.sleep(0.1)
    assert read_view(folder).status == "finished", folder.read_events()[-1]


def test_a_comparison_without_gpu_time_has_no_run(
    gpu: ZeroGpu, lender: Lender, settings: Settings, tiny_llama: Path
) -> None:
    lender.error = gr.Error("Try again in 2:00:00", title="ZeroGPU quota exceeded")
    with pytest.raises(SafeMergeError) as caught:
        gpu.start(comparison(tiny_llama))
    assert caught.value.code == "zero-gpu"
    assert not settings.runs.exists() or list(settings.runs.iterdir()) == []


def test_a_comparison_whose_gpu_is_taken_away_fails(
    gpu: ZeroGpu, settings: Settings, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(spec: ComparisonSpec, path: str) -> None:
        folder = RunFolder(Path(path))
        write_run(folder.path, golden_events()[:5])
        folder.write_worker(zero_gpu_mark())
        zero_gpu.time.sleep(3 * zero_gpu.POLL_S)
        raise gr.Error("GPU task aborted", title="ZeroGPU worker error")

    monkeypatch.setattr(gpu, "_compare", taken)
    run_id = gpu.start(comparison(tiny_llama))
    for _ in range(100):
        if read_view(RunFolder(settings.runs / run_id)).over:
            break
        zero_gpu.time.sleep(0.1)
    view = read_view(RunFolder(settings.runs / run_id))
    assert view.status == "failed" and "GPU task aborted" in view.message


def zero_gpu_mark() -> Any:
    from core.runs.process import mark_started

    return mark_started(zero_gpu.threading.get_native_id())


def test_a_large_model_is_refused_before_a_gpu_is_asked_for(
    gpu: ZeroGpu, lender: Lender, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero_gpu, "SMALL_BYTES", 1000)
    with pytest.raises(SafeMergeError) as caught:
        gpu.start(comparison(tiny_llama))
    assert caught.value.code == "too-large-for-zero-gpu" and lender.calls == []


def test_the_asked_time_grows_with_the_work_up_to_a_limit(tmp_path: Path) -> None:
    few = run_seconds(comparison(tmp_path, limit=4))
    assert few < run_seconds(comparison(tmp_path, limit=16)) < run_seconds(comparison(tmp_path))
    assert few < run_seconds(comparison(tmp_path, 2, limit=4))
    assert run_seconds(comparison(tmp_path, 9)) == LONGEST_S


def test_merges_resuming_and_saving_are_refused(lent: AppContext, settings: Settings) -> None:
    write_run(settings.runs / "cancelled", [*golden_events()[:-1], Cancelled()])
    starting: tuple[Callable[[], Any], ...] = (
        lambda: launching.start(lent, golden_spec()),
        lambda: launching.resume(lent, RunFolder(settings.runs / "cancelled")),
        lambda: launching.refuse_without_workers(lent),
        lambda: api.launch(lent, golden_spec().to_yaml(), None),
    )
    for start in starting:
        with pytest.raises(NoMergesHere):
            start()


def test_the_package_is_imported_on_such_a_machine_only(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    lender = Lender()
    package = ModuleType("spaces")
    package.GPU = lender  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", package)
    create_app(settings)
    assert lender.durations == []
    app = create_app(replace(settings, zero_gpu=True))
    assert run_seconds in lender.durations and len(lender.durations) == 4
    assert page_texts(app).count(NoMergesHere().message) == 2, "on Pool and Merge"
    assert app._queue.max_size is not None and app._queue.max_size > 100, "a page sends several events as it opens"
