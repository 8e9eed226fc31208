"""A prompt and a reply as the text a guard model is asked: its own chat template, or the published instruction.

What a model wrote must not steer the guard that reads it, so marks of the guard's template inside prompt or reply are
broken up first. A reply that is longer than the guard reads is cut at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from core.errors import GuardError
from core.guards.families import Family
from core.guards.guard_generation import Asked

_LONGEST = 8192
"""Most tokens of a question to a guard, whatever its configuration allows."""


class Question(NamedTuple):
    """What a guard is asked about one reply: once, or once for each of its principles; `cut` where the reply was."""

    asked: tuple[Asked, ...]
    cut: bool


@dataclass(frozen=True)
class Questioner:
    """Writes questions for one guard model.

    Attributes:
        room: most tokens of a question.
    """

    name: str
    family: Family
    tokenizer: Any
    room: int

    def question(self, prompt: str, response: str) -> Question | None:
        """The question about one reply; None where the prompt alone is longer than the guard reads.

        Raises:
            GuardError: the chat template does not take a prompt and a reply.
        """
        prompt, response = self._harmless(prompt), self._harmless(response)
        asked = self._asked(prompt, response)
        longest = max(len(one.ids) for one in asked)
        if longest <= self.room:
            return Question(asked, cut=False)
        reply = self._tokens(response)
        kept = len(reply) - (longest - self.room) - 8  # a few more, as a cut text may be tokenised otherwise
        if kept < 1:
            return None
        asked = self._asked(prompt, str(self.tokenizer.decode(reply[:kept])))
        return Question(asked, cut=True) if max(len(one.ids) for one in asked) <= self.room else None

    def _asked(self, prompt: str, response: str) -> tuple[Asked, ...]:
        texts = [self._text(prompt, response, variables) for variables in self.family.questions]
        return tuple(Asked(text, self._tokens(text)) for text in texts)

    def _text(self, prompt: str, response: str, variables: Mapping[str, Any]) -> str:
        if self.family.instruction is not None:
            bos = self.tokenizer.bos_token or ""
            return self.family.instruction.format(bos=bos, prompt=prompt, response=response)
        for parts in (False, True):
            text = self._rendered(prompt, response, variables, parts=parts)
            if prompt.strip() in text and response.strip() in text:
                return text
        raise self._refused("leaves out the prompt or the reply")

    def _rendered(self, prompt: str, response: str, variables: Mapping[str, Any], *, parts: bool) -> str:
        """The chat template's text; templates of models that see images take contents in parts."""
        from jinja2 import TemplateError

        turns = [("user", prompt), ("assistant", response)]
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if parts else text} for role, text in turns
        ]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=self.family.generation_prompt, **variables
            )
        except (TemplateError, TypeError) as error:
            if not parts:
                return ""
            raise self._refused(str(error)) from error
        return str(text)

    def _refused(self, why: str) -> GuardError:
        return GuardError(
            f"The chat template of {self.name} is not that of a guard of the family {self.family.name}: {why}.",
            "Name the family in front of the model (FAMILY:MODEL), or take the published tokenizer files.",
        )

    def _harmless(self, text: str) -> str:
        """`text` without the tokenizer's special tokens, which would end the reply's place in the template."""
        for mark in self.tokenizer.all_special_tokens:
            if mark in text:
                text = text.replace(mark, f"{mark[:1]} {mark[1:]}")
        return text

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def room_of(model: Any, new_tokens: int) -> int:
    """Most tokens of a question that leaves room for the answer."""
    config = model.config.get_text_config()
    return min(_LONGEST, int(getattr(config, "max_position_embeddings", _LONGEST))) - new_tokens
