"""Train the guard `reply-type` and write its weights: `python -m core.demo.train_guard`.

A logistic regression on hashed words (`core.guards.reply_features`), on texts of this repository only
(`core.demo.guard_texts`). It takes about a minute; the same texts give the same file. No labeled replies by others are
read, and none of the replies that the guard is measured on (`benchmarks.guard`).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from core.demo.guard_texts import labeled_replies
from core.guards.reply_features import features
from core.guards.reply_type import TYPES, WEIGHTS, ReplyTypeGuard

HELD_OUT = 0.1
"""Share of the texts that are left out of the training and only measured."""
STRENGTH = 30.0
"""Inverse strength of the penalty on the weights (scikit-learn's C)."""


def train(path: Path = WEIGHTS) -> dict[str, Any]:
    """Train, write the weights, and return the counts and the accuracy on the texts that were held out."""
    import numpy as np
    from safetensors.numpy import save_file
    from sklearn.linear_model import LogisticRegression

    labeled = labeled_replies()
    held = round(HELD_OUT * len(labeled))
    kept, left = labeled[held:], labeled[:held]
    model = LogisticRegression(C=STRENGTH, max_iter=500)
    model.fit(features([one.text for one in kept]), [one.label for one in kept])
    order = [list(model.classes_).index(name) for name in TYPES]
    tensors = {"weights": model.coef_[order].astype(np.float16), "bias": model.intercept_[order].astype(np.float32)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"labels": ",".join(TYPES)})
    found = ReplyTypeGuard(path).probabilities([one.text for one in left])
    right = [max(shares, key=lambda name: shares[name]) == one.label for one, shares in zip(left, found, strict=True)]
    counts = dict(Counter(one.label for one in kept))
    return {"trained": counts, "held_out": len(left), "accuracy": sum(right) / len(right), "bytes": path.stat().st_size}


def main() -> None:
    """Train and print the counts."""
    print(json.dumps(train(), indent=2))


if __name__ == "__main__":
    main()
