"""A chat template is a program from the Hub: it runs in a sandbox, with limits on time, memory and output."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from jinja2 import TemplateError

from core.errors import ModelError
from core.models import chat_templates
from core.models.chat_format import encode_prompt
from core.models.chat_templates import TemplateWorker, apply_template, is_bounded
from tests.core.models.test_chat_format import LLAMA2, NO_SYSTEM, THINKING
from tests.tiny_models import CHATML, tiny_tokenizer

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Which element?"}]
ASSIGNING = "{% set mark = '<' %}{% for message in messages %}{{ mark ~ message['content'] ~ eos_token }}{% endfor %}"
LONG = "{{ 'x' * 3000000000 }}"
LIMITS = {
    "an endless loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "a long power": "{{ 9 ** (9 ** 9) }}",
    "a text of 3 GB": LONG,
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "a long text": "{% for a in range(3000) %}{{ 'x' * 1000 }}{% endfor %}",
    "padding": "{{ '%9999999999d' % 1 }}",
}
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ self.__init__.__globals__['os'].popen('id').read() }}",
    "{{ ''|attr('format')|attr('__globals__') }}{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
]


@pytest.fixture(scope="module")
def worker() -> Iterator[TemplateWorker]:
    one = TemplateWorker(time_limit_s=2.0)
    yield one
    one.close()


@pytest.mark.parametrize("template", [CHATML, LLAMA2, THINKING])
def test_templates_that_copy_messages_are_bounded(template: str) -> None:
    assert is_bounded(template)


@pytest.mark.parametrize(
    "template",
    [*LIMITS.values(), *ESCAPES, ASSIGNING, NO_SYSTEM, "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% if %}",
     "{% for a in messages %}{% for b in messages %}{% endfor %}{% endfor %}", "{{ messages|join('x') }}",
     "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}", "{{ messages|indent(999999999) }}",
     "{% for a in messages[0].content %}x{% endfor %}", "x" * 20_001, "{{ 'a' | center(1000000000) }}"],
)  # fmt: skip
def test_any_other_template_is_not(template: str) -> None:
    assert not is_bounded(template)


@pytest.mark.parametrize("template", LIMITS.values(), ids=LIMITS)
def test_a_template_is_stopped_at_its_limits_and_the_next_is_rendered(worker: TemplateWorker, template: str) -> None:
    assert worker.render("{{ messages[0].content.strip() }}", ASK, {}) == "Which element?"
    began = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        worker.render(template, ASK, {})
    assert caught.value.code in ("chat-template-limit", "chat-template-fails")
    assert time.perf_counter() - began < 10
    assert worker.render("{{ messages[0].content.strip() }}", ASK, {}) == "Which element?"


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_does_not_leave_the_sandbox(worker: TemplateWorker, template: str) -> None:
    try:
        text = worker.render(template, ASK, {})
    except (ModelError, TemplateError):
        return
    assert "uid=" not in text and "__builtins__" not in text and "class" not in text


def test_the_worker_writes_what_transformers_writes(worker: TemplateWorker) -> None:
    for template in (CHATML, LLAMA2, ASSIGNING, "{{ messages|tojson }}", "{% generation %}a{% endgeneration %}"):
        tokenizer = tiny_tokenizer(template)
        here = tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True)
        variables = {**tokenizer.special_tokens_map, "add_generation_prompt": True}
        assert worker.render(template, ASK, variables) == here


def test_a_refusal_and_a_mistake_of_a_template_are_told_apart(worker: TemplateWorker) -> None:
    with pytest.raises(TemplateError, match="no system role"):
        worker.render(NO_SYSTEM, [{"role": "system", "content": "x"}], {})
    with pytest.raises(ModelError) as caught:
        worker.render("{{ 1 / 0 }}", ASK, {})
    assert caught.value.code == "chat-template-fails"


def test_one_stopped_template_does_not_stop_another_thread(worker: TemplateWorker) -> None:
    errors: list[Exception] = []

    def endless() -> None:
        try:
            worker.render(LIMITS["an endless loop"], ASK, {})
        except ModelError as error:
            errors.append(error)

    thread = threading.Thread(target=endless)
    thread.start()
    assert worker.render("{{ 'on'.upper() }}", ASK, {}) == "ON"
    thread.join()
    assert len(errors) == 1


def test_prompts_of_untrusted_templates_are_rendered_in_the_process(
    worker: TemplateWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_templates, "_worker", lambda: worker)
    tokenizer = tiny_tokenizer(ASSIGNING)
    assert tokenizer.decode(encode_prompt(tokenizer, ASK)) == "<Which element?<|im_end|>"
    tokenizer.chat_template = LONG
    monkeypatch.setattr(type(tokenizer), "apply_chat_template", lambda *_, **__: pytest.fail("rendered here"))
    with pytest.raises(ModelError):
        apply_template(tokenizer, ASK, add_generation_prompt=True)
