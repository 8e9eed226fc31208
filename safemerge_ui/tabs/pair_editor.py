"""The editor for training pairs on the Data tab: copy them from a run or upload a table, then edit, exclude, add rows.

The editor shows the file that the form names as a source. Each edit writes a new file and enters it into the form, so
the next launch uses exactly what the editor shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from core.contracts.run_spec import spec_from_dict
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
from core.settings import is_file, resolve_path
from safemerge_ui.access import check_upload, keep_upload, refuse_local_file, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.scripts import ROWS
from safemerge_ui.views.markup import notice, text
from safemerge_ui.views.pair_rows import pages_of, row_cards, table_preview

DATASETS: tuple[tuple[str, Dataset], ...] = (("Safety", "safety"), ("Domain", "domain"))
TABLES = [".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"]
NO_COLUMN = "(none)"
NO_ROW = -1

Fields = dict[str, gr.components.Component]
Values = Mapping[Any, Any]


@dataclass(frozen=True)
class PairEditor:
    """Components of the editor.

    Attributes:
        form: the form's fields; those for the source of each dataset are read and filled.
        dataset: which pairs are shown.
        upload_path: the uploaded table whose columns are being chosen; empty for none.
        columns: the column of each part of a pair.
        row: index of the row in `texts`; `NO_ROW` for none.
        texts: the parts of one row, to edit.
    """

    form: Fields
    dataset: gr.Radio
    copy: gr.Button
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
    row: gr.State
    texts: dict[str, gr.Textbox]
    save: gr.Button
    exclude: gr.Button
    add: gr.Button
    repo_id: gr.Textbox
    push: gr.Button
    pushed: gr.HTML


def build(form: Fields) -> PairEditor:
    """Lay out the editor; `form` has the fields of the sources."""
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML(
            "<h2>Edit pairs</h2><p>Copy the pairs of the run on this page or upload a table, then edit, exclude and "
            "add rows. The next launch uses the edited pairs.</p>"
        )
        with gr.Row(elem_classes="sm-choose"):
            dataset = gr.Radio(list(DATASETS), value="safety", label="Pairs", elem_id="rows-kind")
            copy = gr.Button("Copy this run's pairs", size="sm", elem_id="rows-copy")
            upload = gr.UploadButton("Upload a table", file_types=TABLES, size="sm", elem_id="rows-upload")
            download = gr.DownloadButton("Download JSONL", size="sm", interactive=False, elem_id="rows-download")
        message = gr.HTML(elem_id="rows-notice")
        with gr.Column(visible=False) as mapping:
            preview = gr.HTML()
            with gr.Row():
                columns = {
                    name: gr.Dropdown([NO_COLUMN], label=f"{name.capitalize()} column", elem_id=f"rows-column-{name}")
                    for name in ("question", "answer", "category")
                }
            use = gr.Button("Use these columns", size="sm", elem_id="rows-use")
        cards = gr.HTML(row_cards([], "safety"), elem_id="rows-cards", js_on_load=ROWS)
        page = gr.Slider(1, 2, value=1, step=1, label="Page of rows", visible=False)
        with gr.Accordion("Edit or add a row", open=True, elem_id="rows-editor", elem_classes="sm-sub"):
            texts = {
                "question": gr.Textbox(label="Question", lines=2, elem_id="rows-question"),
                "answer": gr.Textbox(label="Answer", lines=2, elem_id="rows-answer"),
                "category": gr.Textbox(label="Category", elem_id="rows-category"),
            }
            with gr.Row(elem_classes="sm-actions"):
                save = gr.Button("Save row", size="sm", elem_id="rows-save")
                exclude = gr.Button("Exclude row", size="sm", elem_id="rows-exclude")
                add = gr.Button("Add as new row", size="sm", elem_id="rows-add")
        with gr.Accordion("Upload to the Hub as a private dataset", open=False, elem_classes="sm-sub"):
            repo_id = gr.Textbox(label="Dataset", info="owner/name. Needs HF_TOKEN; never replaces a public dataset")
            with gr.Row(elem_classes="sm-actions"):
                push = gr.Button("Upload the file", size="sm")
            pushed = gr.HTML()
    return PairEditor(
        form, dataset, copy, upload, download, message, mapping, preview, columns, use, gr.State(""), cards, page,
        gr.State(NO_ROW), texts, save, exclude, add, repo_id, push, pushed,
    )  # fmt: skip


def wire(editor: PairEditor, context: AppContext, run_id: gr.State) -> None:
    """Bind buttons, uploads and the cards."""
    file: set[Block] = {editor.dataset, *form_fields(editor, "safety"), *form_fields(editor, "domain")}
    row: set[Block] = {*file, editor.row, *editor.texts.values()}
    filled = [editor.notice, *outputs(editor)]

    def with_notice(handler: Any, *more: Any) -> Any:
        return bind_with_notice(handler, editor.notice, context, editor, *more)

    editor.copy.click(with_notice(copy_pairs, run_id), {*file, run_id}, filled)
    for button, handler in ((editor.save, save_row), (editor.exclude, drop_row), (editor.add, append_row)):
        button.click(with_notice(handler), row, filled)
    editor.dataset.change(with_notice(show_file), file, filled)
    editor.page.release(bind(turn_page, context, editor), {*file, editor.page}, editor.cards)
    chosen = [editor.upload_path, *editor.columns.values()]
    editor.upload.upload(
        with_notice(preview_upload), editor.upload, [editor.notice, editor.mapping, editor.preview, *chosen]
    )
    editor.use.click(with_notice(use_upload), {editor.dataset, *chosen}, [*filled, editor.mapping])
    editor.push.click(with_notice(push_file), {*file, editor.repo_id}, [editor.notice, editor.pushed])
    editor.cards.edit(bind(edit_card, context, editor), file, [editor.row, *editor.texts.values()])


def form_fields(editor: PairEditor, dataset: Dataset) -> list[Block]:
    """Return the form's fields for the source of a dataset: its path and its kind."""
    return [editor.form[f"{dataset}_path"], editor.form[f"{dataset}_source"]]


def outputs(editor: PairEditor) -> list[Block]:
    """Return what every change of the file fills."""
    fields = [*form_fields(editor, "safety"), *form_fields(editor, "domain")]
    return [*fields, editor.dataset, editor.cards, editor.page, editor.download, editor.row]


def copy_pairs(
    context: AppContext, editor: PairEditor, run_id: gr.State, values: Values, profile: gr.OAuthProfile | None
) -> Updates:
    """Write the pairs that the run on the page kept to a file, and show it."""
    require_starter(context.settings, profile)
    dataset = values[editor.dataset]
    return _write(context, editor, dataset, run_pairs(context, dataset, values[run_id]))


def decide(
    context: AppContext,
    editor: PairEditor,
    message: gr.HTML,
    run_id: gr.State,
    values: Values,
    event: gr.EventData,
    profile: gr.OAuthProfile | None,
) -> Updates:
    """Keep or exclude a safety pair on which guards disagree, as the visitor decided.

    The edited rows are those of the form's file if it holds pairs of this run, else all pairs that the run kept. A pair
    that the run dropped is added to them when the visitor keeps it.
    """
    require_starter(context.settings, profile)
    number, keep = int(event.row), bool(event.keep)
    run = values[run_id]
    chosen = context.watch.look(run).view.samples[number].model_copy(update={"kept": True})
    [row] = samples_from_events([chosen], "safety", *_provenances(context, "safety", run))
    path, source = (values[field] for field in form_fields(editor, "safety"))
    samples = decide_row(_rows_of_run(context, run, path if source == "file" else ""), row, keep=keep)
    hint = f"The safety data in the form is now a file with {len(samples)} rows, shown below."
    said = notice("Kept." if keep else "Excluded.", hint, "info")
    return {message: said, editor.dataset: "safety", **_write(context, editor, "safety", samples)}


def run_pairs(context: AppContext, dataset: Dataset, run_id: str) -> list[Sample]:
    """Return the pairs that a run kept; none without a run."""
    if not run_id:
        return []
    marks = _provenances(context, dataset, run_id)
    return samples_from_events(context.watch.look(run_id).view.samples, dataset, *marks)


def show_file(context: AppContext, editor: PairEditor, values: Values) -> Updates:
    """Show the file that the form names for the dataset."""
    dataset, path = values[editor.dataset], _path(editor, values)
    if path:
        refuse_local_file(path, context.settings)
    if not path or not is_file(resolve_path(path)):
        return {editor.cards: row_cards([], dataset), editor.page: gr.update(visible=False), editor.row: NO_ROW}
    return _show(editor, dataset, Path(path), _read(context, editor, values))


def turn_page(context: AppContext, editor: PairEditor, values: Values) -> Updates:
    """Show another page of the same file."""
    samples = _read(context, editor, values)
    return {editor.cards: row_cards(samples, values[editor.dataset], int(values[editor.page]))}


def edit_card(context: AppContext, editor: PairEditor, values: Values, event: gr.EventData) -> Updates:
    """Load a row into the fields of the editor."""
    index = int(event.row)
    sample = _read(context, editor, values)[index]
    parts = {"question": sample.question, "answer": sample.answer, "category": sample.category}
    return {editor.row: index, **{field: parts[name] for name, field in editor.texts.items()}}


def save_row(context: AppContext, editor: PairEditor, values: Values, profile: gr.OAuthProfile | None) -> Updates:
    """Write the file with the edited row."""
    require_starter(context.settings, profile)
    samples = edit_row(_read(context, editor, values), values[editor.row], *_texts(editor, values))
    return _write(context, editor, values[editor.dataset], samples)


def drop_row(context: AppContext, editor: PairEditor, values: Values, profile: gr.OAuthProfile | None) -> Updates:
    """Write the file without the row in the editor."""
    require_starter(context.settings, profile)
    samples = exclude_row(_read(context, editor, values), values[editor.row])
    return _write(context, editor, values[editor.dataset], samples)


def append_row(context: AppContext, editor: PairEditor, values: Values, profile: gr.OAuthProfile | None) -> Updates:
    """Write the file with the editor's texts as a new row."""
    require_starter(context.settings, profile)
    samples = _read(context, editor, values) if _path(editor, values) else []
    return _write(context, editor, values[editor.dataset], add_row(samples, *_texts(editor, values)))


def preview_upload(context: AppContext, editor: PairEditor, path: str, profile: gr.OAuthProfile | None) -> Updates:
    """Show the first rows of an uploaded table, with a guess at its columns; nothing is used yet."""
    require_starter(context.settings, profile)
    check_upload(Path(path))
    table = preview_table(Path(path))
    choices = [NO_COLUMN, *table.names]
    guesses: Updates = {
        editor.columns[name]: gr.update(choices=choices, value=guess or NO_COLUMN)
        for name, guess in table.guess.items()
    }
    return {
        editor.mapping: gr.update(visible=True),
        editor.preview: table_preview(table),
        editor.upload_path: str(keep_upload(Path(path), context.settings)),
        **guesses,
    }


def use_upload(context: AppContext, editor: PairEditor, values: Values, profile: gr.OAuthProfile | None) -> Updates:
    """Convert the uploaded table to a file of pairs, by the chosen columns."""
    require_starter(context.settings, profile)
    chosen = {name: values[field] for name, field in editor.columns.items()}
    columns = {name: "" if column == NO_COLUMN else column for name, column in chosen.items()}
    if not columns["question"]:
        raise DataError(
            "No column is chosen for the question.", "Choose the column that holds the questions.", code="no-column"
        )
    dataset = values[editor.dataset]
    samples = convert_table(Path(values[editor.upload_path]), dataset, **columns)
    return {editor.mapping: gr.update(visible=False), **_write(context, editor, dataset, samples)}


def push_file(context: AppContext, editor: PairEditor, values: Values, profile: gr.OAuthProfile | None) -> Updates:
    """Upload the shown file to the Hub."""
    require_starter(context.settings, profile)
    file = keep_rows(_read(context, editor, values), context.settings.uploads)
    url = push_to_hub(file, values[editor.dataset], values[editor.repo_id].strip(), context.settings)
    return {editor.pushed: f"<p>Uploaded: <code>{text(url)}</code></p>"}


def _path(editor: PairEditor, values: Values) -> str:
    """The file that the form names for the dataset."""
    return str(values[editor.form[f"{values[editor.dataset]}_path"]] or "")


def _texts(editor: PairEditor, values: Values) -> list[str]:
    """Question, answer and category in the editor."""
    return [values[field] for field in editor.texts.values()]


def _rows_of_run(context: AppContext, run_id: str, path: str) -> list[Sample]:
    """The rows of the form's safety file if some of them are pairs of this run, else the pairs of the run."""
    kept = run_pairs(context, "safety", run_id)
    if path:
        refuse_local_file(path, context.settings)
    if path and is_file(resolve_path(path)):
        ours = {(sample.question, sample.answer) for sample in kept}
        rows = _read_file(context, "safety", path)
        if any((sample.question, sample.answer) in ours for sample in rows):
            return rows
    return kept


def _provenances(context: AppContext, dataset: Dataset, run_id: str) -> tuple[Provenance, ...]:
    """The origin of the pairs of each source of the run; empty until the run has written its spec."""
    spec = context.watch.look(run_id).view.spec
    return provenances(getattr(spec_from_dict(spec, stored=True).data, dataset)) if spec else ()


def _read(context: AppContext, editor: PairEditor, values: Values) -> list[Sample]:
    path = _path(editor, values)
    if not path:
        raise DataError(
            "There is no file of pairs yet.", "Copy the pairs of a run, or upload a table.", code="no-pairs"
        )
    return _read_file(context, values[editor.dataset], path)


def _read_file(context: AppContext, dataset: Dataset, path: str) -> list[Sample]:
    refuse_local_file(path, context.settings)
    return read_editable(resolve_path(path), dataset)


def _write(context: AppContext, editor: PairEditor, dataset: Dataset, samples: list[Sample]) -> Updates:
    """Write the rows to a new file, show it and enter it into the form."""
    path = keep_rows(samples, context.settings.uploads)
    path_field, source_field = form_fields(editor, dataset)
    return {path_field: str(path), source_field: "file", **_show(editor, dataset, path, samples)}


def _show(editor: PairEditor, dataset: Dataset, path: Path, samples: list[Sample]) -> Updates:
    """Show rows; no row stays in the editor, because the numbers of the rows may have changed.

    gradio serves files from its own folder only, so the download is a copy in that folder.
    """
    pages = pages_of(samples)
    return {
        editor.cards: row_cards(samples, dataset),
        editor.page: gr.update(value=1, maximum=max(2, pages), visible=pages > 1),
        editor.download: gr.update(value=save_file_to_cache(path, get_upload_folder()), interactive=True),
        editor.row: NO_ROW,
    }
