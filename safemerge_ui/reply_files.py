"""The measured replies of runs, read for all pages: each file is read again only after it has changed."""

from __future__ import annotations

import threading
from collections import OrderedDict

from core.evaluation.replies import ReplyRow, read_rows
from core.runs.folder import RunFolder
from core.runs.view import RunView

CAPACITY = 24
"""Most files in memory; the least recently used one is dropped first."""

Rows = tuple[ReplyRow, ...]


class ReplyFiles:
    """A cache of reply files, shared by all pages; thread-safe."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[str, int, int], Rows] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, folder: RunFolder, model: str) -> Rows:
        """Return a model's replies in a run; empty if the run has stored none.

        Raises:
            DataError: the file cannot be read as replies.
        """
        path = folder.replies_path(model)
        try:
            status = path.stat()
        except FileNotFoundError:
            return ()
        key = (str(path), status.st_mtime_ns, status.st_size)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = tuple(read_rows(path))
            self._cache.move_to_end(key)
            while len(self._cache) > CAPACITY:
                self._cache.popitem(last=False)
            return self._cache[key]

    def all_rows(self, folder: RunFolder, view: RunView) -> dict[str, Rows]:
        """Return the replies of every measured model of a run, by the model's name."""
        return {model.name: self.rows(folder, model.name) for model in view.models}
