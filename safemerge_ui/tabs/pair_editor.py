"""The rows of a file of pairs, on the Data tab: taken from a run or uploaded, edited, excluded, added, downloaded.

The file that the form names as a source is the file that is shown; each edit makes a new one and puts it into the form,
so that what is seen is what the next launch uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from core.contracts.run_spec import RunSpec
from core.data.editing import (
    add_row,
    convert_table,
    decide_row,
    edit_row,
    exclude_row,
    keep_rows,
    preview_table,
    read_editable,
)
from core.data.publishing import push_to_hub
from core.data.training_pairs import Dataset, Provenance, Sample, provenances, samples_from_events
from core.errors import DataError
from core.settings import resolve_path
from safemerge_ui.access import check_upload, keep_upload, refuse_local_file, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind, bind_with_notice
from safemerge_ui.scripts import ROWS
from safemerge_ui.views.markup import notice, text
from safemerge_ui.views.pair_editor import pages_of, row_cards, table_preview

KINDS = [("Safety", "safety"), ("Domain", "domain")]
TABLES = [".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"]
NONE = "(none)"

Fields = dict[str, gr.components.Component]


@dataclass(frozen=True)
class RowsPanel:
    """Components of the panel.

    Attributes:
        upload_path: the uploaded table whose columns are being chosen; empty for none.
        index: the row in the editor, -1 for none.
    """

    dataset: gr.Radio
    take: gr.Button
    upload: gr.UploadButton
    download: gr.DownloadButton
    notice: gr.HTML
    mapping: gr.Column
    preview: gr.HTML
    columns: dict[str, gr.Dropdown]
    use: gr.Button
    upload_path: gr.State
    cards: gr.HTML
    page: gr.Slider
    index: gr.State
    editor: dict[str, gr.Textbox]
    save: gr.Button
    exclude: gr.Button
    add: gr.Button
    repo_id: gr.Textbox
    push: gr.Button
    pushed: gr.HTML


class RowsShown(NamedTuple):
    """What every change of the file fills: the form's file and source, rows, pages, download, row in the editor."""

    safety_path: Any
    safety_source: Any
    domain_path: Any
    domain_source: Any
    cards: Any
    page: Any
    download: Any
    index: Any


def build() -> RowsPanel:
    """Lay out the panel."""
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML(
            "<h2>Rows</h2><p>Take the pairs of the run on this page or upload a table, and change what you like.</p>"
        )
        with gr.Row():
            dataset = gr.Radio(KINDS, value="safety", label="Pairs", elem_id="rows-kind")
            take = gr.Button("Take this run's pairs", size="sm")
            upload = gr.UploadButton("Upload a table", file_types=TABLES, size="sm", elem_id="rows-upload")
            download = gr.DownloadButton("Download JSONL", size="sm", interactive=False, elem_id="rows-download")
        said = gr.HTML(elem_id="rows-notice")
        with gr.Column(visible=False) as mapping:
            preview = gr.HTML()
            with gr.Row():
                columns = {
                    name: gr.Dropdown([NONE], label=f"Column of the {name}", elem_id=f"rows-column-{name}")
                    for name in ("question", "answer", "category")
                }
            use = gr.Button("Use these columns", size="sm")
        cards = gr.HTML(row_cards([], "safety"), elem_id="rows-cards", js_on_load=ROWS)
        page = gr.Slider(1, 2, value=1, step=1, label="Page of rows", visible=False)
        with gr.Accordion("Edit or add a row", open=True, elem_id="rows-editor"):
            editor = {
                "question": gr.Textbox(label="Question of the row", lines=2),
                "answer": gr.Textbox(label="Answer of the row", lines=2),
                "category": gr.Textbox(label="Category of the row"),
            }
            with gr.Row():
                save, exclude, add = (
                    gr.Button(label, size="sm") for label in ("Save row", "Exclude row", "Add as row")
                )
        with gr.Accordion("Upload to the Hub as a private dataset", open=False):
            repo_id = gr.Textbox(label="Dataset", info="owner/name; needs HF_TOKEN, never replaces a public dataset")
            push = gr.Button("Upload the file", size="sm")
            pushed = gr.HTML()
    return RowsPanel(
        dataset, take, upload, download, said, mapping, preview, columns, use, gr.State(""), cards, page,
        gr.State(-1), editor, save, exclude, add, repo_id, push, pushed,
    )  # fmt: skip


def wire(panel: RowsPanel, fields: Fields, context: AppContext, run_id: gr.State) -> None:
    """Bind buttons, uploads and the cards."""
    paths = [fields["safety_path"], fields["domain_path"]]
    shown = filled_fields(panel, fields)
    filled, texts = [panel.notice, *shown], list(panel.editor.values())
    count = len(RowsShown._fields)

    def on_click(button: gr.Button, handler: Any, inputs: list[Any]) -> None:
        button.click(bind_with_notice(handler, context, outputs=count), [panel.dataset, *inputs], filled)

    on_click(panel.take, take_pairs, [run_id])
    on_click(panel.save, save_row, [*paths, panel.index, *texts])
    on_click(panel.exclude, drop_row, [*paths, panel.index])
    on_click(panel.add, append_row, [*paths, *texts])
    panel.dataset.change(bind_with_notice(show_file, context, outputs=count), [panel.dataset, *paths], filled)
    panel.page.release(bind(turn_page, context), [panel.dataset, *paths, panel.page], panel.cards)
    mapped = [panel.notice, panel.mapping, panel.preview, panel.upload_path, *panel.columns.values()]
    panel.upload.upload(bind_with_notice(take_table, context, outputs=len(mapped) - 1), panel.upload, mapped)
    columns = [panel.upload_path, *panel.columns.values()]
    used = bind_with_notice(use_table, context, outputs=count + 1)
    panel.use.click(used, [panel.dataset, *columns], [panel.notice, panel.mapping, *shown])
    panel.push.click(
        bind_with_notice(push_file, context, outputs=1),
        [panel.dataset, *paths, panel.repo_id],
        [panel.notice, panel.pushed],
    )
    panel.cards.edit(bind(open_row, context), [panel.dataset, *paths], [panel.index, *texts])


def filled_fields(panel: RowsPanel, fields: Fields) -> list[gr.components.Component]:
    """What `RowsShown` fills."""
    return [
        fields["safety_path"], fields["safety_source"], fields["domain_path"], fields["domain_source"],
        panel.cards, panel.page, panel.download, panel.index,
    ]  # fmt: skip


def take_pairs(context: AppContext, dataset: Dataset, run_id: str, profile: gr.OAuthProfile | None) -> RowsShown:
    """The kept pairs of the run on this page, as a file."""
    require_starter(context.settings, profile)
    return _keep(context, dataset, run_pairs(context, dataset, run_id))


def decide(
    context: AppContext, run_id: str, path: str, source: str, event: gr.EventData, profile: gr.OAuthProfile | None
) -> tuple[Any, ...]:
    """A safety row on which guards disagree, kept or excluded by a person.

    The rows are those of the form's file where it is of this run, else all that the run kept; a row that the run
    dropped joins them when it is kept.
    """
    require_starter(context.settings, profile)
    number, keep = int(event._data["row"]), bool(event._data["keep"])
    chosen = context.watch.look(run_id).view.samples[number].model_copy(update={"kept": True})
    [row] = samples_from_events([chosen], "safety", *_marks(context, "safety", run_id))
    samples = decide_row(_rows_of_run(context, run_id, path if source == "file" else ""), row, keep=keep)
    word = "Kept" if keep else "Excluded"
    said = notice(f"{word}.", f"The form's safety data is a file with {len(samples)} rows, shown below.", "info")
    return said, "safety", *_keep(context, "safety", samples)


def _rows_of_run(context: AppContext, run_id: str, path: str) -> list[Sample]:
    """The safety rows of the form's file where some are pairs of this run, else those of the run."""
    kept = run_pairs(context, "safety", run_id)
    if path and resolve_path(path).is_file():
        ours = {(sample.question, sample.answer) for sample in kept}
        rows = _read(context, "safety", path, "")
        if any((sample.question, sample.answer) in ours for sample in rows):
            return rows
    return kept


def run_pairs(context: AppContext, dataset: Dataset, run_id: str) -> list[Sample]:
    """The pairs that a run kept, none without a run."""
    if not run_id:
        return []
    return samples_from_events(context.watch.look(run_id).view.samples, dataset, *_marks(context, dataset, run_id))


def _marks(context: AppContext, dataset: Dataset, run_id: str) -> tuple[Provenance, ...]:
    """Where the pairs of each of the run's sources are from; nothing before the run has said its spec."""
    spec = context.watch.look(run_id).view.spec
    return provenances(getattr(RunSpec.model_validate(spec).data, dataset)) if spec else ()


def show_file(context: AppContext, dataset: Dataset, safety: str, domain: str) -> RowsShown:
    """The file that the form names for a dataset."""
    path = safety if dataset == "safety" else domain
    if not path or not resolve_path(path).is_file():
        skip = gr.skip()
        return RowsShown(skip, skip, skip, skip, row_cards([], dataset), gr.update(visible=False), gr.skip(), -1)
    return _shown(dataset, Path(path), _read(context, dataset, safety, domain))._replace(
        safety_path=gr.skip(), safety_source=gr.skip(), domain_path=gr.skip(), domain_source=gr.skip()
    )


def turn_page(context: AppContext, dataset: Dataset, safety: str, domain: str, page: int) -> str:
    """Another page of the same file."""
    return row_cards(_read(context, dataset, safety, domain), dataset, int(page))


def open_row(
    context: AppContext, dataset: Dataset, safety: str, domain: str, event: gr.EventData
) -> tuple[int, str, str, str]:
    """A row into the editor."""
    index = int(event._data["row"])
    sample = _read(context, dataset, safety, domain)[index]
    return index, sample.question, sample.answer, sample.category


def save_row(
    context: AppContext,
    dataset: Dataset,
    safety: str,
    domain: str,
    index: int,
    question: str,
    answer: str,
    category: str,
    profile: gr.OAuthProfile | None,
) -> RowsShown:
    """The row in the editor, as it is there now."""
    require_starter(context.settings, profile)
    samples = _read(context, dataset, safety, domain)
    return _keep(context, dataset, edit_row(samples, index, question, answer, category))


def drop_row(
    context: AppContext, dataset: Dataset, safety: str, domain: str, index: int, profile: gr.OAuthProfile | None
) -> RowsShown:
    """The file without the row in the editor."""
    require_starter(context.settings, profile)
    return _keep(context, dataset, exclude_row(_read(context, dataset, safety, domain), index))


def append_row(
    context: AppContext,
    dataset: Dataset,
    safety: str,
    domain: str,
    question: str,
    answer: str,
    category: str,
    profile: gr.OAuthProfile | None,
) -> RowsShown:
    """The file with what is in the editor as a new row."""
    require_starter(context.settings, profile)
    path = safety if dataset == "safety" else domain
    samples = _read(context, dataset, safety, domain) if path else []
    return _keep(context, dataset, add_row(samples, question, answer, category))


def take_table(context: AppContext, path: str, profile: gr.OAuthProfile | None) -> tuple[Any, ...]:
    """A look into an uploaded table, with a guess at its columns; nothing is used yet."""
    require_starter(context.settings, profile)
    check_upload(Path(path))
    table = preview_table(Path(path))
    kept = str(keep_upload(Path(path), context.settings))
    choices = [NONE, *table.names]
    chosen = [gr.update(choices=choices, value=table.guess[name] or NONE) for name in table.guess]
    return gr.update(visible=True), table_preview(table), kept, *chosen


def use_table(
    context: AppContext,
    dataset: Dataset,
    path: str,
    question: str,
    answer: str,
    category: str,
    profile: gr.OAuthProfile | None,
) -> tuple[Any, ...]:
    """The uploaded table as a file of pairs, by the columns that were chosen."""
    require_starter(context.settings, profile)
    names = {"question": question, "answer": answer, "category": category}
    columns = {part: "" if name == NONE else name for part, name in names.items()}
    if not columns["question"]:
        raise DataError("No column is chosen for the question.", "Choose the column that holds the questions.")
    return gr.update(visible=False), *_keep(context, dataset, convert_table(Path(path), dataset, **columns))


def push_file(
    context: AppContext, dataset: Dataset, safety: str, domain: str, repo_id: str, profile: gr.OAuthProfile | None
) -> str:
    """The file that is shown, onto the Hub."""
    require_starter(context.settings, profile)
    samples = _read(context, dataset, safety, domain)
    url = push_to_hub(keep_rows(samples, context.settings.uploads), dataset, repo_id.strip(), context.settings)
    return f"<p>Uploaded: <code>{text(url)}</code></p>"


def _read(context: AppContext, dataset: Dataset, safety: str, domain: str) -> list[Sample]:
    path = safety if dataset == "safety" else domain
    if not path:
        raise DataError("There is no file of pairs yet.", "Take the pairs of a run, or upload a table.")
    refuse_local_file(path, context.settings)
    return read_editable(resolve_path(path), dataset)


def _keep(context: AppContext, dataset: Dataset, samples: list[Sample]) -> RowsShown:
    return _shown(dataset, keep_rows(samples, context.settings.uploads), samples)


def _shown(dataset: Dataset, path: Path, samples: list[Sample]) -> RowsShown:
    """The rows, with the file in the form; the editor holds no row, as their numbers may have changed.

    What is downloaded is a copy in gradio's own folder, the only place that it hands files out from.
    """
    named = {f"{dataset}_path": str(path), f"{dataset}_source": "file"}
    pages = pages_of(samples)
    return RowsShown(
        **{name: named.get(name, gr.skip()) for name in RowsShown._fields[:4]},
        cards=row_cards(samples, dataset),
        page=gr.update(value=1, maximum=max(2, pages), visible=pages > 1),
        download=gr.update(value=save_file_to_cache(path, get_upload_folder()), interactive=True),
        index=-1,
    )
