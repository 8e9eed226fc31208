"""The memory plan from headers alone: what each mode of storage takes, and which one is chosen."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from core.contracts.run_spec import RunSpec, spec_from_dict
from core.jobs.live_pool import LivePool, load_pool
from core.merging.engine import MergePool
from core.models.files import TensorFacts
from core.models.loading import load_model
from core.models.memory import FreeMemory, MemoryPlan, choose_plan, open_plans, plan_for
from core.models.metadata import ModelMetadata, read_metadata
from core.models.references import ModelReference, parse_reference
from core.models.stored_sizes import adapted_tensors
from core.models.tokenizer_facts import TokenizerFacts
from core.settings import REPOSITORY, Settings
from tests.tiny_models import save_tiny_llama

GIB = 1 << 30
CONFIG = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
}


def mistral(name: str, dtype: str = "BF16") -> ModelMetadata:
    """A model of 7.24 billion parameters as its headers describe it."""
    block = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "v_proj": (1024, 4096), "o_proj": (4096, 4096)}
    block |= {"gate": (14336, 4096), "up": (14336, 4096), "down": (4096, 14336)}
    shapes = {f"layers.{i}.{key}": shape for i in range(32) for key, shape in block.items()}
    shapes |= {"embed": (32000, 4096), "head": (32000, 4096)}
    tensors = {key: TensorFacts(shape, dtype) for key, shape in shapes.items()}
    nothing = TokenizerFacts(None, 0, {})
    return ModelMetadata(ModelReference("hub", name), CONFIG, tensors, nothing, None, None, False, 0, True)


def llama(name: str, hidden: int, layers: int, inner: int, heads: int, *, tied: bool) -> ModelMetadata:
    """A Llama 3 with 8 key-value heads of the given shape, as its headers describe it."""
    width = hidden // heads
    config = CONFIG | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": 128256,
        "tie_word_embeddings": tied,
    }
    block = {"q": (hidden, hidden), "k": (8 * width, hidden), "v": (8 * width, hidden), "o": (hidden, hidden)}
    block |= {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    shapes = {f"layers.{i}.{key}": shape for i in range(layers) for key, shape in block.items()}
    shapes |= {"embed": (128256, hidden)} if tied else {"embed": (128256, hidden), "head": (128256, hidden)}
    tensors = {key: TensorFacts(shape, "BF16") for key, shape in shapes.items()}
    facts = TokenizerFacts(None, 0, {})
    return ModelMetadata(ModelReference("hub", name), config, tensors, facts, None, None, False, 0, True)


def llama8b(name: str) -> ModelMetadata:
    return llama(name, 4096, 32, 14336, 32, tied=False)


def llama3b(name: str) -> ModelMetadata:
    return llama(name, 3072, 28, 8192, 24, tied=True)


H100, L40S, T4 = FreeMemory(200 * GIB, 78 * GIB), FreeMemory(60 * GIB, 44 * GIB), FreeMemory(28 * GIB, 14 * GIB)
"""Free memory of machines as they are rented: host, and GPU after CUDA's context."""


def wanted(experts: int, **pool: Any) -> RunSpec:
    """A run of a base and some experts, with `pool` added to its pool."""
    data = spec().model_dump(mode="json")
    named = [{"model": f"o/expert{number}"} for number in range(experts)]
    return spec_from_dict(data | {"pool": data["pool"] | {"experts": named} | pool})


def spec(memory: str = "auto", **search: Any) -> RunSpec:
    source = {"source": "file", "path": "pairs.jsonl", "k": 1000}
    pool = {"base": "o/base", "experts": [{"model": "o/expert"}], "memory": memory}
    return spec_from_dict({"pool": pool, "data": {"safety": source, "domain": source}, "search": search})


def chosen(free: FreeMemory, memory: str = "auto", models: tuple[str, ...] = ("o/base", "o/expert")) -> MemoryPlan:
    return choose_plan(open_plans(spec(memory), [mistral(name) for name in models], [], free))


def part(plan: MemoryPlan, name: str) -> int:
    return sum(item.size_bytes for item in plan.parts if item.name.startswith(name))


@pytest.mark.parametrize(
    ("device", "host", "mode", "fits"),
    [
        (140, 200, "resident", True),
        (80, 200, "compact", True),
        (40, 200, "experts on the host", True),
        (24, 200, "streamed", True),
        (24, 70, "compact on the host", True),
        (40, 30, "experts on the host", True),
        (40, 20, "compact on the host", False),
        (12, 200, "compact on the host", False),
    ],
)
def test_auto_takes_the_fastest_mode_that_fits(device: int, host: int, mode: str, fits: bool) -> None:
    plan = chosen(FreeMemory(host * GIB, device * GIB))
    assert (plan.mode, plan.fits()) == (mode, fits)


def test_a_processor_has_nothing_to_stream_to() -> None:
    assert [chosen(FreeMemory(host * GIB)).mode for host in (400, 90, 10)] == ["resident", "compact", "compact"]
    assert not chosen(FreeMemory(10 * GIB)).fits()


def test_a_mode_that_barely_fits_loses_to_one_that_fits_comfortably() -> None:
    models = [mistral("o/base"), mistral("o/expert")]
    needed = plan_for("resident", spec(), models, [], FreeMemory(10**12)).needed("host")
    assert chosen(FreeMemory(needed)).mode == "compact"
    assert chosen(FreeMemory(needed), "resident").mode == "resident"
    assert chosen(FreeMemory(math.ceil(needed / 0.8))).mode == "resident"


def test_a_gradient_search_needs_room_for_its_backward_pass() -> None:
    free = FreeMemory(200 * GIB, 140 * GIB)
    models = [mistral("o/base"), mistral("o/expert")]
    plain, gradient = (
        choose_plan(open_plans(spec(optimizer=name), models, [], free)) for name in ("evomm", "gradient")
    )
    assert part(plain, "backward") == 0
    assert part(gradient, "backward") > GIB


def test_the_parts_of_two_plain_bf16_models() -> None:
    parameters = mistral("o/base").parameters
    free = FreeMemory(200 * GIB, 140 * GIB)
    resident, compact, streamed = (chosen(free, memory) for memory in ("resident", "compact", "streamed"))
    for plan, size in ((resident, 4), (compact, 2)):
        assert part(plan, "base") == part(plan, "task vector") == size * parameters
    assert part(streamed, "base") >= 4 * parameters  # pinned memory comes in powers of two
    assert part(compact, "trim counts") < parameters / 10
    assert streamed.needed("device") < resident.needed("device") - 8 * parameters + 4 * GIB
    assert part(compact, "reading") == 2 * parameters and part(streamed, "reading") == 4 * parameters
    assert resident.as_json()["needed_bytes"] == {side: resident.needed(side) for side in ("device", "host")}


@pytest.mark.parametrize(("device", "peak"), [(140 * GIB, 10), (None, 16)])
def test_bytes_per_parameter_are_those_that_the_docs_state(device: int | None, peak: int) -> None:
    """The live model, the base, a task vector and, where the processor computes, the model that is being read."""
    plan = chosen(FreeMemory(300 * GIB, device), "resident")
    names = ("live model", "base", "task vector") if device else ("live model", "base", "task vector", "reading")
    assert sum(part(plan, name) for name in names) == peak * mistral("o/base").parameters
    for path in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]:
        text = " ".join(path.read_text(encoding="utf-8").split())
        stated = re.findall(r"two models that is (\d+) bytes|(\d+) bytes per parameter for two models", text)
        assert {int(one or other) for one, other in stated} <= {10, 16}, path


@pytest.mark.parametrize(("dtype", "width"), [("auto", 2), ("bfloat16", 2), ("float32", 4)])
def test_the_live_model_counts_in_the_number_format_of_the_spec(dtype: str, width: int) -> None:
    data = spec().model_dump(mode="json")
    pinned = spec_from_dict(data | {"pool": data["pool"] | {"dtype": dtype}})
    models = [mistral("o/base"), mistral("o/expert")]
    plan = plan_for("resident", pinned, models, [], FreeMemory(10**12, 10**12))
    assert part(plan, "live model") == width * models[0].parameters


def test_three_8b_models_fit_an_l40s_with_experts_on_the_host() -> None:
    models = [llama8b("o/base"), llama8b("o/expert0"), llama8b("o/expert1")]
    plan = choose_plan(open_plans(wanted(2), models, [], L40S))
    assert (plan.mode, plan.fits()) == ("experts on the host", True)
    assert 32e9 < plan.needed("device") < 40e9
    assert part(plan, "base") == 2 * models[0].parameters == part(plan, "live model")
    assert all(item.side == "host" for item in plan.parts if item.name.startswith("task vector"))


def test_a_3b_pair_fits_a_t4() -> None:
    plan = choose_plan(open_plans(wanted(1), [llama3b("o/base"), llama3b("o/expert0")], [], T4))
    assert plan.fits() and plan.on_host and plan.compact


@pytest.mark.parametrize("guard_parameters", ["0.6b", "8b"])
def test_a_generator_and_a_guard_leave_an_8b_pair_on_an_h100(guard_parameters: str) -> None:
    """The generator is in memory while data is made; a guard of 8B is loaded beside the pool in other phases only."""
    models = [llama8b("o/base"), llama8b("o/expert0")]
    small = llama("o/guard", 1024, 28, 3072, 16, tied=True)
    guard = small if guard_parameters == "0.6b" else llama8b("o/guard")
    alone = choose_plan(open_plans(wanted(1), models, [], H100, [guard]))
    assert alone.mode == "compact" and alone.fits()
    both = choose_plan(open_plans(wanted(1, generator="o/writer"), models, [llama8b("o/writer")], H100, [small]))
    assert both.mode == "compact" and both.is_comfortable


def test_long_rows_of_scoring_take_what_the_plan_leaves() -> None:
    """They are counted while models are scored, change no mode, and leave the comfortable share free."""
    models = [llama8b("o/base"), llama8b("o/expert0")]
    name = "longer rows of scoring"
    on_h100, on_l40s = (choose_plan(open_plans(wanted(1), models, [], free)) for free in (H100, L40S))
    assert part(on_h100, name) > 5e9 and on_h100.is_comfortable
    assert part(on_l40s, name) < part(on_h100, name)
    assert [item.phases for item in on_h100.parts if item.name.startswith(name)] == [("measuring", "search")]
    full = plan_for("compact", wanted(1), models, [], FreeMemory(200 * GIB, 50 * GIB))
    assert part(full, name) == 0
    wide = plan_for("compact", wanted(1, dtype="float32"), models, [], FreeMemory(200 * GIB, 400 * GIB))
    assert part(wide, name) == 0  # variable-length attention needs bfloat16 or float16
    assert part(choose_plan(open_plans(wanted(1), models, [], FreeMemory(400 * GIB))), name) == 0


def test_each_phase_counts_what_is_in_memory_then() -> None:
    models, writer, guard = [llama8b("o/base"), llama8b("o/expert0")], llama8b("o/writer"), llama8b("o/guard")
    plan = plan_for("compact", wanted(1), models, [writer], H100, [guard])
    unloading = plan_for("compact", wanted(1), models, [writer], H100, [guard], unloads_guards=True)
    peak = {item.name for item in plan.at_peak("device")}
    assert {"o/writer", "o/guard"} <= peak  # while training data is made
    in_search = [item.name for item in unloading.parts if "search" in item.phases]
    assert "o/guard" not in in_search and "o/writer" not in in_search and "live model" in in_search
    assert unloading.unloads_guards and not plan.unloads_guards


def test_a_search_with_a_probe_keeps_its_guard() -> None:
    data = wanted(1).model_dump(mode="json")
    probing = spec_from_dict(data | {"evaluation": data["evaluation"] | {"probe": "prompts.csv"}})
    models, guard = [llama8b("o/base"), llama8b("o/expert0")], [llama8b("o/guard")]
    assert {plan.unloads_guards for plan in open_plans(wanted(1), models, [], H100, guard)} == {True, False}
    assert {plan.unloads_guards for plan in open_plans(probing, models, [], H100, guard)} == {False}


def test_only_ties_counts_magnitudes() -> None:
    models, free = [mistral("o/base"), mistral("o/expert")], FreeMemory(10**12)
    assert part(plan_for("resident", spec(method="dare_ties"), models, [], free), "trim counts") == 0


def test_mergekits_own_code_works_on_whole_tensors() -> None:
    models, free = [mistral("o/base"), mistral("o/expert")], FreeMemory(10**12)
    largest = 4 * 32000 * 4096
    for mode, tensors in (("resident", 5), ("compact", 6)):
        plan = plan_for(mode, spec(method="breadcrumbs", compare=[]), models, [], free)  # type: ignore[arg-type]
        assert part(plan, "working values") == tensors * largest
    rescaled = spec(method="dare_ties", parameters={"rescale": True}, compare=[])
    assert part(plan_for("resident", rescaled, models, [], free), "working values") == 5 * largest
    assert part(plan_for("resident", spec(), models, [], free), "working values") < largest


def test_an_adapter_takes_what_it_changes(tiny_llama: Path, tiny_lora: Path, settings: Settings) -> None:
    names = (str(tiny_llama), f"{tiny_llama}+{tiny_lora}")
    base, expert = (read_metadata(parse_reference(name, settings), settings) for name in names)
    changed = adapted_tensors(expert)
    assert changed == {name for name in base.tensors if "q_proj" in name or "v_proj" in name}
    weights = sum(math.prod(base.tensors[name].shape) for name in changed)
    wanted = spec_from_dict(
        spec().model_dump(mode="json") | {"pool": {"base": names[0], "experts": [{"model": names[1]}]}}
    )
    for mode in ("resident", "compact"):
        plan = plan_for(mode, wanted, [base, expert], [], FreeMemory(10**12))  # type: ignore[arg-type]
        assert part(plan, "task vector") == 4 * weights
        assert part(plan, "cached hidden states") > 0
    assert plan.as_json()["free_bytes"] == {"host": 10**12, "device": None}


@pytest.mark.parametrize("memory", ["resident", "streamed", "compact"])
def test_the_loaded_pool_takes_the_planned_bytes(
    memory: str, tiny_llama: Path, tiny_expert: Path, tiny_lora: Path, settings: Settings
) -> None:
    """The plan's numbers for base and task vectors are the bytes that the loaded pool keeps."""
    lora = f"{tiny_llama}+{tiny_lora}"
    pool = {"base": str(tiny_llama), "experts": [{"model": str(tiny_expert)}, {"model": lora}], "memory": memory}
    wanted = spec_from_dict(spec().model_dump(mode="json") | {"pool": pool})
    models = [
        read_metadata(parse_reference(name, settings), settings) for name in (str(tiny_llama), str(tiny_expert), lora)
    ]
    plan = choose_plan(open_plans(wanted, models, [], FreeMemory(10**12)))
    merge = loaded(wanted, settings, plan)
    kept = merge.stored_bytes
    assert kept[str(tiny_llama)] == part(plan, "base")
    for name in (str(tiny_expert), lora):
        assert kept[name] == part(plan, f"task vector of {name}")


def loaded(wanted: RunSpec, settings: Settings, plan: MemoryPlan | None) -> MergePool:
    pools: list[LivePool] = []
    for _ in load_pool(wanted.pool, settings, pools.append, torch.bfloat16, plan):
        pass
    return pools[0].merge


def test_a_compact_pool_is_read_in_its_own_format_and_leaves_the_live_model_alone(
    tiny_llama: Path, tiny_expert: Path, settings: Settings
) -> None:
    pool = {"base": str(tiny_llama), "experts": [{"model": str(tiny_expert)}], "memory": "compact"}
    wanted = spec_from_dict(spec().model_dump(mode="json") | {"pool": pool})
    models = [read_metadata(parse_reference(str(path), settings), settings) for path in (tiny_llama, tiny_expert)]
    merge = loaded(wanted, settings, choose_plan(open_plans(wanted, models, [], FreeMemory(10**12))))
    merge.write_parent(str(tiny_expert))
    merge.write_parent(str(tiny_llama))
    plain = load_model(parse_reference(str(tiny_llama), settings), settings, torch.bfloat16)
    for name, tensor in merge.live.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name])
    places = {parameter.data_ptr() for parameter in merge.live.parameters()}
    assert not places & {tensor.data_ptr() for tensor in merge._base.values()}


def test_importance_scores_take_the_planned_bytes(
    tiny_llama: Path, tiny_expert: Path, settings: Settings, tmp_path: Path
) -> None:
    ancestor = save_tiny_llama(tmp_path / "ancestor", nudge_seed=9)
    pool = {"base": str(tiny_llama), "experts": [{"model": str(tiny_expert)}], "ancestor": str(ancestor)}
    names = (tiny_llama, tiny_expert, ancestor)
    models = [read_metadata(parse_reference(str(path), settings), settings) for path in names]
    values = spec().model_dump(mode="json") | {"pool": pool}
    plans = {}
    for method in ("led", "ties"):
        wanted = spec_from_dict(values | {"search": {"method": method, "compare": []}})
        plans[method] = plan_for("resident", wanted, models, [], FreeMemory(10**12, 10**12))
    weights = models[0].parameters
    assert part(plans["led"], "importance scores") == 2 * 2 * weights
    assert part(plans["led"], "sums of importance scores") > 4 * weights
    phases = {one.name: one.phases for one in plans["led"].parts}
    assert phases["sums of importance scores"] == phases["backward pass, checkpointed (estimate)"] == ("measuring",)
    assert part(plans["ties"], "importance scores") == part(plans["ties"], "sums of importance scores") == 0


def test_the_plan_is_json() -> None:
    assert json.loads(json.dumps(chosen(FreeMemory(90 * GIB)).as_json()))["mode"] == "compact"
