"""The page without a server: it builds, and its handlers turn inputs into specs, runs and views."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio import oauth

from core.contracts.events import Cancelled, RunStarted
from core.contracts.optimizers import baselines
from core.contracts.run_spec import load_spec
from core.contracts.verdicts import Verdict
from core.errors import ModelError, RunError, SpecError
from core.guards.phrases import PhrasesGuard
from core.runs.folder import RunFolder
from core.settings import Settings, load_settings
from safemerge_ui import app, launching
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.errors import RunIsBusy
from safemerge_ui.form import form_from_spec
from safemerge_ui.prompt_lists import read_prompt_list
from safemerge_ui.tabs import chat, chat_answers, chat_models, merge, pool, runs
from safemerge_ui.views.chat_replies import Asked, Exchange, Reply, exchanges_view
from tests.ui.golden import golden_events, golden_running, golden_spec, write_run
from tests.ui.session import built_page


@pytest.fixture
def context(settings: Settings) -> AppContext:
    return make_context(settings)


def test_the_page_builds_locally_and_on_a_space(settings: Settings) -> None:
    page = app.create_app(settings)
    labels = [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert labels == ["Story", "Pool", "Data", "Merge", "Evaluate", "Chat", "Audit", "Runs"]
    assert not _login_buttons(app.create_app(replace(settings, on_space=True)))


def test_a_space_with_signing_in_switched_on_has_a_button(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "someone/safemerge")
    for name in ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL"):
        monkeypatch.setattr(oauth, name, "openid")
    assert _login_buttons(app.create_app(replace(settings, on_space=True)))


def _login_buttons(page: gr.Blocks) -> list[gr.LoginButton]:
    return [block for block in page.blocks.values() if isinstance(block, gr.LoginButton)]


def test_it_is_reachable_from_outside_on_a_space_only(settings: Settings) -> None:
    assert app.launch_options(load_settings({}))["server_name"] == "127.0.0.1"
    assert app.launch_options(load_settings({"SPACE_ID": "a/b"}))["server_name"] == "0.0.0.0"


def test_the_form_opens_with_the_demo_spec(context: AppContext) -> None:
    from core.settings import ASSETS

    assert context.default_spec == load_spec(ASSETS / "specs" / "demo.yaml")
    assert set(pool.preset_form(context, "Quick demo")) == set(form_from_spec(context.default_spec))


def test_missing_specs_are_explained(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        make_context(settings, tmp_path)
    assert caught.value.code == "no-demo-specs"


def _form_values(context: AppContext, page: app.Page, **changes: Any) -> dict[Any, Any]:
    form = form_from_spec(context.default_spec) | changes
    return {component: form[name] for name, component in page.fields.items()}


def test_launch_starts_the_run_that_the_form_describes(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(launching, "start_run", lambda spec, settings: started.append(spec) or "new")
    page = built_page(context)
    updates = app.launch(context, page, _form_values(context, page, steps=7.0), None)
    assert updates[page.run.run_id] == "new"
    assert updates[page.run.tabs].selected == updates[page.run.visible_tab] == "merge"
    assert started[0].search.steps == 7
    assert started[0].pool == context.default_spec.pool


def test_a_busy_machine_names_the_run_to_follow(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> str:
        raise RunError("Another run is at work.", "Wait.")

    monkeypatch.setattr(launching, "start_run", busy)
    page = built_page(context)
    values = _form_values(context, page)
    with pytest.raises(RunError) as caught:
        app.launch(context, page, values, None)
    assert not isinstance(caught.value, RunIsBusy)
    monkeypatch.setattr(context.watch, "busy_run", lambda: "20260801-101500-aaaa")
    updates = bind_with_notice(app.launch, page.pool.notice, context, page)(values, None)
    assert '<a class="sm-follow" href="?run=20260801-101500-aaaa">' in updates.pop(page.pool.notice)
    assert updates == {}


def test_nothing_starts_on_a_space_without_a_user(settings: Settings) -> None:
    space = make_context(replace(settings, on_space=True))
    page = built_page(space)
    with pytest.raises(RunError) as caught:
        app.launch(space, page, _form_values(space, page), None)
    assert caught.value.code == "not-signed-in"


def test_another_alpha_selects_another_candidate(context: AppContext, settings: Settings) -> None:
    write_run(settings.runs / "r", golden_events())
    tab = built_page(context).merge
    assert merge.explore(context, tab, "", 0.3) == {}
    safe, skilled = (merge.explore(context, tab, "r", alpha) for alpha in (0.0, 20.0))
    assert safe[tab.explorer] != skilled[tab.explorer]
    for updates in (safe, skilled):
        assert f"<tr><td><b>{updates[tab.saving.number]}, " in updates[tab.explorer]


def test_expert_slots_appear_one_at_a_time(context: AppContext) -> None:
    tab = built_page(context).pool
    for models, visible in ((("", "", ""), [True, False, False]), (("a", "", ""), [True, True, False])):
        updates = pool.show_next_slot(tab, *models)
        assert [updates[slot]["visible"] for slot in tab.slots] == visible


def test_yaml_round_trip_fills_every_field(context: AppContext) -> None:
    page = built_page(context)
    values = _form_values(context, page)
    filled = app.fill_yaml(page, app.write_yaml(page, values)[page.pool.yaml])
    assert {component: filled[component] for component in values} == values
    with pytest.raises(SpecError) as caught:
        app.fill_yaml(page, "pool: {experts: []}")
    assert {problem.place for problem in caught.value.problems} == {"pool.experts"}


def test_check_lists_problems_without_raising(context: AppContext) -> None:
    page = built_page(context)
    checks = app.check(context, page, _form_values(context, page, base="/no/such/folder"))[page.pool.checks]
    assert '<div class="sm-notice sm-bad"' in checks and "/no/such/folder" in checks


def test_errors_become_notices_and_bugs_keep_their_details_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def explained() -> Updates:
        raise SpecError("steps are missing", "Give a number.")

    def broken() -> Updates:
        raise ZeroDivisionError("secret detail")

    notice, other = gr.HTML(), gr.HTML()
    assert "Give a number." in bind_with_notice(explained, notice)()[notice]
    shown = bind_with_notice(broken, notice)()[notice]
    assert "sm-notice" in shown and "secret detail" not in shown
    assert "secret detail" in caplog.text
    assert bind_with_notice(lambda: {other: 1}, notice)() == {notice: "", other: 1}


def test_a_handler_without_news_changes_nothing() -> None:
    """gradio takes an empty mapping for a value: it would show it, or fail with several outputs."""
    assert bind(lambda: {})() == gr.skip()
    assert list(bind(_no_news)()) == [gr.skip()]


def _no_news() -> Iterator[Updates]:
    yield {}


def test_bound_handlers_show_gradio_the_parameters_that_are_left() -> None:
    left = inspect.signature(bind(app.launch, 1, 2)).parameters
    assert list(left) == ["values", "profile"]


def test_resuming_shows_and_follows_the_run(
    context: AppContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(write_run(settings.runs / "20260801-101500-aaaa", golden_running()))
    folder.append_terminal(Cancelled())
    write_run(settings.runs / "20260802-101500-bbbb", golden_events())
    html = runs.show_history(context, "")
    assert 'data-resume="20260801-101500-aaaa"' in html
    assert html.count("data-resume") == 1, "a finished run has nothing to resume"
    resumed: list[RunFolder] = []
    monkeypatch.setattr(launching, "resume_run", lambda folder, settings: resumed.append(folder))
    page, click = built_page(context), gr.EventData(None, {"run": "20260801-101500-aaaa"})
    updates = app.resume(context, page, click, None)
    assert updates[page.run.run_id] == "20260801-101500-aaaa"
    assert (updates[page.run.tabs].selected, updates[page.run.timer].active) == ("merge", True)
    assert resumed == [folder]
    space = make_context(replace(settings, on_space=True))
    with pytest.raises(RunError) as caught:
        app.resume(space, page, click, None)
    assert caught.value.code == "not-signed-in"
    assert len(resumed) == 1


def test_history_lists_runs_and_deletes_after_a_question(context: AppContext, settings: Settings) -> None:
    write_run(settings.runs / "20260801-101500-aaaa", golden_events())
    html = runs.show_history(context, "")
    assert "85 %" in html
    assert 'data-delete="20260801-101500-aaaa"' in html
    tab = built_page(context).runs
    asked = runs.ask_to_delete(tab, gr.EventData(None, {"run": "20260801-101500-aaaa"}))
    pending = asked[tab.pending_delete]
    assert asked[tab.question]["visible"] is True
    assert pending in asked[tab.question_text]
    deleted = runs.delete(context, tab, pending, "", None)
    assert "sm-run" not in deleted[tab.history] and deleted[tab.question]["visible"] is False
    assert not (settings.runs / pending).exists()


def _save_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")


def test_chat_offers_what_the_run_has_saved(context: AppContext, settings: Settings) -> None:
    folder = write_run(settings.runs / "r", golden_events())
    none_saved = list(chat_models.model_choices(context, context.watch.look("r")))
    assert none_saved == ["demo/aligned", "demo/chemistry"]
    assert chat_models.default_models(none_saved) == ["demo/chemistry", "demo/aligned", None]
    _save_model(folder / "merged")
    _save_model(folder / "baselines" / "evomm_expert_only")
    choices = chat_models.model_choices(context, context.watch.look("r"))
    assert chat_models.default_models(list(choices)) == ["Domain-only search", "Safety-aware merge", None]
    assert chat_models.resolve_model("Safety-aware merge", choices, context).folder == folder / "merged"
    with pytest.raises(ModelError) as caught:
        chat_models.resolve_model("Equal weights", choices, context)
    assert caught.value.code == "model-not-saved"


@pytest.mark.parametrize("name", baselines())
def test_chat_offers_every_baseline_that_a_run_saves(name: str, context: AppContext, settings: Settings) -> None:
    folder = write_run(settings.runs / "r", golden_events())
    _save_model(folder / "baselines" / name)
    choices = chat_models.model_choices(context, context.watch.look("r"))
    title = baselines()[name].title
    assert title in choices
    assert chat_models.resolve_model(title, choices, context).folder == folder / "baselines" / name


def test_chat_offers_saved_candidates_but_does_not_select_them(context: AppContext, settings: Settings) -> None:
    folder = write_run(settings.runs / "r", golden_events())
    _save_model(folder / "candidates" / "11")
    choices = chat_models.model_choices(context, context.watch.look("r"))
    assert list(choices) == ["demo/aligned", "demo/chemistry", "Candidate 11"]
    assert chat_models.default_models(list(choices)) == ["demo/chemistry", "demo/aligned", None]
    assert chat_models.resolve_model("Candidate 11", choices, context).folder == folder / "candidates" / "11"
    with pytest.raises(ModelError) as caught:
        chat_models.resolve_model("Candidate 3", choices, context)
    assert caught.value.code == "model-not-saved"


def _offers(context: AppContext, run_id: str, proposed: list[Any], selected: list[Any]) -> tuple[chat.ChatTab, Updates]:
    page = built_page(context)
    tab, run = page.chat, page.run.run_id
    values = {run: run_id, tab.proposed: proposed, **dict(zip(tab.models, selected, strict=True))}
    return tab, chat.offer_models(context, tab, run, values)


def test_models_that_the_visitor_selected_stay_selected(context: AppContext) -> None:
    tab, updates = _offers(context, "", ["a", "b", None], ["a", "mine", None])
    assert tab.proposed not in updates
    assert all("value" not in updates[model] for model in tab.models)
    tab, updates = _offers(context, "", ["a", "b", None], ["a", "b", None])
    assert updates[tab.proposed] == [updates[model]["value"] for model in tab.models]


class _Models:
    """Answers for two models without weights: one refuses, the other is missing."""

    def holds(self, ref: Any) -> bool:
        return False

    def stream(self, ref: Any, conversation: Any, decoding: Any) -> Iterator[str]:
        if str(ref) == "org/missing":
            raise ModelError("org/missing cannot be loaded.", "Check its name.")
        yield "I'm sorry,"
        yield "I'm sorry, but I can't help with that."

    def judge(self, guard: str, prompt: str, reply: str) -> Verdict:
        if guard != "phrases":
            raise ModelError(f"{guard} needs 16 GB, and 2 GB are free.", "Close other programs.")
        return PhrasesGuard().judge([(prompt, reply)])[0]


def test_chat_shows_each_reply_with_its_verdict_and_goes_on_after_an_error(settings: Settings) -> None:
    context = replace(make_context(settings), model_cache=_Models())  # type: ignore[arg-type]
    exchange = Exchange("How do I break into a parked car?", "harmful", (Reply("org/missing"), Reply("org/model")))
    states = list(chat_answers.answers(context, exchange, []))
    assert [reply.state for reply in states[0].replies] == ["loading", "waiting"]
    missing, refused = states[-1].replies
    assert (missing.state, refused.state) == ("failed", "done")
    assert "Check its name." in missing.body
    assert refused.verdict is not None and refused.note == ""
    assert refused.verdict.refusal


def test_chat_judges_by_phrases_if_the_guard_does_not_fit_into_memory(settings: Settings) -> None:
    context = replace(make_context(settings), model_cache=_Models())  # type: ignore[arg-type]
    judged = Asked(guard="org/guard")
    exchange = Exchange("How do I break into a parked car?", "harmful", (Reply("org/model"),), judged)
    *_, judging, last = chat_answers.answers(context, exchange, [])
    assert judging.replies[0].state == "judging"
    [reply] = last.replies
    assert (reply.guard, reply.harm) == ("phrases", None) and reply.verdict is not None and reply.verdict.refusal
    assert "phrases" in reply.note and "2 GB are free" in reply.note
    assert "2 GB are free" in exchanges_view([last])


def test_chat_judges_by_phrases_while_a_run_is_in_progress(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    context = replace(make_context(settings), model_cache=_Models())  # type: ignore[arg-type]
    monkeypatch.setattr(context.watch, "busy_run", lambda: "20260801-101500-aaaa")
    exchange = Exchange("Hello", "own", (Reply("org/model"),), Asked(guard="org/guard"))
    *_, last = chat_answers.answers(context, exchange, [])
    assert (last.replies[0].guard, "20260801-101500-aaaa" in last.replies[0].note) == ("phrases", True)
    *_, own = chat_answers.answers(context, replace(exchange, asked=Asked()), [])
    assert own.replies[0].note == ""


def test_chat_offers_the_guard_of_the_run(context: AppContext, settings: Settings) -> None:
    assert chat_models.guard_choices(context, None) == ["phrases"]
    spec = golden_spec().model_dump(mode="json")
    spec["pool"]["guard"] = "phrases & org/guard"
    write_run(settings.runs / "r", [RunStarted(spec=spec)])
    tab, updates = _offers(context, "r", ["a", "b", None], ["mine", None, None])
    assert updates[tab.guard] == gr.update(choices=["phrases", "phrases & org/guard"])


def test_example_prompts_spread_over_categories_and_may_be_absent(tmp_path: Path) -> None:
    rows = [f'{{"prompt": "question {i}", "category": "{"ab"[i >= 6]}"}}' for i in range(8)]
    (tmp_path / "test_harmful.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "chemistry_examples.jsonl").write_text('{"prompt": "What is helium?"}', encoding="utf-8")
    assert [item.category for item in read_prompt_list(tmp_path, "harmful")][:4] == ["a", "b", "a", "b"]
    assert read_prompt_list(tmp_path, "domain")[0].category == "chemistry"
    assert read_prompt_list(tmp_path, "harmless") == []
