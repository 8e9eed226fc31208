"""References and paths of any text are refused with an explanation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.data.prompts import read_prompts
from core.errors import DataError, ModelError
from core.models.references import parse_reference
from core.settings import Settings, resolve_path

ODD = ["a\0b", "\0", "~nobody-here/x", "~nobody-here", "x" * 300, "/" + "x" * 300, "org/" + "x" * 5000, "./a\0b",
       "\ud800", "../" * 300, "~\0", "a" * 300 + "+" + "b" * 300, "assets/" + "x" * 300, "assets/\0"]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_an_odd_reference_is_read_or_refused(settings: Settings, text: str) -> None:
    for machine in (settings, replace(settings, on_space=True)):
        try:
            parse_reference(text, machine)
        except ModelError as error:
            assert error.message and error.code


@pytest.mark.parametrize("text", ODD)
def test_an_odd_path_is_no_file(text: str) -> None:
    path = resolve_path(text)
    if "\ud800" in text or text.startswith("../"):
        return
    with pytest.raises(DataError):
        read_prompts(path)
