"""A file of pairs onto the Hub, as a private dataset. Nothing there is deleted, and nothing public is written to."""

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
    """Upload a file of pairs as `DATASET.jsonl` of a private dataset, which is made when it is not there.

    An earlier file of that name stays in the dataset's history.

    Returns:
        The address of the commit.

    Raises:
        DataError: no token, no valid id, a dataset that is public, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    if settings.token is None:
        raise DataError("Uploading needs a Hub token.", "Set HF_TOKEN to a token that may write, and start again.")
    if not _REPO_ID.fullmatch(repo_id):
        raise DataError(f"'{repo_id}' is not the id of a dataset.", "Write it as owner/name.")
    api = HfApi(token=settings.token)
    try:
        with translate_errors(ModelReference("hub", repo_id), settings, "dataset"):
            made = not api.repo_exists(repo_id, repo_type="dataset")
            if made:
                api.create_repo(repo_id, repo_type="dataset", private=True)
            elif not api.dataset_info(repo_id, timeout=settings.hub_timeout_s).private:
                raise DataError(
                    f"{repo_id} is public, and training pairs hold unsafe questions.",
                    "Name another, or make it private.",
                )
            commit = api.upload_file(
                path_or_fileobj=path.read_bytes(),
                path_in_repo=f"{dataset}.jsonl",
                repo_id=repo_id,
                repo_type="dataset",
                commit_message=f"{dataset.capitalize()} pairs",
            )
    except ModelError as error:
        raise DataError(error.message, error.hint) from error
    return str(commit.commit_url)
