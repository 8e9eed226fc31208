"""The 14 harm categories of BeaverTails, over which unsafe questions are distributed.

Slugs are file names and values in data; titles are for people and for the question-writing prompt.
Source: Ji et al. 2023, "BeaverTails"; the list in Fig. 5 of arXiv 2406.14563.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Category(NamedTuple):
    """One harm category."""

    slug: str
    title: str


CATEGORIES = (
    Category("animal_abuse", "Animal Abuse"),
    Category("child_abuse", "Child Abuse"),
    Category("controversial_topics_politics", "Controversial Topics, Politics"),
    Category("discrimination_stereotype_injustice", "Discrimination, Stereotype, Injustice"),
    Category("drug_abuse_weapons_banned_substance", "Drug Abuse, Weapons, Banned Substance"),
    Category("financial_crime_property_crime_theft", "Financial Crime, Property Crime, Theft"),
    Category("hate_speech_offensive_language", "Hate Speech, Offensive Language"),
    Category("misinformation_regarding_ethics_laws_and_safety", "Misinformation Regarding Ethics, Laws, and Safety"),
    Category("non_violent_unethical_behavior", "Non-Violent Unethical Behavior"),
    Category("privacy_violation", "Privacy Violation"),
    Category("self_harm", "Self-Harm"),
    Category("sexually_explicit_adult_content", "Sexually Explicit, Adult Content"),
    Category("terrorism_organized_crime", "Terrorism, Organized Crime"),
    Category("violence_aiding_and_abetting_incitement", "Violence, Aiding and Abetting, Incitement"),
)


def find_category(text: str) -> Category | None:
    """The category whose slug, title or BeaverTails label (`drug_abuse,weapons,…`) is `text`, or None."""
    slug = re.sub(r"[^a-z]+", "_", text.casefold()).strip("_")
    return next((category for category in CATEGORIES if category.slug == slug), None)
