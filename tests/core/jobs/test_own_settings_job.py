"""A run measures each member under its own settings, and the merge under those that the spec names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from core.contracts.events import Finished
from core.contracts.run_spec import PoolSpec, spec_from_dict
from core.data.training_pairs import read_samples
from core.errors import SpecError
from core.jobs.live_pool import LivePool, load_pool
from core.jobs.worker import run_worker
from core.models.chat_format import encode_prompt
from core.models.end_tokens import end_token_ids
from core.runs.folder import RunFolder
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.settings import Settings
from tests.tiny_models import CHATML, save_tiny_llama
from tests.tiny_runs import Files, spec_of

PLAIN = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
ASKED = [[{"role": "user", "content": "What is the capital of France?"}]]
TALKING: dict[str, Any] = {"tie_word_embeddings": False, "initializer_range": 0.4}


def load(settings: Settings, base: Path, expert: Path, **pool: Any) -> LivePool:
    spec = PoolSpec.model_validate({"base": str(base), "experts": [{"model": str(expert)}], **pool})
    pools: list[LivePool] = []
    for _ in load_pool(spec, settings, pools.append, torch.float32):
        pass
    return pools[0]


def reply_of(folder: Path, tokens: int = 8) -> str:
    """What plain transformers writes with the saved model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([encode_prompt(tokenizer, ASKED[0])])
    output = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def reply_in(pool: LivePool, name: Path) -> str:
    (reply,) = pool.as_text_model(str(name)).reply(ASKED, max_new_tokens=8, temperature=0, seed=0)
    return reply


@pytest.mark.parametrize(
    ("base_has", "expert_has"),
    [
        ({"rope_theta": 1e6}, {"rope_theta": 10.0}),
        ({}, {"rms_norm_eps": 3.0}),
        ({}, {"chat_template": PLAIN}),
        ({"chat_template": None}, {"chat_template": CHATML}),
        ({"chat_template": CHATML}, {"chat_template": None}),
    ],
)
def test_a_member_replies_as_it_does_alone(
    base_has: dict[str, Any], expert_has: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    base = save_tiny_llama(tmp_path / "base", **TALKING | base_has)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, **TALKING | expert_has)
    pool = load(settings, base, expert)
    assert pool.own.keys() == {str(expert)}
    for folder in (expert, base, expert):
        assert reply_in(pool, folder) == reply_of(folder)
    pool.merge.write_parent(str(expert))
    under_base = pool.live.generate(
        torch.tensor([encode_prompt(pool.tokenizer, ASKED[0])]), max_new_tokens=8, do_sample=False, pad_token_id=0
    )
    assert pool.tokenizer.batch_decode(under_base)[0] not in reply_of(expert)


def test_generation_settings_are_the_member_s(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", **TALKING)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, **TALKING)
    GenerationConfig(eos_token_id=2, repetition_penalty=50.0).save_pretrained(expert)
    pool = load(settings, base, expert)
    assert reply_in(pool, expert) == reply_of(expert)
    assert pool.live.generation_config.repetition_penalty in (None, 1.0)


def test_members_that_agree_share_the_live_model(settings: Settings, tiny_llama: Path, tiny_expert: Path) -> None:
    pool = load(settings, tiny_llama, tiny_expert)
    assert pool.own == {}
    assert pool.member(str(tiny_expert)).model is pool.live


def test_an_ancestor_only_gives_weights(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", nudge_seed=1, rope_theta=77.0, **TALKING)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=2, rope_theta=77.0, **TALKING)
    ancestor = save_tiny_llama(tmp_path / "ancestor", rope_theta=1e6, chat_template=None, eos_token_id=5, **TALKING)
    GenerationConfig(eos_token_id=[2, 9]).save_pretrained(base)
    GenerationConfig(eos_token_id=[2, 9]).save_pretrained(expert)
    GenerationConfig(eos_token_id=5).save_pretrained(ancestor)
    pool = load(settings, base, expert, ancestor=str(ancestor))
    assert pool.anchor == str(ancestor)
    assert pool.tokenizer.chat_template == CHATML
    assert pool.live.config.rope_parameters["rope_theta"] == 77.0
    assert pool.live.generation_config.eos_token_id == [2, 9]
    assert 5 not in end_token_ids(pool.live, pool.tokenizer)
    assert pool.own == {}
    for folder in (base, expert):
        pool.merge.write_parent(str(folder))
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        ids = torch.arange(3, 40)[None]
        with torch.no_grad():
            assert torch.allclose(pool.live(ids).logits, expected(ids).logits, atol=1e-4)


def test_the_spec_names_whose_settings_the_merge_has(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", rope_theta=1e6, **TALKING)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, rope_theta=10.0, chat_template=PLAIN, **TALKING)
    pool = load(settings, base, expert, config=str(expert))
    assert pool.live.config.rope_parameters["rope_theta"] == 10.0
    assert pool.tokenizer.chat_template == PLAIN
    assert pool.own.keys() == {str(base)}
    for folder in (base, expert):
        assert reply_in(pool, folder) == reply_of(folder)


def test_a_model_outside_the_pool_cannot_give_the_settings() -> None:
    with pytest.raises(SpecError) as error:
        spec_from_dict({"pool": {"base": "a/b", "experts": [{"model": "c/d"}], "config": "e/f"}})
    assert "config_outside_pool" in {problem.kind for problem in error.value.problems}


ALPACA_NAME = "WizardMath-tiny"


@pytest.mark.parametrize(
    ("name", "template", "starts"),
    [
        ("expert", None, "What is"),
        (ALPACA_NAME, None, "Below is an instruction"),
        (ALPACA_NAME, "plain", "What is"),
        ("expert", "vicuna", "A chat between"),
        ("expert", PLAIN, "What is"),
    ],
)
def test_an_expert_without_a_template_is_asked_in_its_own_format(
    name: str, template: str | None, starts: str, settings: Settings, tmp_path: Path
) -> None:
    base = save_tiny_llama(tmp_path / "base", **TALKING)
    expert = save_tiny_llama(tmp_path / name, nudge_seed=1, chat_template=None, **TALKING)
    experts = [{"model": str(expert), "domain": {"name": "poetry", "template": template}}]
    pool = load(settings, base, expert, experts=experts)
    asked = pool.member(str(expert)).tokenizer
    assert asked.decode(encode_prompt(asked, ASKED[0])).startswith(starts)
    assert pool.tokenizer.chat_template == CHATML
    assert pool.member(str(base)).tokenizer is pool.tokenizer


def test_the_owner_of_the_settings_keeps_its_named_format(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", **TALKING)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, chat_template=None, **TALKING)
    experts = [{"model": str(expert), "domain": {"name": "poetry", "template": PLAIN}}]
    pool = load(settings, base, expert, experts=experts, config=str(expert))
    assert pool.tokenizer.chat_template == PLAIN
    assert pool.member(str(base)).tokenizer.chat_template == CHATML


def test_an_expert_that_was_saved_without_a_tokenizer_has_the_base_s(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", **TALKING)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, **TALKING)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (expert / name).unlink(missing_ok=True)
    assert load(settings, base, expert).own == {}


class Run:
    """A finished run of a base and an expert with other rotary frequencies."""

    def __init__(self, folder: Path, **evaluation: Any) -> None:
        self.base = save_tiny_llama(folder / "base", rope_theta=1e6, dtype=torch.float32, **TALKING)
        self.expert = save_tiny_llama(
            folder / "expert", nudge_seed=1, rope_theta=10.0, chat_template=PLAIN, dtype=torch.float32, **TALKING
        )
        files = Files(folder)
        measured = {"prompts": files.prompts, "benign": files.benign, "reply_tokens": 8} | evaluation
        spec = spec_of(self.base, self.expert, files, pool={"dtype": "float32"}, evaluation=measured)
        self.folder = RunFolder(folder / "run")
        settings = Settings(folder / "home", folder / "runs", False, frozenset(), None, 2.0)
        end = run_worker(spec, settings, self.folder)
        assert isinstance(end, Finished), end
        lines = (self.folder.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
        self.raw = [json.loads(line) for line in lines]
        self.result = end.result

    def loss_alone(self, folder: Path) -> tuple[float, float]:
        """The losses of a saved model that is scored by itself."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        safety, domain = (read_samples(self.folder.data_path(name)) for name in ("safety", "domain"))
        sets = TrainingSet(tokenizer, safety, opening=REFUSAL_OPENING), TrainingSet(tokenizer, domain, opening=None)
        scores = Scorer(model, *sets).score()
        assert scores.safety and scores.expert
        return scores.safety.loss, scores.expert.loss


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("own"))


def test_parents_have_their_own_losses_and_the_merge_the_base_s(run: Run) -> None:
    measured = {model.name: model for model in run.result.models}
    for folder in (run.base, run.expert):
        parent = measured[str(folder)]
        assert (parent.ce_safety, parent.ce_expert) == pytest.approx(run.loss_alone(folder), rel=1e-5)
    merged = measured["evomm"]
    assert (merged.ce_safety, merged.ce_expert) == pytest.approx(run.loss_alone(run.folder.merged_path), rel=1e-5)
    config = json.loads((run.folder.merged_path / "config.json").read_text())
    assert config["rope_parameters"]["rope_theta"] == 1e6


def test_members_that_never_stop_are_reported(run: Run) -> None:
    warned = [event["message"] for event in run.raw if event["kind"] == "warned"]
    for folder in (run.base, run.expert):
        assert any(str(folder) in message and "<|im_end|>" in message for message in warned)
