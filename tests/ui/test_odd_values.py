"""Ids and form values that only a program would send: refused, without looking where they point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from core.contracts.run_spec import load_spec
from core.errors import RunError, SafeMergeError
from core.settings import ASSETS, Settings
from safemerge_ui import app_context
from safemerge_ui.form import form_from_spec, spec_from_form
from safemerge_ui.tabs import pair_editor
from safemerge_ui.watch import RunWatch
from tests.raising import raises
from tests.ui.golden import golden_events, write_run
from tests.ui.session import built_page

FORM = form_from_spec(load_spec(ASSETS / "specs" / "demo.yaml"))
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40), st.binary(max_size=4),
    st.lists(st.one_of(st.text(max_size=5), st.integers(), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.sampled_from(["!!bool maybe", "<<: {a: 1}", "&a [*a]", "9" * 5000, "\0", "[" * 3000, "a: " * 50, "x: .inf"]),
)  # fmt: skip


@given(field=st.sampled_from(sorted(FORM)), value=VALUES)
@limits(max_examples=600, deadline=2000)
def test_a_form_value_of_any_type_is_read_or_refused(field: str, value: Any) -> None:
    try:
        spec_from_form({**FORM, field: value})
    except SafeMergeError as error:
        assert error.message


@pytest.mark.parametrize("run_id", ["a\0b", "x" * 300, "x" * 5000, "~nobody", "~root", "../r", "r/../r", "linked", 5,
                                    None, "/etc", ["r"]])  # fmt: skip
def test_an_odd_run_id_is_no_run(settings: Settings, tmp_path: Path, run_id: Any) -> None:
    write_run(settings.runs / "r", golden_events())
    outside = write_run(tmp_path / "outside", golden_events())
    (settings.runs / "linked").symlink_to(outside, target_is_directory=True)
    watch = RunWatch(settings.runs)
    assert watch.look("r").view.over
    with raises(RunError, "no-run"):
        watch.look(run_id)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/no-such-file", "~/.bashrc", "../../etc/passwd", 
                                  "/proc/self/environ", "assets/../README.md", "a\0b", "x" * 300])  # fmt: skip
def test_the_editor_refuses_a_local_file_before_it_looks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    context = app_context.make_context(replace(settings, on_space=True))
    editor = built_page(context).data.editor
    fields = {one: "" for name in ("safety", "domain") for one in pair_editor.form_fields(editor, name)}
    values = {**fields, editor.dataset: "safety", editor.form["safety_path"]: path}
    monkeypatch.setattr(pair_editor, "is_file", lambda _: pytest.fail("looked"))
    with pytest.raises(SafeMergeError) as caught:
        pair_editor.show_file(context, editor, values)
    assert caught.value.code == "local-path"
