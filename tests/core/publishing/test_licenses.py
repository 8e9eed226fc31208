"""The license of a merge follows from those of its parents."""

from __future__ import annotations

import pytest

from core.publishing.licenses import read_parent_licenses, reconcile
from core.settings import Settings
from tests.hub_server import HubServer


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (("mit", "apache-2.0"), "apache-2.0"),
        (("mit", "mit"), "mit"),
        (("Apache-2.0", "apache-2.0"), "apache-2.0"),
        (("apache-2.0", "llama3.1"), "llama3.1"),
        (("cc-by-nc-4.0", "mit"), "cc-by-nc-4.0"),
        (("gpl-3.0", "apache-2.0"), "gpl-3.0"),
        (("llama3.1", "gemma"), "other"),
        (("mit", None), "other"),
        (("other", "other"), "other"),
        (("other", "mit"), "other"),
        ((None, None), "other"),
    ],
)
def test_one_identifier_where_one_covers_all(licenses: tuple[str | None, ...], expected: str) -> None:
    found = reconcile({f"org/{number}": license for number, license in enumerate(licenses)})
    assert found.license == expected
    assert bool(found.name) == (expected == "other")
    assert found.notices or expected != "other"


@pytest.mark.parametrize(
    ("licenses", "forbidden"),
    [
        (("cc-by-nd-4.0", "mit"), True),
        (("cc-by-nc-nd-4.0", "mit"), True),
        (("gpl-3.0", "cc-by-nc-4.0"), True),
        (("cc-by-sa-4.0", "llama3.1"), True),
        (("gpl-3.0", "agpl-3.0"), False),
        (("cc-by-sa-4.0", "mit"), False),
        (("llama2", "gemma"), False),
    ],
)
def test_terms_that_contradict_each_other_keep_a_merge_private(licenses: tuple[str, ...], forbidden: bool) -> None:
    assert bool(reconcile(dict(enumerate(licenses))).obstacle) is forbidden  # type: ignore[arg-type]


def test_llama_demands_a_name_and_a_notice() -> None:
    assert any("Built with Llama" in notice for notice in reconcile({"a": "llama3.2", "b": "mit"}).notices)
    assert not any("Built with Llama" in notice for notice in reconcile({"a": "llama2"}).notices)


def test_licenses_come_from_the_hub_from_cards_and_from_the_demo(
    parents: HubServer, settings: Settings, tmp_path: object, tiny_llama: object
) -> None:
    from pathlib import Path

    local = Path(str(tmp_path)) / "local"
    local.mkdir()
    (local / "README.md").write_text("---\nlicense: gemma\n---\n", encoding="utf-8")
    found = read_parent_licenses(
        ["org/base", "org/gone", str(local), str(tiny_llama), "demo/aligned", "org/base+org/expert"], settings
    )
    assert found["org/base"] == "mit" and found["org/expert"] == "apache-2.0"
    assert found["org/gone"] is None and found[str(tiny_llama)] is None
    assert found[str(local)] == "gemma" and found["demo/aligned"] == "apache-2.0"
