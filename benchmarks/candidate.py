"""Time one candidate, merged and scored, and the same work through files on disk.

`python -m benchmarks.candidate --json`. The inputs are the demo pool as two bf16 checkpoints, TIES, and K = 64 + 64
pairs of the demo's train split (`benchmarks.inputs`); `--tiny` takes two random Llamas of a few thousand weights. Each
repetition uses new merge parameters and measures these, in turn:

- `ours_s`: the merge into the live model, and both losses from packed rows. The pass starts above the blocks that no
  candidate changes. `every_block_s` is the same with all blocks, as for a fine-tune that changes every block.
- `on_disk_s`: mergekit's `run_merge` to disk, `from_pretrained`, and both losses in a plain loop over padded batches
  of 8, sorted by length, with logits at every position; in the same number format.

The result holds the losses of both; they must agree up to rounding. Neither time includes loading the checkpoints.
"""

from __future__ import annotations

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

from benchmarks.command import machine_facts, make_parser
from benchmarks.inputs import Checkpoints, demo_checkpoints, open_live_pool, tiny_checkpoints
from benchmarks.merge import recipe_at
from benchmarks.timing import spread, timed
from core.jobs.live_pool import LivePool
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe
from core.models.chat_format import EncodedPair, encode_pair
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.settings import load_settings

BATCH = 8


def measure(checkpoints: Checkpoints, repetitions: int, scratch: Path) -> dict[str, Any]:
    """Time `repetitions` candidates in each way; `scratch` is a folder for the merges on disk."""
    pool = open_pool(checkpoints)
    scorer, every_block = scorer_of(pool, checkpoints, pool.merge.changing), scorer_of(pool, checkpoints, None)
    positions = [(i + 0.5) / repetitions for i in range(repetitions)]
    pool.merge.apply(recipe_at(checkpoints.names, "ties", 0.99))  # counts magnitudes, once per run
    scorer.score()
    rounds = [
        _round(pool, scorer, every_block, checkpoints, recipe_at(checkpoints.names, "ties", position), scratch)
        for position in positions
    ]
    ours, on_disk, all_blocks = (
        statistics.median(row[key]["total"] for row in rounds) for key in ("ours_s", "on_disk_s", "every_block_s")
    )
    return {
        "benchmark": "candidate",
        "pool": checkpoints.name,
        "pairs": [len(checkpoints.safety), len(checkpoints.domain)],
        **machine_facts(pool.live),
        "repetitions": repetitions,
        "ours_s": _medians(rounds, "ours_s"),
        "every_block_s": _medians(rounds, "every_block_s"),
        "on_disk_s": _medians(rounds, "on_disk_s"),
        "losses": [row["losses"] for row in rounds],
        "ratios": {"on_disk_to_ours": on_disk / ours, "on_disk_to_every_block": on_disk / all_blocks},
    }


def open_pool(checkpoints: Checkpoints) -> LivePool:
    """Load the checkpoints as a run does."""
    return open_live_pool(str(checkpoints.base), (str(checkpoints.expert),))


def scorer_of(pool: LivePool, checkpoints: Checkpoints, changing: frozenset[str] | None) -> Scorer:
    """Return a run's scorer; `changing` None runs every block for every candidate."""
    safety = TrainingSet(pool.tokenizer, checkpoints.safety, opening=REFUSAL_OPENING)
    return Scorer(pool.live, safety, TrainingSet(pool.tokenizer, checkpoints.domain, opening=None), changing)


def _round(
    pool: LivePool,
    scorer: Scorer,
    every_block: Scorer,
    checkpoints: Checkpoints,
    candidate: Recipe,
    scratch: Path,
) -> dict[str, Any]:
    merge_s, _ = timed(lambda: pool.merge.apply(candidate))
    score_s, scores = timed(scorer.score)
    all_blocks_s, _ = timed(every_block.score)
    on_disk, losses = _on_disk(candidate, checkpoints, scratch, pool.live.dtype)
    assert scores.safety is not None and scores.expert is not None
    return {
        "ours_s": {"merge": merge_s, "score": score_s, "total": merge_s + score_s},
        "every_block_s": {"merge": merge_s, "score": all_blocks_s, "total": merge_s + all_blocks_s},
        "on_disk_s": on_disk,
        "losses": {"ours": [scores.safety.loss, scores.expert.loss], "on_disk": losses},
    }


def _on_disk(
    candidate: Recipe, checkpoints: Checkpoints, scratch: Path, dtype: torch.dtype
) -> tuple[dict[str, float], list[float]]:
    """Merge, load and score a candidate through files; deleting the folder is not timed."""
    folder = scratch / "merged"
    config = to_mergekit(candidate, out_dtype="bfloat16")
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    tokenizer = checkpoints.tokenizer()
    parts = (checkpoints.safety, checkpoints.domain)
    pairs = [[encode_pair(tokenizer, s.question, s.answer) for s in part] for part in parts]
    merge_s, _ = timed(lambda: run_merge(config, str(folder), options))
    load_s, model = timed(lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval())
    score_s, losses = timed(lambda: [padded_loss(model, part, tokenizer.pad_token_id) for part in pairs])
    shutil.rmtree(folder)
    return {"merge": merge_s, "load": load_s, "score": score_s, "total": merge_s + load_s + score_s}, losses


@torch.inference_mode()
def padded_loss(model: Any, pairs: Sequence[EncodedPair], pad: int) -> float:
    """Return the mean over samples of the mean cross-entropy of their answers, in batches padded on the right."""
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
    times = {part: [row[key][part] for row in rounds] for part in rounds[0][key]}
    return {part: spread(seconds) for part, seconds in times.items()}


def main() -> None:
    """Measure and print."""
    parser = make_parser("candidate", __doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="candidates that each way merges and scores")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        checkpoints = tiny_checkpoints(scratch) if options.tiny else demo_checkpoints(scratch, load_settings())
        result = measure(checkpoints, options.repetitions, scratch)
    if options.json:
        print(json.dumps(result))
        return
    for key in ("ours_s", "every_block_s", "on_disk_s"):
        parts = ", ".join(f"{part} {times['median']:.2f} s" for part, times in result[key].items())
        print(f"{key}: {parts}")
    ratios = result["ratios"]
    print(
        f"on disk takes {ratios['on_disk_to_ours']:.1f} times as long as ours "
        f"({ratios['on_disk_to_every_block']:.1f} times with every block)"
    )


if __name__ == "__main__":
    main()
