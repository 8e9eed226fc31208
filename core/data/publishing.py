"""Uploads a file of pairs to a private dataset on the Hub; it deletes nothing and never writes to a public dataset."""

from __future__ import annotations

import re
from pathlib import Path

from core.data.training_pairs import Dataset
from core.errors import DataError, ModelError
from core.models.hub import translate_errors
from core.models.references import ModelReference
from core.settings import Settings

_REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def push_to_hub(path: Path, dataset: Dataset, repo_id: str, settings: Settings) -> str:
    """Upload a file of pairs as `DATASET.jsonl` to a private dataset, which is created where it does not exist.

    An earlier file with this name remains in the dataset's history.

    Returns:
        The URL of the commit.

    Raises:
        DataError: the token is missing, the id is invalid, the dataset is public, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    if settings.token is None:
        hint = "Set HF_TOKEN to a token that may write, and start again."
        raise DataError("Uploading needs a Hub token.", hint, code="token-missing")
    if not _REPO_ID.fullmatch(repo_id):
        raise DataError(f"'{repo_id}' is not the id of a dataset.", "Write it as owner/name.", code="invalid-hub-id")
    api = HfApi(token=settings.token)
    try:
        with translate_errors(ModelReference("hub", repo_id), settings, "dataset"):
            if not api.repo_exists(repo_id, repo_type="dataset"):
                api.create_repo(repo_id, repo_type="dataset", private=True)
            elif not api.dataset_info(repo_id, timeout=settings.hub_timeout_s).private:
                raise DataError(
                    f"{repo_id} is public, and training pairs contain unsafe questions.",
                    "Name another dataset, or make it private.",
                    code="public-dataset",
                )
            commit = api.upload_file(
                path_or_fileobj=path.read_bytes(),
                path_in_repo=f"{dataset}.jsonl",
                repo_id=repo_id,
                repo_type="dataset",
                commit_message=f"{dataset.capitalize()} pairs",
            )
    except ModelError as error:
        raise DataError(error.message, error.hint, code=error.code) from error
    return str(commit.commit_url)
