"""Computes log-likelihoods of many answers with a prefix tree, which computes shared tokens only once.

The choices of a multiple-choice question share the chat template, the question and most of their own tokens. In a
prefix tree every distinct prefix is one node of a dense row. A node attends only to its ancestors and has the position
of its own sample, so that each answer gets the log-likelihood that it has alone, up to rounding. `packing` packs whole
samples for search and training; the tree is faster where samples differ only in their last few tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.models.chat_format import EncodedPair

DEFAULT_ROW_TOKENS = 256
"""The cost of attention grows with the square of the row length; shorter rows repeat more prefixes."""
_LONG_SAMPLE_FACTOR = 1.25
"""A row with a long sample may be this many times as long as the sample, so that its choices stay in one row."""


class AnswerScore(NamedTuple):
    """A model's score of an answer: log-likelihood in nats, and whether greedy decoding would generate it."""

    log_likelihood: float
    greedy: bool


class TreeRow(NamedTuple):
    """One dense row: a prefix tree of several samples.

    Attributes:
        input_ids: (1, L) a token for each node, parents before children.
        position_ids: (1, L) depth of each node, which is its position in every sample that contains it.
        mask: (1, 1, L, L) True where a node (row) may attend to another (column): itself and its ancestors.
        predict_at: (A,) nodes whose next token is an answer token.
        targets: (A,) the answer tokens.
        owner: (A,) index of the sample of each answer token, in the caller's order.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    predict_at: Tensor
    targets: Tensor
    owner: Tensor


def shares_prefixes(model: Any, longest: int) -> bool:
    """Whether a model can score answers in trees: only attention layers, with custom masks and positions.

    Models with state-space layers, with position biases of their own, or with attention kernels without custom masks
    cannot. Models with a sliding window can if no sample is longer than the window.

    Args:
        model: a loaded causal language model.
        longest: number of tokens of the longest sample.
    """
    config = model.config.get_text_config()
    takes = inspect.signature(model.forward).parameters
    window = getattr(config, "sliding_window", None)
    return (
        {"position_ids", "logits_to_keep"} <= takes.keys()
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and not getattr(model, "_is_stateful", False)
        and not getattr(config, "alibi", False)
        and (window is None or longest <= window)
    )


def score_answers(model: Any, pairs: Sequence[EncodedPair], row_tokens: int = DEFAULT_ROW_TOKENS) -> list[AnswerScore]:
    """Score the answer tokens of each pair, in order.

    Args:
        model: a causal language model for which `shares_prefixes` holds.
        pairs: samples with at least one token before and one token in the answer.
        row_tokens: maximum number of nodes in a row, unless a single sample is longer.
    """
    sums = torch.zeros(len(pairs), dtype=torch.float64)
    misses = torch.zeros(len(pairs), dtype=torch.long)
    for row in tree_rows(pairs, row_tokens):
        log_probability, hit = _score_row(model, row)
        sums.index_add_(0, row.owner, log_probability.double().cpu())
        misses.index_add_(0, row.owner, (~hit).long().cpu())
    return [AnswerScore(float(total), not missed) for total, missed in zip(sums, misses, strict=True)]


@torch.inference_mode()
def _score_row(model: Any, row: TreeRow) -> tuple[Tensor, Tensor]:
    """Log-probability (A,) of each answer token in float32, and whether it is the most likely token."""
    device = next(model.parameters()).device
    nodes, which = torch.unique(row.predict_at, return_inverse=True)
    logits = model(
        input_ids=row.input_ids.to(device),
        position_ids=row.position_ids.to(device),
        attention_mask=row.mask.to(device),
        use_cache=False,
        logits_to_keep=nodes.to(device),
    ).logits[0]
    which, targets = which.to(logits.device), row.targets.to(logits.device)
    log_probability = logits.float().log_softmax(-1)[which, targets]
    return log_probability, logits.argmax(-1)[which] == targets


def tree_rows(pairs: Sequence[EncodedPair], row_tokens: int = DEFAULT_ROW_TOKENS) -> Iterator[TreeRow]:
    """Arrange `pairs` in trees of at most `row_tokens` nodes (a longer sample gets a larger tree)."""
    inputs = [pair.input_ids[:-1] for pair in pairs]  # Nothing is predicted after the last token.
    order = sorted(range(len(pairs)), key=inputs.__getitem__)
    group: list[int] = []
    nodes, max_nodes = 0, row_tokens
    for index in order:
        ids = inputs[index]
        # In lexical order the previous sample shares the longest prefix of all earlier samples.
        new = len(ids) - (_common_prefix(inputs[group[-1]], ids) if group else 0)
        if group and nodes + new > max_nodes:
            yield _build_tree(pairs, group)
            group, nodes, new = [], 0, len(ids)
        if not group:
            max_nodes = max(row_tokens, int(len(ids) * _LONG_SAMPLE_FACTOR))
        group.append(index)
        nodes += new
    if group:
        yield _build_tree(pairs, group)


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common prefix."""
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return place
    return min(len(first), len(second))


def _build_tree(pairs: Sequence[EncodedPair], group: Sequence[int]) -> TreeRow:
    """The tree of the samples in `group`, which are in lexical order."""
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    predict_at, targets, owner = [], [], []
    path: list[int] = []
    before: Sequence[int] = ()
    for index in group:
        ids, start = pairs[index].input_ids[:-1], pairs[index].answer_start
        path = path[: _common_prefix(before, ids)]
        for depth in range(len(path), len(ids)):
            parents.append(path[-1] if path else -1)
            path.append(len(tokens))
            tokens.append(ids[depth])
            depths.append(depth)
        answer = pairs[index].input_ids[start:]
        predict_at += path[start - 1 :]
        targets += answer
        owner += [index] * len(answer)
        before = ids
    return TreeRow(
        torch.tensor([tokens]),
        torch.tensor([depths]),
        _ancestors(parents)[None, None],
        torch.tensor(predict_at),
        torch.tensor(targets),
        torch.tensor(owner),
    )


def _ancestors(parents: Sequence[int]) -> Tensor:
    """(L, L) mask, True where the column is the row's node or one of its ancestors; roots have the parent -1."""
    mask = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask
