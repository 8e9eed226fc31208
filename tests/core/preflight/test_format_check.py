"""Preflight says in which format each member is asked, and which ids stand for two tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import CheckRow
from core.contracts.run_spec import RunSpec
from core.preflight.run_check import preflight
from core.settings import Settings
from tests.tiny_models import CHATML, VOCABULARY, save_tiny_llama, tiny_tokenizer
from tests.tiny_runs import Files, spec_of

TOOLS = CHATML.replace("<|im_start|>", "<|turn|>")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def rows_of(spec: RunSpec, settings: Settings, model: object) -> dict[str, CheckRow]:
    return {row.check: row for row in preflight(spec, settings) if row.model == str(model)}


def spec_with(base: Path, expert: Path, files: Files, *, template: str | None = None, **pool: Any) -> RunSpec:
    experts = [{"model": str(expert), "domain": {"name": "poetry", "template": template}}]
    return spec_of(base, expert, files, pool={"experts": experts, **pool})


@pytest.mark.parametrize(
    ("name", "template", "status", "named"),
    [
        ("WizardMath", None, "warning", "'alpaca'"),
        ("unnamed", None, "warning", "plain lines"),
        ("unnamed", "vicuna", "ok", "vicuna, as domain.template says"),
        ("unnamed", "vicunna", "error", "vicunna"),
        ("unnamed", "{% for %}", "error", "Jinja"),
    ],
)
def test_the_format_of_an_expert_without_a_template(
    name: str, template: str | None, status: str, named: str, files: Files, settings: Settings, tmp_path: Path
) -> None:
    base = save_tiny_llama(tmp_path / "base")
    expert = save_tiny_llama(tmp_path / name, nudge_seed=1, chat_template=None)
    rows = rows_of(spec_with(base, expert, files, template=template), settings, expert)
    assert rows["chat template"].status == status
    assert named in rows["chat template"].detail
    if status != "error":
        assert rows["chat template equals base"].status == "warning"


def test_equal_formats_by_different_ways_agree(files: Files, settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", chat_template=None)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1)
    rows = rows_of(spec_with(base, expert, files, template="plain"), settings, expert)
    assert rows["chat template equals base"].status == "ok"


def test_a_space_does_not_open_template_files(files: Files, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(CHATML, encoding="utf-8")
    expert = {"model": "demo/chemistry", "domain": {"name": "chemistry", "template": str(tmp_path / "own.jinja")}}
    spec = spec_of(tmp_path, tmp_path, files, pool={"base": "demo/aligned", "experts": [expert]})
    row = rows_of(spec, replace(settings, on_space=True), "demo/chemistry")["chat template"]
    assert row.status == "error" and "local path" in row.detail


def with_tokens(folder: Path, *tokens: str, template: str = CHATML) -> Path:
    tokenizer = tiny_tokenizer(template)
    tokenizer.add_tokens([f"<unused{number}>" for number in range(VOCABULARY - len(tokenizer))])
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_format_without_rows_is_reported(files: Files, settings: Settings, tmp_path: Path) -> None:
    base = with_tokens(save_tiny_llama(tmp_path / "base"))
    wider = save_tiny_llama(tmp_path / "expert", nudge_seed=1, vocab_size=VOCABULARY + 1)
    expert = with_tokens(wider, "<|turn|>", template=TOOLS)
    row = rows_of(spec_with(base, expert, files, vocabulary="base"), settings, expert)["prompt format"]
    assert row.status == "warning" and "<|turn|>" in row.detail and "the base's format" in row.detail


def test_an_id_with_two_meanings_is_reported(files: Files, settings: Settings, tmp_path: Path) -> None:
    rows = VOCABULARY + 1
    base = with_tokens(save_tiny_llama(tmp_path / "base", vocab_size=rows), "[PAD]")
    expert = with_tokens(save_tiny_llama(tmp_path / "expert", nudge_seed=1, vocab_size=rows), "<|turn|>")
    row = rows_of(spec_with(base, expert, files), settings, expert)["tokenizer equals base"]
    assert row.status == "warning"
    assert f"{VOCABULARY} is <|turn|>, in the base [PAD]" in row.detail
    assert "base's rows" in row.detail


def test_added_tokens_outside_tokenizer_json_are_compared(files: Files, settings: Settings, tmp_path: Path) -> None:
    rows = VOCABULARY + 1
    base = with_tokens(save_tiny_llama(tmp_path / "base", vocab_size=rows), "[PAD]")
    expert = with_tokens(save_tiny_llama(tmp_path / "expert", nudge_seed=1, vocab_size=rows))
    config = json.loads((expert / "tokenizer_config.json").read_text())
    (expert / "tokenizer_config.json").write_text(json.dumps(config))
    (expert / "added_tokens.json").write_text(json.dumps({"<|turn|>": VOCABULARY}))
    row = rows_of(spec_with(base, expert, files), settings, expert)["tokenizer equals base"]
    assert "<|turn|>" in row.detail and "[PAD]" in row.detail


@pytest.mark.parametrize(
    "template", ["no message", "{{ raise_exception('refused') }}", "{% for x in %}", "{{ absent.value }}"]
)
@pytest.mark.parametrize("of_base", [False, True])
def test_templates_that_write_no_message_are_refused(
    template: str, of_base: bool, files: Files, settings: Settings, tmp_path: Path
) -> None:
    base, expert = save_tiny_llama(tmp_path / "base"), save_tiny_llama(tmp_path / "expert", nudge_seed=1)
    broken = base if of_base else expert
    (broken / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert rows_of(spec_with(base, expert, files), settings, broken)["chat template"].status == "error"
