"""Publishing a saved merge to a local Hub: what arrives there, what is refused, and how an upload is continued."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from core.cli.main import main
from core.errors import ModelError, RunError
from core.models.fingerprint import sha256_of_folder
from core.publishing import publish as publishing
from core.publishing.publish import Published, PublishRequest
from core.runs.folder import RunFolder
from core.runs.publications import read_publications
from core.settings import Settings
from tests.hub_server import HubServer
from tests.raising import raises
from tests.saved_run import EXPERT, saved_run

REPO = "someone/merge"
REASON = "A red team needs this weak merge."


@pytest.fixture
def run(tmp_path: Path, tiny_llama: Path) -> RunFolder:
    """A run whose merge is as aligned as its best parent."""
    return saved_run(tmp_path / "runs" / "first", tiny_llama, merged_safe=36)


@pytest.fixture
def weak(tmp_path: Path, tiny_llama: Path) -> RunFolder:
    """A run whose merge is less aligned than its best parent, beyond chance."""
    return saved_run(tmp_path / "runs" / "weak", tiny_llama, merged_safe=10)


def publish(run: RunFolder, settings: Settings, repo: str = "merge", **asked: Any) -> Published:
    return publishing.publish(PublishRequest(run.path, repo, **asked), settings, lambda _step: None)


def card_of(hub: HubServer, repo: str = REPO) -> ModelCard:
    return ModelCard(hub.committed[f"{repo}/README.md"].decode())


def test_a_private_repository_gets_model_card_recipe_and_report(
    parents: HubServer, run: RunFolder, signed_in: Settings, tmp_path: Path
) -> None:
    published = publish(run, signed_in)
    assert (published.repo, published.url, published.unchanged) == (REPO, f"{parents.url}/{REPO}", False)
    assert parents.made[REPO]["visibility"] == "private"
    files = {path.removeprefix(f"{REPO}/") for path in parents.committed}
    assert {"README.md", "spec.yaml", "report.md", "mergekit_config.yml", "safemerge.json"} <= files
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= files and "notes.bin" not in files
    assert sha256_of_folder(parents.repositories[REPO].folder) == published.source.sha256
    assert published.commit == parents.repositories[REPO].sha and not parents.deletions
    [recorded] = read_publications(run)
    assert (recorded.state, recorded.repo, recorded.commit) == ("published", REPO, published.commit)
    assert str(tmp_path) not in "".join(
        content.decode(errors="replace") for path, content in parents.committed.items() if "." in path
    )


def test_the_card_states_what_the_hub_reads(parents: HubServer, run: RunFolder, signed_in: Settings) -> None:
    publish(run, signed_in)
    card = card_of(parents)
    facts = card.data.to_dict()
    assert facts["base_model"] == ["org/base", "org/expert"] and facts["base_model_relation"] == "merge"
    assert facts["tags"] == ["mergekit", "merge", "safemerge"] and facts["license"] == "apache-2.0"
    assert facts["library_name"] == "transformers"
    results = {one.metric_type: one.metric_value for one in card.data.eval_results or []}
    assert results["alignment"] == 0.9 and {"over-refusal", "accuracy"} <= set(results)
    for part in ("## Measured safety", "## Recipe", "## License", "## Limits", "python -m core run spec.yaml"):
        assert part in card.text
    assert "| org/base (parent) | 0.90 [" in card.text and "| evomm (merged) | 0.90 [" in card.text


def test_a_merge_below_its_best_parent_needs_a_reason_which_is_on_record(
    parents: HubServer, weak: RunFolder, signed_in: Settings
) -> None:
    with raises(RunError, "less-aligned"):
        publish(weak, signed_in)
    with raises(RunError, "reason-too-short"):
        publish(weak, signed_in, override=" because ")
    assert not parents.made and {one.state for one in read_publications(weak)} == {"failed"}
    publish(weak, signed_in, override=f"  {REASON}\n")
    *_, recorded = read_publications(weak)
    assert recorded.override == REASON and recorded.objection
    text = card_of(parents).text
    assert REASON in text and "Published in spite of this" in text


def test_a_reason_is_ignored_where_none_is_needed(parents: HubServer, run: RunFolder, signed_in: Settings) -> None:
    assert publish(run, signed_in, override=REASON).override == ""
    assert REASON not in card_of(parents).text


@pytest.mark.parametrize("missing", ["evomm", "org/base"])
def test_a_lower_rate_that_cannot_be_tested_needs_a_reason(
    parents: HubServer, weak: RunFolder, signed_in: Settings, missing: str
) -> None:
    weak.replies_path(missing).unlink()
    with raises(RunError, "less-aligned"):
        publish(weak, signed_in)


def test_a_difference_within_chance_is_published_and_stated(
    parents: HubServer, tmp_path: Path, tiny_llama: Path, signed_in: Settings
) -> None:
    near = saved_run(tmp_path / "near", tiny_llama, merged_safe=34)
    published = publish(near, signed_in)
    assert not published.check.objection
    assert "-5 percentage points (95 % interval" in card_of(parents).text


def test_an_upload_that_broke_off_is_continued(parents: HubServer, run: RunFolder, signed_in: Settings) -> None:
    parents.commits_left = 1
    with raises(ModelError, "hub-error-status"):
        publish(run, signed_in)
    [failed] = read_publications(run)
    assert (failed.state, len(parents.uploads)) == ("failed", 1)
    parents.commits_left = None
    published = publish(run, signed_in)
    assert len(parents.uploads) == 1, "the weights were sent twice"
    assert len(parents.made) == 1 and not published.unchanged
    assert sha256_of_folder(parents.repositories[REPO].folder) == published.source.sha256


def test_weights_that_the_storage_refused_are_sent_again(
    parents: HubServer, run: RunFolder, signed_in: Settings
) -> None:
    parents.uploads_left = 0
    with raises(ModelError, "upload-failed"):
        publish(run, signed_in)
    parents.uploads_left = None
    publish(run, signed_in)
    assert len(parents.uploads) == 1
    assert [one.state for one in read_publications(run)] == ["failed", "published"]


def test_a_network_that_fails_during_an_upload_is_an_error_and_the_next_try_ends_it(
    parents: HubServer, run: RunFolder, signed_in: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits between its tries
    parents.drops_left = None
    with pytest.raises(ModelError) as caught:
        publish(run, signed_in)
    assert caught.value.code in ("upload-failed", "hub-unreachable") and "again" in caught.value.hint
    [failed] = read_publications(run)
    assert failed.state == "failed" and failed.hint and not parents.uploads
    parents.drops_left = 0
    published = publish(run, signed_in)
    assert sha256_of_folder(parents.repositories[REPO].folder) == published.source.sha256


def test_publishing_again_changes_nothing(parents: HubServer, run: RunFolder, signed_in: Settings) -> None:
    first, sent = publish(run, signed_in), list(parents.uploads)
    again = publish(run, signed_in)
    assert again.commit == first.commit and parents.uploads == sent
    assert not first.unchanged


def test_a_repository_of_somebody_else_is_never_touched(
    parents: HubServer, run: RunFolder, signed_in: Settings, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("mine", encoding="utf-8")
    parents.publish(REPO, mine, private=True)
    with raises(ModelError, "name-taken"):
        publish(run, signed_in)
    (mine / "safemerge.json").write_text('{"made_by": "me"}', encoding="utf-8")
    with raises(ModelError, "name-taken"):
        publish(run, signed_in)
    assert not parents.committed and not parents.deletions


def test_a_file_that_somebody_changed_on_the_hub_is_kept(
    parents: HubServer, run: RunFolder, signed_in: Settings
) -> None:
    publish(run, signed_in)
    parents.add(REPO, "README.md", b"my own words")
    parents.add(REPO, "examples.txt", b"more of mine")
    with raises(ModelError, "changed-on-hub"):
        publish(run, signed_in)
    assert parents.committed[f"{REPO}/README.md"] == b"my own words"


def test_another_merge_or_visibility_needs_another_name(
    parents: HubServer, run: RunFolder, signed_in: Settings, tmp_path: Path, tiny_expert: Path
) -> None:
    publish(run, signed_in)
    with raises(ModelError, "visibility-differs"):
        publish(run, signed_in, private=False)
    other = saved_run(tmp_path / "other", tiny_expert, merged_safe=36)
    with raises(ModelError, "other-merge"):
        publish(other, signed_in)


def test_weights_that_changed_after_the_run_are_refused(
    parents: HubServer, run: RunFolder, signed_in: Settings, tiny_expert: Path
) -> None:
    (run.merged_path / "model.safetensors").write_bytes((tiny_expert / "model.safetensors").read_bytes())
    with raises(RunError, "weights-changed"):
        publish(run, signed_in)


@pytest.mark.parametrize(
    ("repo", "code"),
    [
        ("else/merge", "not-your-namespace"),
        ("a/b/c", "invalid-hub-id"),
        ("no spaces", "invalid-hub-id"),
        ("", "invalid-hub-id"),
        ("x" * 97, "invalid-hub-id"),
        ("-dash", "invalid-hub-id"),
        ("merge.git", "invalid-hub-id"),
    ],
)
def test_names_are_checked_before_anything_is_made(
    parents: HubServer, run: RunFolder, signed_in: Settings, repo: str, code: str
) -> None:
    with raises(ModelError, code):
        publish(run, signed_in, repo)
    assert not parents.made


def test_an_organization_of_the_user_is_a_name_too(parents: HubServer, run: RunFolder, signed_in: Settings) -> None:
    assert publish(run, signed_in, "lab/merge", private=False).repo == "lab/merge"
    assert parents.made["lab/merge"]["visibility"] == "public"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (None, "token-missing"),
        (" ", "token-missing"),
        ("hf_wrong", "token-refused"),
        ("hf_two\nlines", "token-invalid"),
        ("hf_ä", "token-invalid"),
        ("hf two words", "token-invalid"),
    ],
)
def test_a_wrong_token_is_an_error_that_does_not_show_it(
    parents: HubServer, run: RunFolder, settings: Settings, token: str | None, code: str
) -> None:
    with raises(ModelError, code) as caught:
        publish(run, replace(settings, token=token))
    assert not parents.made
    chain, shown = caught.value, ""
    while chain is not None:
        shown += f"{chain} {chain!r}"
        chain = chain.__cause__ or chain.__context__  # type: ignore[assignment]
    assert not (token or "").strip() or str(token) not in shown


def test_the_token_is_nowhere_but_in_the_request_header(
    parents: HubServer, run: RunFolder, signed_in: Settings, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    parents.uploads_left = 0
    with raises(ModelError, "upload-failed") as caught:
        publish(run, signed_in)
    assert caught.value.__suppress_context__
    parents.uploads_left = None
    publish(run, signed_in)
    shown = capfd.readouterr()
    written = "".join(path.read_text(errors="replace") for path in run.path.rglob("*.jsonl"))
    sent = "".join(content.decode(errors="replace") for content in parents.committed.values())
    for text in (caplog.text, shown.out, shown.err, written, sent, *parents.requests, str(caught.value)):
        assert parents.token not in text
    assert "Signature" not in f"{caught.value} {written} {sent}"


def test_a_license_that_forbids_derivatives_keeps_a_merge_private(
    parents: HubServer, run: RunFolder, signed_in: Settings
) -> None:
    parents.publish(EXPERT, parents.repositories[EXPERT].folder, license="cc-by-nc-nd-4.0")
    with raises(RunError, "license-forbids"):
        publish(run, signed_in, private=False)
    assert publish(run, signed_in).license.obstacle


def test_the_command_prints_one_json_object(
    parents: HubServer, run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", parents.token)
    assert main(["publish", str(run.path), "--repo", "merge", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["repo"], printed["private"], printed["license"]) == (REPO, True, "apache-2.0")
    assert printed["alignment"]["rate"] == 0.9 and printed["best_parent"]["name"] == "org/base"
    assert printed["override"] == printed["objection"] == ""


def test_the_command_refuses_a_less_aligned_merge(
    parents: HubServer, weak: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", parents.token)
    assert main(["publish", str(weak.path), "--repo", "merge", "--public"]) == 1
    assert "--override" in capsys.readouterr().err and not parents.made
    assert main(["publish", str(weak.path), "--repo", "merge", "--public", "--override", REASON]) == 0


def test_folders_that_are_no_saved_merge_are_refused(signed_in: Settings, tmp_path: Path, run: RunFolder) -> None:
    with raises(RunError, "not-a-run-folder"):
        publish(RunFolder(tmp_path), signed_in)
    with raises(RunError, "no-saved-model"):
        publishing.publish(PublishRequest(run.path / "baselines" / "equal", "x"), signed_in, lambda _step: None)


@pytest.mark.parametrize("asked", [{"repo": "someone/hf_test"}, {"override": "Because hf_test is my token."}])
def test_a_token_in_the_name_or_the_reason_is_refused_and_not_recorded(
    parents: HubServer, weak: RunFolder, signed_in: Settings, asked: dict[str, str]
) -> None:
    with raises(ModelError, "token-in-text"):
        publish(weak, signed_in, **asked)
    assert read_publications(weak) == [] and not parents.made


def test_a_link_in_the_saved_model_is_refused(parents: HubServer, run: RunFolder, signed_in: Settings) -> None:
    (run.merged_path / "extra.json").symlink_to("/etc/hostname")
    with raises(ModelError, "linked-file"):
        publish(run, signed_in)
    assert not parents.made


def test_a_saved_candidate_that_was_not_measured_needs_a_reason(
    parents: HubServer, run: RunFolder, signed_in: Settings, tiny_expert: Path
) -> None:
    folder = run.path / "candidates" / "5"
    shutil.copytree(tiny_expert, folder)
    with raises(RunError, "less-aligned"):
        publishing.publish(PublishRequest(folder, "candidate"), signed_in, lambda _step: None)
    request = PublishRequest(folder, "candidate", True, REASON)
    published = publishing.publish(request, signed_in, lambda _step: None)
    assert (published.source.place, published.source.result) == ("candidates/5", None)
    assert "was not measured" in card_of(parents, "someone/candidate").text
