"""The fourteen harm categories, found by every form of their names."""

from __future__ import annotations

import pytest

from core.data.categories import CATEGORIES, find_category
from core.settings import ASSETS


def test_categories_are_the_files_of_the_contrast_data() -> None:
    files = {path.stem for path in (ASSETS / "demo" / "data" / "contrast").glob("*.jsonl")}
    assert {category.slug for category in CATEGORIES} == files
    assert len(CATEGORIES) == 14


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.slug)
def test_slug_and_title_name_the_category(category: tuple[str, str]) -> None:
    assert [find_category(name) for name in category] == [category, category]


@pytest.mark.parametrize(
    ("label", "slug"),
    [
        ("violence,aiding_and_abetting,incitement", "violence_aiding_and_abetting_incitement"),
        ("controversial_topics,politics", "controversial_topics_politics"),
        ("Self Harm", "self_harm"),
    ],
)
def test_dataset_labels_name_the_category(label: str, slug: str) -> None:
    category = find_category(label)
    assert category is not None and category.slug == slug


def test_other_names_are_none() -> None:
    assert find_category("kitchen") is None
