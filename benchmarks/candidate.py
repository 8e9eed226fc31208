"""Seconds for one candidate, merged and scored, against evolution on disk: `python -m benchmarks.candidate --json`.

Demo pool as two bf16 checkpoints, TIES, K = 64 + 64 pairs of the demo's train split (`benchmarks.workload`); `--tiny`:
two random Llamas of a few thousand weights. Each repetition takes numbers of its own and measures, one after the other:

- `ours_s`: the merge into the live model, and both losses from packed rows that start above the blocks that no
  candidate changes. `every_block_s` is the same with all blocks run, as where a fine-tune changes every block.
- `on_disk_s`: mergekit's `run_merge` to disk, `from_pretrained`, and both losses by a plain loop over batches of 8,
  padded, in order of length, with logits at every position; in the same number format.

Losses of both are given: they must agree up to rounding. The checkpoints' one-off loading is not in either.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from benchmarks.merge import recipe
from benchmarks.timing import spread, timed
from benchmarks.workload import Checkpoints, demo_checkpoints, tiny_checkpoints
from core.contracts.run_spec import ExpertSpec, PoolSpec
from core.jobs.live_pool import LivePool, load_pool
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe
from core.models.chat_format import EncodedPair, encode_pair
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.settings import load_settings

BATCH = 8


def measure(work: Checkpoints, repetitions: int, scratch: Path) -> dict[str, Any]:
    """Time `repetitions` candidates of each way."""
    pool = open_pool(work)
    scorer, every_block = scorer_of(pool, work, pool.merge.changing), scorer_of(pool, work, None)
    places = [(i + 0.5) / repetitions for i in range(repetitions)]
    pool.merge.apply(recipe(work.names, "ties", 0.99))  # counts magnitudes, once per run
    scorer.score()
    rounds = [_round(pool, scorer, every_block, work, recipe(work.names, "ties", at), scratch) for at in places]
    ours, theirs, plain = (
        statistics.median(row[key]["total"] for row in rounds) for key in ("ours_s", "on_disk_s", "every_block_s")
    )
    return {
        "benchmark": "candidate",
        "pool": work.name,
        "pairs": [len(work.safety), len(work.domain)],
        "dtype": str(pool.live.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "repetitions": repetitions,
        "ours_s": _medians(rounds, "ours_s"),
        "every_block_s": _medians(rounds, "every_block_s"),
        "on_disk_s": _medians(rounds, "on_disk_s"),
        "losses": [row["losses"] for row in rounds],
        "ratios": {"on_disk_to_ours": theirs / ours, "on_disk_to_every_block": theirs / plain},
    }


def open_pool(work: Checkpoints) -> LivePool:
    """The checkpoints in memory, as a run has them."""
    pools: list[LivePool] = []
    spec = PoolSpec(base=str(work.base), experts=(ExpertSpec(model=str(work.expert)),))
    for _ in load_pool(spec, load_settings(), pools.append):
        pass
    return pools[0]


def scorer_of(pool: LivePool, work: Checkpoints, changing: frozenset[str] | None) -> Scorer[TrainingSet]:
    """A run's scorer; `changing` None runs every block for every candidate."""
    safety = TrainingSet(pool.tokenizer, work.safety, opening=REFUSAL_OPENING)
    return Scorer(pool.live, safety, TrainingSet(pool.tokenizer, work.domain, opening=None), changing)


def _round(
    pool: LivePool, scorer: Scorer[TrainingSet], every_block: Scorer[TrainingSet], work: Checkpoints, wanted: Recipe, scratch: Path
) -> dict[str, Any]:
    merge_s, _ = timed(lambda: pool.merge.apply(wanted))
    score_s, scores = timed(scorer.score)
    plain_s, _ = timed(every_block.score)
    on_disk, losses = _on_disk(wanted, work, scratch, pool.live.dtype)
    assert scores.safety is not None and scores.expert is not None
    return {
        "ours_s": {"merge": merge_s, "score": score_s, "total": merge_s + score_s},
        "every_block_s": {"merge": merge_s, "score": plain_s, "total": merge_s + plain_s},
        "on_disk_s": on_disk,
        "losses": {"ours": [scores.safety.loss, scores.expert.loss], "on_disk": losses},
    }


def _on_disk(
    wanted: Recipe, work: Checkpoints, scratch: Path, dtype: torch.dtype
) -> tuple[dict[str, float], list[float]]:
    """What evolution on disk does for a candidate; the folder is cleared outside the time."""
    folder = scratch / "merged"
    config = to_mergekit(wanted, out_dtype="bfloat16")
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    tokenizer = work.tokenizer()
    pairs = [[encode_pair(tokenizer, s.question, s.answer) for s in part] for part in (work.safety, work.domain)]
    merge_s, _ = timed(lambda: run_merge(config, str(folder), options))
    load_s, model = timed(lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval())
    score_s, losses = timed(lambda: [padded_loss(model, part, tokenizer.pad_token_id) for part in pairs])
    shutil.rmtree(folder)
    return {"merge": merge_s, "load": load_s, "score": score_s, "total": merge_s + load_s + score_s}, losses


@torch.inference_mode()
def padded_loss(model: Any, pairs: Sequence[EncodedPair], pad: int) -> float:
    """Mean over samples of the mean cross-entropy of their answers, by batches padded on the right."""
    ordered = sorted(pairs, key=lambda pair: len(pair.input_ids))
    losses: list[float] = []
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        width = max(len(pair.input_ids) for pair in batch)
        ids = torch.tensor([[*pair.input_ids, *[pad] * (width - len(pair.input_ids))] for pair in batch])
        mask = torch.tensor([[i < len(pair.input_ids) for i in range(width)] for pair in batch]).long()
        logits = model(input_ids=ids, attention_mask=mask).logits
        for row, pair in zip(logits, batch, strict=True):
            answer = slice(pair.answer_start - 1, len(pair.input_ids) - 1)
            losses.append(
                float(F.cross_entropy(row[answer].float(), torch.tensor(pair.input_ids[pair.answer_start :])))
            )
    return statistics.fmean(losses)


def _medians(rounds: Sequence[dict[str, Any]], key: str) -> dict[str, dict[str, float]]:
    spent = {part: [row[key][part] for row in rounds] for part in rounds[0][key]}
    return {part: spread(times) for part, times in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candidate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tiny", action="store_true", help="random weights, in seconds; not a measurement")
    parser.add_argument("--repetitions", type=int, default=3, help="candidates of each way")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        work = tiny_checkpoints(scratch) if options.tiny else demo_checkpoints(scratch, load_settings())
        result = measure(work, options.repetitions, scratch)
    if options.json:
        print(json.dumps(result))
        return
    for key in ("ours_s", "every_block_s", "on_disk_s"):
        parts = ", ".join(f"{part} {spent['median']:.2f} s" for part, spent in result[key].items())
        print(f"{key}: {parts}")
    ratios = result["ratios"]
    print(
        f"on disk takes {ratios['on_disk_to_ours']:.1f} x ours ({ratios['on_disk_to_every_block']:.1f} x, every block)"
    )


if __name__ == "__main__":
    main()
