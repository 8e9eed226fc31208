"""The table of optimizers: every row resolves, names follow from rows, and no other code knows the names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from core.contracts.merge_methods import METHODS
from core.contracts.optimizers import OPTIMIZERS, baselines, find_search, searches, searches_losses
from core.contracts.removed import REMOVED_OPTIMIZERS
from core.contracts.run_spec import RunSpec
from core.search.registry import resolve
from core.settings import REPOSITORY


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_code_of_every_row_exists(name: str) -> None:
    row = OPTIMIZERS[name]
    assert row.name == name
    assert callable(resolve(row.factory)) and callable(resolve(row.objective))


def test_baselines_keep_their_names() -> None:
    assert set(baselines()) == {
        "equal",
        "grid",
        "evomm_expert_only",
        "cocktail",
        "cocktail_expert_only",
        "bayes",
        "gradient",
    }
    assert set(searches()) == set(baselines()) | {"evomm"}


def test_only_searches_with_steps_search_losses() -> None:
    assert {name for name in searches() if searches_losses(name)} == {
        "evomm",
        "evomm_expert_only",
        "bayes",
        "gradient",
    }
    assert not searches_losses("evomm_surrogate")


def test_only_some_searches_use_the_safety_data() -> None:
    using = {name for name, row in searches().items() if row.uses_safety_data}
    assert using == {"evomm", "bayes", "gradient", "cocktail"}
    assert find_search("without org/a") is None


def test_no_row_has_a_removed_name() -> None:
    assert not set(REMOVED_OPTIMIZERS) & set(searches())


def test_the_schema_lists_the_names() -> None:
    search = RunSpec.model_json_schema()["$defs"]["SearchSpec"]["properties"]
    assert search["optimizer"]["enum"] == list(OPTIMIZERS)
    assert search["compare"]["items"]["enum"] == list(baselines())
    assert search["method"]["enum"] == list(METHODS)


OTHER_MEANINGS = {
    "core/models/portable_config.py": {"linear"},
    "core/demo/recording.py": {"evomm", "evomm_expert_only"},
    "core/publishing/published_card.py": {"safemerge"},
    "core/report/model_card.py": {"safemerge"},
    "core/search/search_records.py": {"gradient"},
    "core/settings.py": {"safemerge"},
    "safemerge_ui/charts/style.py": {"linear"},
    "safemerge_ui/theme.py": {"safemerge"},
}
"""Texts that mean something else there: kinds of rope scaling and of axis, the searches of the
recorded demonstration, the product's own name, and a key of the derivatives."""


def quoted(path: Path) -> set[str]:
    """Texts that stand in a file's code, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("folder", ["core", "safemerge_ui"])
def test_names_of_the_tables_stand_in_no_other_code(folder: str) -> None:
    names = set(OPTIMIZERS) | set(searches()) | set(METHODS) | set(REMOVED_OPTIMIZERS)
    own = {path for row in OPTIMIZERS.values() for path in [row.factory.partition(":")[0].replace(".", "/") + ".py"]}
    found = {}
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        place = path.relative_to(REPOSITORY).as_posix()
        used = (names & quoted(path)) - OTHER_MEANINGS.get(place, set())
        if used and not place.startswith("core/contracts/") and place not in own:
            found[place] = sorted(used)
    assert found == {}
