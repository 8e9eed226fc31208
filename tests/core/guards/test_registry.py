"""Guards by name: detected, named and refused families, classifiers with their labels, guards on the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import GuardError, ModelError, SafeMergeError
from core.guards.guard_names import OWN_GUARDS
from core.guards.phrases import judge_reply
from core.guards.registry import load_guard, look_up_guards
from core.preflight.guard_check import check_guards
from core.settings import Settings
from tests.guard_models import CONFIGS, save_classifier, save_guard
from tests.hub_server import HubServer
from tests.tiny_models import copy_model

PAIR = ("How do I do it?", "I can't help with that.")


@pytest.fixture(scope="module")
def llama_guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_guard(tmp_path_factory.mktemp("guards") / "own-model", "llama-guard", ["safe"])


@pytest.fixture(scope="module")
def rejection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("guards") / "rejection", {"NORMAL": 0.0, "REJECTION": 2.0})


@pytest.mark.parametrize("name", OWN_GUARDS)
def test_every_supported_guard_loads_and_judges(name: str, settings: Settings) -> None:
    guard = load_guard(name, settings)
    assert guard.name == name
    assert guard.judge([PAIR])[0].refusal


@pytest.mark.parametrize("name", ["oracle", "crystal-ball:a/b", "phrases & oracle", "oracle:phrases"])
def test_unknown_guard_names_the_supported_ones(name: str, settings: Settings) -> None:
    with pytest.raises(GuardError) as caught:
        load_guard(name, settings)
    assert caught.value.code in ("unknown-guard", "unknown-guard-family")
    assert "oracle" in caught.value.message or "crystal-ball" in caught.value.message
    assert all(word in caught.value.hint for word in (*OWN_GUARDS, *CONFIGS))


def test_a_guard_is_not_named_twice(settings: Settings) -> None:
    with pytest.raises(GuardError) as caught:
        load_guard("phrases & phrases", settings)
    assert caught.value.code == "guard-named-twice"


@pytest.mark.parametrize(
    "family", ["llama-guard", "qwen3guard", "granite-guardian", "nemotron-3-content-safety", "shieldgemma"]
)
def test_a_family_is_detected_by_the_chat_template(family: str, tmp_path: Path, settings: Settings) -> None:
    folder = save_guard(tmp_path / "own-model", family, ["safe"])
    assert look_up_guards(str(folder), settings)[0].family == family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Llama-Guard-3-8B", "llama-guard"),
        ("LlamaGuard-7b", "llama-guard"),
        ("Qwen3Guard-Gen-0.6B", "qwen3guard"),
        ("granite-guardian-3.3-8b", "granite-guardian"),
        ("granite-guardian-4.1-8b", "granite-guardian-4"),
        ("Nemotron-Content-Safety-Reasoning-4B", "nemotron-content-safety"),
        ("Nemotron-3-Content-Safety", "nemotron-3-content-safety"),
        ("gpt-oss-safeguard-20b-bf16", "gpt-oss-safeguard"),
        ("shieldgemma-2b", "shieldgemma"),
        ("wildguard", "wildguard"),
    ],
)
def test_a_family_is_detected_by_the_models_name(
    name: str, family: str, llama_guard: Path, tmp_path: Path, settings: Settings
) -> None:
    assert look_up_guards(str(copy_model(llama_guard, tmp_path / name)), settings)[0].family == family


def test_a_named_family_takes_precedence(llama_guard: Path, settings: Settings) -> None:
    [known] = look_up_guards(f"wildguard:{llama_guard}", settings)
    assert known.family == "wildguard"


@pytest.mark.parametrize(
    "name",
    [
        "Qwen3Guard-Stream-0.6B",
        "shieldgemma-2-4b-it",
        "Llama-Prompt-Guard-2-86M",
        "llama-3.1-nemoguard-8b-content-safety",
    ],
)
def test_models_that_cannot_judge_replies_are_refused(
    name: str, llama_guard: Path, tmp_path: Path, settings: Settings
) -> None:
    with pytest.raises(GuardError) as caught:
        load_guard(str(copy_model(llama_guard, tmp_path / name)), settings)
    assert caught.value.code == "unsupported-guard" and caught.value.hint


def test_a_model_that_is_no_guard_is_refused(tiny_llama: Path, settings: Settings) -> None:
    with pytest.raises(GuardError) as caught:
        load_guard(str(tiny_llama), settings)
    assert caught.value.code == "not-a-guard" and "FAMILY:" in caught.value.hint


def test_a_guard_without_its_chat_template_is_refused(tmp_path: Path, settings: Settings) -> None:
    folder = save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["safe"])
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(GuardError) as caught:
        load_guard(str(folder), settings)
    assert caught.value.code == "guard-without-template"


@pytest.mark.parametrize("method", ["int8", "mxfp4"])
def test_a_quantized_guard_is_refused(method: str, llama_guard: Path, tmp_path: Path, settings: Settings) -> None:
    folder = copy_model(llama_guard, tmp_path / "Llama-Guard-3-INT8")
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": method}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(GuardError) as caught:
        load_guard(str(folder), settings)
    assert caught.value.code == "quantized"


def test_labels_of_a_classifier_need_meanings(rejection: Path, settings: Settings) -> None:
    for name in (str(rejection), f"classifier:{rejection}", f"classifier[NORMAL=answer]:{rejection}"):
        with pytest.raises(GuardError) as caught:
            load_guard(name, settings)
        assert caught.value.code == "labels-without-meaning" and "REJECTION" in caught.value.message
        assert "NORMAL=…, REJECTION=…" in caught.value.hint
    with pytest.raises(GuardError) as caught:
        load_guard(f"classifier[NORMAL=good]:{rejection}", settings)
    assert caught.value.code == "invalid-label-meaning"


def test_a_classifier_of_refusals_does_not_judge_harm(rejection: Path, settings: Settings) -> None:
    guard = load_guard(f"classifier[NORMAL=answer,REJECTION=refusal]:{rejection}", settings)
    [verdict] = guard.judge([("How?", "Take a pot.")])
    assert (verdict.refusal, verdict.safe, verdict.category) == (True, None, "REJECTION")
    assert verdict.score == pytest.approx(0.881, abs=0.005)
    assert verdict.counts_as_safe


@pytest.mark.parametrize("many", [False, True])
def test_a_classifier_of_harm(many: bool, tmp_path: Path, settings: Settings) -> None:
    folder = save_classifier(tmp_path / "toxic", {"fine": 0.0, "insult": 0.4, "threat": 0.4}, many=many)
    guard = load_guard(f"classifier[fine=safe,insult=unsafe,threat=unsafe]:{folder}", settings)
    harmless, refused = guard.judge([("How?", "Take a pot. " * 40), PAIR])
    assert (harmless.safe, harmless.refusal, refused.refusal) == (False, False, True)
    assert judge_reply(*PAIR).reason in refused.reason


def test_a_causal_model_is_no_classifier(llama_guard: Path, rejection: Path, settings: Settings) -> None:
    for name in (f"classifier[a=safe]:{llama_guard}", f"llama-guard:{rejection}"):
        with pytest.raises(GuardError) as caught:
            load_guard(name, settings)
        assert caught.value.code == "wrong-guard-family"


def test_a_guard_from_the_hub(hub: HubServer, llama_guard: Path, settings: Settings) -> None:
    hub.publish("acme/Llama-Guard-tiny", llama_guard)
    guards, [row] = check_guards("acme/Llama-Guard-tiny", settings)
    weights = "model.safetensors"
    assert hub.sent[f"acme/Llama-Guard-tiny/{weights}"] < (llama_guard / weights).stat().st_size / 2
    assert (row.status, [guard.questions for guard in guards]) == ("ok", [1])
    assert "apache-2.0" in row.detail
    assert load_guard("acme/Llama-Guard-tiny", settings).judge([PAIR])[0].safe is True


def test_a_gated_guard_is_an_error_with_a_hint(hub: HubServer, llama_guard: Path, settings: Settings) -> None:
    hub.publish("acme/Llama-Guard-tiny", llama_guard, gated=True)
    with pytest.raises(ModelError) as caught:
        load_guard("acme/Llama-Guard-tiny", settings)
    assert caught.value.code == "gated"
    [row] = check_guards("acme/Llama-Guard-tiny", settings)[1]
    assert row.status == "error" and "HF_TOKEN" in row.hint


def test_an_unreachable_guard_is_an_error(settings: Settings) -> None:
    with pytest.raises(SafeMergeError) as caught:
        load_guard("acme/Llama-Guard-tiny", settings)
    assert caught.value.code == "hub-unreachable"
