"""The wording of the messages about specs that users meet most; other tests pin places and kinds."""

from __future__ import annotations

from typing import Any

import pytest

from core.contracts.run_spec import spec_from_dict
from core.errors import SpecError


def message_of(experts: int = 2, **search: Any) -> str:
    with pytest.raises(SpecError) as caught:
        spec_from_dict(
            {
                "pool": {"base": "org/base", "experts": [{"model": f"org/e{i}"} for i in range(experts)]},
                "data": {"safety": {"source": "file", "path": "s.jsonl"}},
                "search": {"compare": [], **search},
            }
        )
    assert caught.value.hint == "Correct the keys named and try again."
    return caught.value.message


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"optimizer": "random"}, "search.optimizer: 'random' is unknown; choose one of evomm, "),
        ({"optimizer": "grid", "method": "karcher"}, "Grid search has no values for 'karcher'; it knows ties, "),
        (
            {"method": "slerp"},
            "which merges exactly two models, but the pool has 3: keep one expert, or ",
        ),
        ({"parameters": {"gamma": 0.1}}, "'ties' has no parameter 'gamma' to fix; it has: int8_mask, normalize"),
        ({"parameters": {"normalize": 2.5}}, "'normalize' of 'ties' is true or false, not 2.5"),
        ({"optimizer": "bayes", "objective": "pareto"}, "it needs optimizer evomm and safety true"),
        ({"optimizer": "evomm_surrogate"}, "'evomm_surrogate' was removed: use optimizer bayes for up to 4 parameters"),
        ({"racing": True}, "search.racing: racing was removed: leave the key out, and use optimizer bayes"),
    ],
)
def test_messages_say_what_is_wrong_and_what_to_choose(search: dict[str, Any], words: str) -> None:
    assert words in message_of(**search)
