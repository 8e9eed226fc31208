"""An lm-eval model that scores with prefix trees instead of padded batches.

The scores are the same with a fraction of the tokens, because the choices of all questions share their prefixes.
lm-eval's own code scores requests that a tree does not support (truncation, encoder-decoder models, models without
custom attention masks). In low precision our scores are more exact: lm-eval rounds log-probabilities to the model's
dtype.
"""

from __future__ import annotations

import copy
from typing import Any

from lm_eval.models.huggingface import HFLM

from core.evaluation.token_tree import DEFAULT_ROW_TOKENS, score_answers, shares_prefixes
from core.models.chat_format import EncodedPair
from core.models.chat_templates import apply_template
from core.models.out_of_memory import split_on_oom

_Request = tuple[tuple[str, str], list[int], list[int]]
"""lm-eval's format: (context and continuation as text, context tokens, continuation tokens)."""


class PackedLM(HFLM):  # type: ignore[misc]
    """A loaded model with lm-eval's interface.

    Args:
        model: a loaded causal language model; it is set to evaluation mode.
        tokenizer: its tokenizer; it is not changed (lm-eval would add a padding token).
        batch_size: for lm-eval's own code: generation tasks and the exceptions above.
        row_tokens: maximum number of tokens in a row.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_size: int = 8, row_tokens: int = DEFAULT_ROW_TOKENS
    ) -> None:
        padded = tokenizer if tokenizer.pad_token_id is not None else copy.deepcopy(tokenizer)
        super().__init__(pretrained=model, tokenizer=padded, backend="causal", batch_size=batch_size)
        self._row_tokens = row_tokens

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the chat template writes it, with its limits; without system turns if it refuses them."""
        from jinja2 import TemplateError

        asked = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
            **self.chat_template_args,
        }
        try:
            return apply_template(self.tokenizer, chat_history, **asked)
        except TemplateError:
            without_system = [message for message in chat_history if message["role"] != "system"]
            return apply_template(self.tokenizer, without_system, **asked)

    def _loglikelihood_tokens(
        self, requests: list[_Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation and whether greedy decoding would write it, in the order given."""
        longest = max((len(context) + len(continuation) for _, context, continuation in requests), default=0)
        complete = all(context and continuation for _, context, continuation in requests)
        if not complete or longest > self.max_length + 1 or not shares_prefixes(self.model, longest):
            scored: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
            return scored
        pairs = [EncodedPair(context + continuation, len(context)) for _, context, continuation in requests]
        parts = split_on_oom(pairs, lambda part: score_answers(self.model, part, self._row_tokens), "Scoring an answer")
        return [(float(total), greedy) for part in parts for total, greedy in part]
