"""Prompts a guard model in batches and reads the start of its answers and the probability of its verdict.

Prompts are sorted by length, batched by a token budget, padded on the left and answered greedily. A batch that does not
fit into memory is split. A batch that exceeds its time limit is stopped, and its unfinished answers are marked late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

TOKEN_BUDGET = 8192
SECONDS_PER_BATCH = 300.0


class GuardPrompt(NamedTuple):
    """One prompt for a guard model: its text and its token ids."""

    text: str
    ids: list[int]


class Answer(NamedTuple):
    """The start of a guard model's answer.

    Attributes:
        text: without special tokens.
        unsafe: probability of the word for unsafe relative to both verdict words; None where the answer does not start
            with one of them.
        late: whether the batch was stopped before the answer ended.
    """

    text: str
    unsafe: float | None
    late: bool


@dataclass(frozen=True)
class GuardReader:
    """A guard model with its verdict words and limits.

    Attributes:
        model: the guard.
        tokenizer: its tokenizer.
        words: its words for safe and unsafe, or None to compute no probability.
        new_tokens: maximum number of tokens of an answer.
        token_budget: maximum number of tokens, with padding, in one batch.
        seconds: time limit of one batch.
    """

    model: Any
    tokenizer: Any
    words: tuple[str, str] | None
    new_tokens: int
    token_budget: int = TOKEN_BUDGET
    seconds: float = SECONDS_PER_BATCH

    def answers(self, prompts: Sequence[GuardPrompt]) -> list[Answer]:
        """The answer to each prompt, in order.

        Raises:
            OutOfMemory: a single prompt does not fit.
        """
        from core.models.out_of_memory import split_on_oom

        answers: dict[int, Answer] = {}
        for batch in self._batches(prompts):
            for part in split_on_oom(batch, lambda places: self._answer(prompts, places), "Judging a reply"):
                answers |= part
        return [answers[place] for place in range(len(prompts))]

    def _batches(self, prompts: Sequence[GuardPrompt]) -> Iterator[list[int]]:
        remaining = sorted(range(len(prompts)), key=lambda place: len(prompts[place].ids), reverse=True)
        budget = self._budget(len(prompts[remaining[-1]].ids)) if remaining else 0
        while remaining:
            size = max(1, budget // (len(prompts[remaining[0]].ids) + self.new_tokens))
            yield remaining[:size]
            remaining = remaining[size:]

    def _budget(self, shortest: int) -> int:
        """Tokens in a batch: `token_budget`, on a GPU doubled as often as its free memory allows.

        Args:
            shortest: number of tokens of the shortest prompt. Each prompt needs the logits of its whole answer.
        """
        from core.models.out_of_memory import free_device_bytes
        from core.models.reply_budget import bytes_per_token, fitting_budget

        if self.model.device.type != "cuda":
            return self.token_budget
        config = self.model.config.get_text_config()
        logits = 4 * self.new_tokens * int(config.vocab_size) if self.words is not None else 0
        token = bytes_per_token(config, self.model.dtype.itemsize) + logits // (shortest + self.new_tokens)
        return fitting_budget(free_device_bytes(), token, self.token_budget)

    def _answer(self, prompts: Sequence[GuardPrompt], places: Sequence[int]) -> dict[int, Answer]:
        import torch

        pad = self._pad()
        width = max(len(prompts[place].ids) for place in places)
        rows = [[pad] * (width - len(prompts[place].ids)) + prompts[place].ids for place in places]
        mask = [[0] * (width - len(prompts[place].ids)) + [1] * len(prompts[place].ids) for place in places]
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=torch.tensor(rows, device=self.model.device),
                attention_mask=torch.tensor(mask, device=self.model.device),
                max_new_tokens=self.new_tokens,
                max_time=self.seconds,
                do_sample=False,
                pad_token_id=pad,
                output_logits=self.words is not None,
                return_dict_in_generate=True,
            )
        written = output.sequences[:, width:]
        return {place: self._read(written[row], output.logits, row) for row, place in enumerate(places)}

    def _read(self, written: Any, logits: Any, row: int) -> Answer:
        """The answer in one row, with the probability of unsafe at its first token that is not white space."""
        ids = written.tolist()
        ended = any(token in self._ends() for token in ids)
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        unsafe = None
        if self.words is not None:
            first = next((step for step, token in enumerate(ids) if self.tokenizer.decode([token]).strip()), None)
            unsafe = None if first is None else self._probability(logits[first][row], ids[first])
        return Answer(text, unsafe, late=not ended and len(ids) < self.new_tokens)

    def _probability(self, logits: Any, chosen: int) -> float | None:
        import torch

        safe, unsafe = (self._distinct_first_tokens(word) for word in self.words or ())
        if not (safe and unsafe) or chosen not in safe | unsafe:
            return None
        both = torch.softmax(logits[[*sorted(safe), *sorted(unsafe)]].float(), dim=0)
        return float(both[len(safe) :].sum())

    def _distinct_first_tokens(self, word: str) -> set[int]:
        """First tokens of a verdict word, without those with which the other word starts too."""
        other = next(one for one in self.words or () if one != word)
        return self._first_tokens(word) - self._first_tokens(other)

    def _first_tokens(self, word: str) -> set[int]:
        spellings = (word, f" {word}", f"\n{word}")
        encoded = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in spellings]
        blank = [ids for ids in encoded if ids and self.tokenizer.decode([ids[0]]).strip()]
        return {ids[0] for ids in blank}

    def _pad(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    def _ends(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        own = ends if isinstance(ends, list) else [ends]
        return {int(token) for token in (*own, self.tokenizer.eos_token_id) if token is not None}
