"""Writes the prompt of a guard model about a prompt and a reply: its chat template, or its published instruction.

A reply must not be able to manipulate the guard (prompt injection), so special tokens of the guard inside prompt or
reply are broken up first. A reply that exceeds the guard's context is cut at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from core.errors import GuardError, ModelError
from core.guards.families import Family
from core.guards.guard_generation import GuardPrompt
from core.models.chat_templates import apply_template

_MAX_CONTEXT = 8192
"""Maximum number of tokens of a guard's prompt and answer, even where its configuration allows more."""


class Question(NamedTuple):
    """The prompts about one reply, one for each question of the family; `cut` if the reply was shortened."""

    prompts: tuple[GuardPrompt, ...]
    cut: bool


@dataclass(frozen=True)
class PromptWriter:
    """Writes the prompts for one guard model.

    Attributes:
        name: of the guard.
        family: of the guard.
        tokenizer: of the guard.
        max_tokens: maximum number of tokens of a prompt.
    """

    name: str
    family: Family
    tokenizer: Any
    max_tokens: int

    def question(self, prompt: str, response: str) -> Question | None:
        """The prompts about one reply; None where the user's prompt alone exceeds the guard's context.

        Raises:
            GuardError: the chat template does not accept a prompt and a reply.
        """
        prompt, response = self._break_special_tokens(prompt), self._break_special_tokens(response)
        prompts = self._prompts(prompt, response)
        longest = max(len(one.ids) for one in prompts)
        if longest <= self.max_tokens:
            return Question(prompts, cut=False)
        reply = self._tokens(response)
        kept = (
            len(reply) - (longest - self.max_tokens) - 8
        )  # 8 tokens of margin: a cut text may be tokenized differently
        if kept < 1:
            return None
        prompts = self._prompts(prompt, str(self.tokenizer.decode(reply[:kept])))
        return Question(prompts, cut=True) if max(len(one.ids) for one in prompts) <= self.max_tokens else None

    def _prompts(self, prompt: str, response: str) -> tuple[GuardPrompt, ...]:
        texts = [self._text(prompt, response, variables) for variables in self.family.questions]
        return tuple(GuardPrompt(text, self._tokens(text)) for text in texts)

    def _text(self, prompt: str, response: str, variables: Mapping[str, Any]) -> str:
        if self.family.instruction is not None:
            bos = self.tokenizer.bos_token or ""
            return _filled(self.family.instruction.replace("{bos}", bos), prompt, response)
        for parts in (False, True):
            text = self._render(prompt, response, variables, parts=parts)
            if prompt.strip() in text and response.strip() in text:
                return text
        raise self._template_error("its text lacks the prompt or the reply")

    def _render(self, prompt: str, response: str, variables: Mapping[str, Any], *, parts: bool) -> str:
        """The rendered chat template; templates of multimodal models take contents in `parts`."""
        from jinja2 import TemplateError

        turns = [(role, _filled(text, prompt, response)) for role, text in self.family.turns]
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if parts else text} for role, text in turns
        ]
        try:
            return apply_template(
                self.tokenizer, messages, add_generation_prompt=self.family.generation_prompt, **variables
            )
        except (TemplateError, TypeError, ModelError) as error:
            if not parts:
                return ""
            raise self._template_error(str(error)) from error

    def _template_error(self, why: str) -> GuardError:
        return GuardError(
            f"The chat template of {self.name} does not fit a guard of the family {self.family.name}: {why}.",
            "Name the family before the model (FAMILY:MODEL), or use the published tokenizer files.",
            code="wrong-guard-template",
        )

    def _break_special_tokens(self, text: str) -> str:
        """`text` with a blank inside each special token and reserved word, which would otherwise end its turn."""
        for mark in (*self.tokenizer.all_special_tokens, *self.family.reserved):
            if mark in text:
                text = text.replace(mark, f"{mark[:1]} {mark[1:]}")
        return text

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _filled(text: str, prompt: str, response: str) -> str:
    """`text` with the prompt and the reply in place; braces inside them stay as they are."""
    before, *after = text.split("{response}")
    return response.join([before.replace("{prompt}", prompt), *(part.replace("{prompt}", prompt) for part in after)])


def max_prompt_tokens(model: Any, new_tokens: int) -> int:
    """Maximum number of prompt tokens so that the context also holds an answer of `new_tokens`."""
    config = model.config.get_text_config()
    return min(_MAX_CONTEXT, int(getattr(config, "max_position_embeddings", _MAX_CONTEXT))) - new_tokens
