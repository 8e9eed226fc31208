"""The form is lossless: what the page launches is what the exported YAML would run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts.merge_methods import fast_methods
from core.contracts.run_spec import RunSpec, parse_spec, spec_from_dict
from core.errors import SpecError
from safemerge_ui.form import EXPERT_SLOTS, expert_field, filled_slots, form_from_spec, spec_from_form
from tests.ui.golden import golden_spec

WORDS = st.text("abcdefgh/-.0123", min_size=1, max_size=12).map(str.strip).filter(bool)
COLUMNS = st.fixed_dictionaries(
    {},
    optional={
        "question": WORDS,
        "answer": WORDS,
        "choices": st.lists(WORDS, max_size=2),
        "where": st.dictionaries(WORDS, st.booleans() | st.integers(-9, 9) | WORDS, max_size=2),
    },
)
SOURCES = st.fixed_dictionaries(
    {"source": st.sampled_from(["generate", "dataset", "file"]), "path": WORDS, "k": st.integers(1, 100_000)},
    optional={"config": WORDS, "split": WORDS, "columns": COLUMNS},
)
MIX = st.lists(SOURCES.map(lambda source: {**source, "source": "file"}), max_size=2)
PARAMETERS: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "ties": {"lambda": st.floats(-2, 2), "normalize": st.booleans(), "rescale": st.booleans()},
    "breadcrumbs": {"gamma": st.floats(0, 1), "density": st.floats(0.01, 1)},
    "karcher": {"max_iter": st.integers(1, 99), "tol": st.floats(1e-9, 1e-2)},
    "nearswap": {"t": st.floats(0, 0.1)},
}
GENOMES = st.one_of(
    st.just({}),
    st.builds(
        lambda size, smooth, negative: {
            "layer_granularity": size,
            "smooth": smooth,
            "allow_negative_weights": negative,
            "filters": ["self_attn", "mlp"],
        },
        st.integers(1, 40),
        st.booleans(),
        st.booleans(),
    ),
    st.just({"filters": ["q_proj"]}),
)


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    """Any spec that the page has fields for."""
    domain = st.fixed_dictionaries({"name": WORDS, "topic": st.none() | WORDS, "suite": st.none() | WORDS})
    experts = draw(st.lists(st.fixed_dictionaries({"model": WORDS, "domain": domain}), min_size=1, max_size=4))
    methods = ["ties", "dare_ties", "dare_linear", "task_arithmetic", "linear"]
    pool = {"base": draw(WORDS), "experts": experts, "generator": draw(WORDS), "ancestor": draw(st.none() | WORDS)}
    pool["vocabulary"] = draw(st.sampled_from(["refuse", "base"]))
    pool["memory"] = draw(st.sampled_from(["auto", "resident", "streamed", "compact"]))
    pool["dtype"] = draw(st.sampled_from(["auto", "bfloat16", "float32"]))
    models = {pool["base"], *(expert["model"] for expert in experts)}
    if len(models) > 1:
        methods += ["breadcrumbs", "multislerp", "della"]
    if len(models) == 2 and pool["ancestor"] is None:
        methods += ["slerp", "nearswap", "karcher"]
    method = draw(st.sampled_from(methods))
    fast = method in fast_methods()
    search = {
        "method": method,
        "parameters": draw(st.fixed_dictionaries({}, optional=PARAMETERS.get(method, {}))),
        "steps": draw(st.integers(1, 100_000)),
        "alpha": draw(st.floats(0, 100)),
        "safety": draw(st.booleans()),
        "optimizer": draw(st.sampled_from(["evomm", "bayes", "cocktail", *["grid"] * fast])),
        "temperature": draw(st.floats(0.01, 100)),
        "stop_when_flat": draw(st.none() | st.floats(0.001, 1)),
        "genome": draw(GENOMES) if fast and method not in ("slerp", "dare_ties") else {},
        "compare": draw(st.sampled_from([[], ["equal"], ["equal", "evomm_expert_only", "cocktail_expert_only"]])),
    }
    if search["optimizer"] == "evomm" and search["safety"]:
        search["objective"] = draw(st.sampled_from(["weighted", "pareto", "constraint"]))
    search["safety_tolerance"] = draw(st.floats(0, 9))
    named = draw(st.sets(st.sampled_from([expert["model"] for expert in experts])))
    search["expert_weights"] = {name: draw(st.floats(0.001, 9)) for name in named} or None
    if {expert["domain"]["name"] for expert in experts} & {expert["model"] for expert in experts}:
        search["expert_weights"] = None
    tokens = st.integers(8, 4096)
    limit = draw(st.none() | st.integers(1, 99))
    files = {name: draw(st.none() | WORDS) for name in ("prompts", "probe_questions")}
    evaluation = {**files, "limit": limit, "reply_tokens": draw(tokens)}
    data = {
        "safety": draw(SOURCES) | {"fallback_refusals": draw(st.booleans()), "mix": draw(MIX)},
        "domain": draw(SOURCES) | {"mix": draw(MIX)},
        "reply_tokens": draw(tokens),
    }
    return spec_from_dict({"pool": pool, "search": search, "evaluation": evaluation, "data": data})


@settings(max_examples=60, deadline=None)
@given(specs())
def test_spec_survives_form_and_yaml(spec: RunSpec) -> None:
    form = form_from_spec(spec)
    assert spec_from_form(form) == spec
    assert parse_spec(spec_from_form(form).to_yaml()) == spec


def test_number_fields_may_send_floats() -> None:
    form = form_from_spec(golden_spec()) | {"steps": 30.0, "seed": 3.0, "safety_k": 12.0}
    spec = spec_from_form(form)
    assert (spec.search.steps, spec.search.seed, spec.data.safety.k) == (30, 3, 12)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base": "  "}, "base"),
        ({expert_field(0, "model"): ""}, "expert"),
        ({"steps": 0}, "search.steps"),
        ({"alpha": None}, "search.alpha"),
        ({"steps": 10.5}, "search.steps"),
        ({"safety_source": "file"}, "data.safety"),
        ({"safety_mix": "source: file, path: a.csv, k: 0"}, "data.safety.mix"),
        ({"domain_mix": "source: file, path: [a"}, "domain"),
        ({"generator": ""}, "generator"),
        ({"method": "fisher"}, "search.method"),
        ({"method": "slerp", "ancestor": "org/other"}, "pool.ancestor"),
        ({"method": "slerp", expert_field(1, "model"): "org/third"}, "search.method"),
        ({"method": "nearswap", expert_field(1, "model"): "org/third"}, "search.method"),
        ({"method": "model_stock", expert_field(1, "model"): ""}, "search.method"),
        ({"parameters": "gamma: 0.1"}, "gamma"),
        ({"parameters": "lambda: [unclosed"}, "lambda: [unclosed"),
        ({"parameters": "lambda"}, "search.parameters"),
        ({"vocabulary": "union"}, "pool.vocabulary"),
        ({"optimizer": "random"}, "search.optimizer"),
        ({"temperature": 0}, "search.temperature"),
        ({"stop_when_flat": -0.1}, "search.stop_when_flat"),
        ({"alpha": -1}, "search.alpha"),
        ({"memory": "disk"}, "pool.memory"),
        ({"compare": ["best_of_all"]}, "search.compare"),
        ({"optimizer": "grid", "compare": ["grid"]}, "compare"),
        ({"objective": "lexicographic"}, "search.objective"),
        ({"objective": "pareto", "optimizer": "grid", "compare": []}, "objective"),
        ({"objective": "constraint", "safety": False}, "objective"),
        ({"compare": ["evomm_surrogate"]}, "search.compare"),
        ({"safety_tolerance": -1}, "search.safety_tolerance"),
        ({"expert_weights": "chemistry 2"}, "search.expert_weights"),
        ({"expert_weights": "law: 2"}, "law"),
        ({"expert_weights": "chemistry: 0"}, "search.expert_weights"),
        ({"expert_weights": "chemistry: -1"}, "expert_weights"),
        ({"expert_weights": "chemistry: 1\ndemo/chemistry: 2"}, "search.expert_weights"),
    ],
)
def test_an_error_names_the_key_or_the_value(change: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_from_form(form_from_spec(golden_spec()) | change)
    assert named in caught.value.message
    assert caught.value.hint


def test_additional_sources_have_one_line_each() -> None:
    text = "source: file, path: more.csv, k: 32, columns: {question: ask}\nsource: dataset, path: beavertails"
    spec = spec_from_form(form_from_spec(golden_spec()) | {"safety_mix": text})
    assert [(one.source, one.path, one.k) for one in spec.data.safety.mix] == [
        ("file", "more.csv", 32),
        ("dataset", "beavertails", 64),
    ]
    assert sorted(form_from_spec(spec)["safety_mix"].splitlines()[1].split(", ")) == sorted(
        text.splitlines()[1].split(", ")
    )
    assert spec_from_form(form_from_spec(spec)) == spec


def test_a_pool_beyond_the_slots_is_refused_with_the_command() -> None:
    data = golden_spec().model_dump(mode="json")
    many = data | {"pool": data["pool"] | {"experts": [{"model": f"m{i}"} for i in range(EXPERT_SLOTS + 1)]}}
    with pytest.raises(SpecError) as caught:
        form_from_spec(spec_from_dict(many))
    assert caught.value.code == "no-field"


def test_a_spec_that_does_not_measure_its_parents_is_refused_with_the_command() -> None:
    data = golden_spec().model_dump(mode="json")
    data["evaluation"]["parents"] = False
    with pytest.raises(SpecError) as caught:
        form_from_spec(spec_from_dict(data))
    assert "evaluation.parents" in caught.value.message and caught.value.code == "no-field"


def test_filled_slots_counts_up_to_the_last_expert() -> None:
    form = form_from_spec(golden_spec())
    assert filled_slots(form) == 1
    assert filled_slots(form | {expert_field(2, "model"): "org/other"}) == 3


def test_zero_switches_the_early_stop_off() -> None:
    form = form_from_spec(golden_spec())
    assert spec_from_form({**form, "stop_when_flat": 0}).search.stop_when_flat is None
    assert spec_from_form({**form, "stop_when_flat": 0.01}).search.stop_when_flat == 0.01


def test_fixed_parameters_are_written_as_in_the_file() -> None:
    spec = spec_from_form(form_from_spec(golden_spec()) | {"parameters": "lambda: 0.8, normalize: true"})
    assert spec.search.parameters == {"lambda": 0.8, "normalize": True}
    assert form_from_spec(spec)["parameters"] == "lambda: 0.8, normalize: true"
    many = spec_from_form(
        form_from_spec(golden_spec())
        | {"method": "multislerp", expert_field(1, "model"): "org/third", "parameters": "weight: [0.25, 1]"}
    )
    assert many.search.parameters == {"weight": (0.25, 1.0)}
    assert spec_from_form(form_from_spec(many)) == many
