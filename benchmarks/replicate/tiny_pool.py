"""A pool of random two-layer models with a few prompts, for `--tiny`: it runs in seconds and shows nothing."""

from __future__ import annotations

from pathlib import Path

from core.contracts.run_spec import RunSpec


def tiny_spec(folder: Path) -> RunSpec:
    """Write the tiny pool into a folder, unless it is there, and return a spec that merges it."""
    from tests.tiny_models import save_tiny_llama
    from tests.tiny_runs import Files, spec_of

    folder.mkdir(parents=True, exist_ok=True)
    base, expert = folder / "base", folder / "expert"
    if not expert.exists():
        save_tiny_llama(base)
        save_tiny_llama(expert, nudge_seed=1)
    files = Files(folder)
    evaluation = {"prompts": files.prompts, "benign": files.benign, "reply_tokens": 8, "limit": 3}
    return spec_of(base, expert, files, search={"steps": 4}, evaluation=evaluation)
