"""The measured replies of runs, read for all pages: each file once until it changes."""

from __future__ import annotations

import threading
from collections import OrderedDict

from core.evaluation.replies import ReplyRow, read_rows
from core.runs.folder import RunFolder
from core.runs.view import RunView

CAPACITY = 24

Rows = tuple[ReplyRow, ...]


class ReplyFiles:
    """Files of replies that pages look at; safe to use from several threads."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[str, int, int], Rows] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, folder: RunFolder, model: str) -> Rows:
        """A model's replies in a run; none where the run keeps none of it.

        Raises:
            DataError: the file cannot be read as replies.
        """
        path = folder.replies_path(model)
        try:
            found = path.stat()
        except FileNotFoundError:
            return ()
        key = (str(path), found.st_mtime_ns, found.st_size)
        with self._lock:
            if key not in self._read:
                self._read[key] = tuple(read_rows(path))
            self._read.move_to_end(key)
            while len(self._read) > CAPACITY:
                self._read.popitem(last=False)
            return self._read[key]

    def all_rows(self, folder: RunFolder, view: RunView) -> dict[str, Rows]:
        """The replies of every measured model of a run, by its name."""
        return {model.name: self.rows(folder, model.name) for model in view.models}
