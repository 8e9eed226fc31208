"""Publish: a part of the Merge tab that uploads a saved merge of the run on the page to the Hub.

A worker process does the work (`core.publishing.publish_worker`); the page follows its record, also after a reload. The
token is that of the signed-in user on a Space. Elsewhere it is typed in or HF_TOKEN, and the field is emptied at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.errors import RunError
from core.publishing.publish import PublishRequest
from core.publishing.publish_worker import start_publish
from core.publishing.safety_check import check_alignment
from core.publishing.source import find_source, saved_places
from core.runs.publications import read_publications
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.views.publication import check_view, publication_view

POLL_S = 2.0
PRIVATE, PUBLIC = "private", "public"
_INTRO = (
    "<h2>Publish to the Hub</h2><p>Model, card with the measured safety, recipe and report. Nothing on the Hub is "
    "deleted, and only repositories that SafeMerge made are changed.</p>"
)


@dataclass(frozen=True)
class PublishPanel:
    """Components of the panel; `place` is the folder of the merge within the run's, `token` is empty on a Space."""

    body: gr.Column
    place: gr.Dropdown
    check: gr.HTML
    repo: gr.Textbox
    visibility: gr.Radio
    reason: gr.Textbox
    token: gr.Textbox
    publish: gr.Button
    notice: gr.HTML
    state: gr.HTML
    timer: gr.Timer


def build(on_space: bool) -> PublishPanel:
    """Lay out the panel; it is hidden until the run on the page has saved a merge."""
    with gr.Column(visible=False, elem_classes="sm-panel", elem_id="publish-panel") as body:
        gr.HTML(_INTRO)
        place = gr.Dropdown([], label="Merge", info="Saved merges of this run", elem_id="publish-place")
        check = gr.HTML(elem_id="publish-check")
        with gr.Row():
            repo = gr.Textbox(label="Name", info="NAME or OWNER/NAME", max_length=200, elem_id="publish-repo")
            choices = [("Private", PRIVATE), ("Public", PUBLIC)]
            visibility = gr.Radio(choices, value=PRIVATE, label="Who sees it", elem_id="publish-visibility")
        reason = gr.Textbox(
            label="Reason to publish it anyway", lines=2, max_length=1000, visible=False, elem_id="publish-reason"
        )
        token = gr.Textbox(
            label="Hub token",
            info="May write to this name. Empty: HF_TOKEN. It is not stored.",
            type="password",
            visible=not on_space,
            elem_id="publish-token",
        )
        button = gr.Button("Publish", elem_id="publish-start")
        notice, state = gr.HTML(elem_id="publish-notice"), gr.HTML(elem_id="publish-state")
    timer = gr.Timer(POLL_S, active=False)
    return PublishPanel(body, place, check, repo, visibility, reason, token, button, notice, state, timer)


def wire(panel: PublishPanel, context: AppContext, run_id: gr.State, drawn: gr.State) -> None:
    """Bind the panel; `drawn` changes whenever the run on the page has something new."""
    followed = [panel.state, panel.timer]
    offered = [panel.body, panel.place, panel.check, panel.reason, *followed]
    for event in (run_id.change, drawn.change):
        event(bind(offer, context, panel), [run_id, panel.place], offered, show_progress="hidden")
    checked = [panel.check, panel.reason]
    panel.place.input(bind(check, context, panel), [run_id, panel.place], checked, show_progress="hidden")
    inputs = [run_id, panel.place, panel.repo, panel.visibility, panel.reason, panel.token]
    outputs = [panel.notice, panel.token, *followed]
    asked = panel.publish.click(bind_with_notice(publish, panel.notice, context, panel), inputs, outputs)
    asked.then(bind(forget_token), None, panel.token, show_progress="hidden")  # also after an error
    panel.timer.tick(bind(follow, context, panel), run_id, followed, show_progress="hidden", concurrency_limit=8)


def offer(context: AppContext, panel: PublishPanel, run_id: str, place: str | None) -> Updates:
    """Offer the merges that the run on the page has saved, and show its last upload."""
    places = saved_places(context.watch.folder(run_id)) if run_id else []
    if not places:
        return {panel.body: gr.update(visible=False), panel.timer: gr.Timer(active=False)}
    chosen = place if place in places else places[0]
    return {
        panel.body: gr.update(visible=True),
        panel.place: gr.update(choices=places, value=chosen),
        **check(context, panel, run_id, chosen),
        **follow(context, panel, run_id),
    }


def check(context: AppContext, panel: PublishPanel, run_id: str, place: str | None) -> Updates:
    """Show whether a merge may be published, and ask for a reason if it is less aligned than its best parent."""
    if not run_id or not place:
        return {}
    run = context.watch.folder(run_id)
    if place not in saved_places(run) or not context.watch.look(run_id).view.over:
        return {panel.check: "", panel.reason: gr.update(visible=False)}
    found = check_alignment(find_source(run.path / place))
    return {
        panel.check: check_view(found.sentence, found.objection),
        panel.reason: gr.update(visible=bool(found.objection)),
    }


def publish(
    context: AppContext,
    panel: PublishPanel,
    run_id: str,
    place: str | None,
    repo: str,
    visibility: str,
    reason: str,
    token: str,
    profile: gr.OAuthProfile | None,
    oauth_token: gr.OAuthToken | None,
) -> Updates:
    """Start the upload of a saved merge.

    Raises:
        SafeMergeError: the visitor may not start work, a value is missing, or the merge may not be published.
    """
    settings = context.settings
    require_starter(settings, profile)
    run = context.watch.folder(run_id)
    if place not in saved_places(run):
        raise RunError("No saved merge is selected.", "Select one in the list.", code="no-saved-model")
    signed_in = oauth_token.token if oauth_token else None
    used = signed_in if settings.on_space else token.strip() or settings.token
    start_publish(PublishRequest(run.path / place, repo, visibility != PUBLIC, reason), used, settings)
    return {panel.token: "", **follow(context, panel, run_id)}


def forget_token() -> str:
    """Empty the token's field."""
    return ""


def follow(context: AppContext, panel: PublishPanel, run_id: str) -> Updates:
    """Show the upload that was started last; follow it until it is over."""
    uploads = read_publications(context.watch.folder(run_id)) if run_id else []
    last: Any = uploads[-1] if uploads else None
    return {
        panel.state: publication_view(last) if last else "",
        panel.timer: gr.Timer(active=bool(last) and not last.over),
    }
