"""Time of a search with five candidates, which are merged and scored as in a run."""

from __future__ import annotations

import importlib.util
import time

from benchmarks.gpu.packed_scoring import RandomSet
from benchmarks.gpu.random_pool import BASE, EXPERT, RandomPool
from benchmarks.gpu.sections import Check, Figures
from core.contracts.events import CandidateScored
from core.search.evaluator import Evaluator
from core.search.genome import Genome
from core.search.scoring import Scorer
from core.search.search_loop import run_search
from core.search.search_plan import SearchPlan

_PAIRS = 40
_STEPS = 5


def measure_search(check: Check, pool: RandomPool, figures: Figures) -> None:
    """Run the search and list its candidates: objective, seconds and failure of each."""
    few = pool.few_pairs(_PAIRS)
    scorer = Scorer(pool.live, RandomSet(few[::2]), RandomSet(few[1::2]), pool.merge.changing)
    optimizer = "evomm" if importlib.util.find_spec("cma") else "bayes"
    plan = SearchPlan(optimizer, Genome("ties", BASE, (EXPERT,)), _STEPS, 0.3, True, 0, optimizer=optimizer)
    check.synchronize()
    started = time.perf_counter()
    events = list(run_search(plan, Evaluator(pool.merge, scorer), lambda: False))
    check.synchronize()
    figures |= {"optimizer": optimizer, "s": time.perf_counter() - started}
    figures["candidates"] = [
        {"objective": event.objective, "s": event.seconds, "failure": event.failure}
        for event in events
        if isinstance(event, CandidateScored)
    ]
