"""Text files decoded as they were saved: UTF-8 with or without a byte-order mark, UTF-16 and UTF-32.

Any other encoding is refused. A guess between Windows-1252, Latin-2 or Shift-JIS would sometimes read wrong letters
without anybody noticing, so the error shows what the bytes would be in Windows-1252 and asks for UTF-8.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from core.errors import DataError

_MARKS = (  # UTF-32's mark begins with UTF-16's, so it is compared first
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SIGNATURES = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "Export the sheet as CSV (UTF-8)."),
    (b"PAR1", "a Parquet file", "Give it the suffix .parquet."),
    (b"\x1f\x8b", "gzip-compressed", "Unpack it first."),
    (b"BZh", "bzip2-compressed", "Unpack it first."),
    (b"\xfd7zXZ", "xz-compressed", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "Unpack it first."),
    (b"%PDF", "a PDF document", "Save its text as a text file."),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "Export it as CSV (UTF-8)."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV."),
    (b"{\\rtf", "a rich-text document", "Save it as plain text."),
    (b"version https://git-lfs.github.com/", "a Git LFS pointer", "Download the file itself, with `git lfs pull`."),
)
_PAGE_BYTES = 20
_SHOWN_BYTES = 20


def read_text(path: Path) -> str:
    """The text of a file, without a byte-order mark; line ends stay as they are.

    Raises:
        DataError: the file is missing, unreadable, no text, or in an encoding that cannot be told for certain.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.", code="file-not-found") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", "Give a readable file.", code="file-unreadable"
        ) from error
    return decode(data, path)


def decode(data: bytes, path: Path) -> str:
    """The text that `data`, the content of `path`, holds; raises `DataError` as `read_text` does."""
    for signature, what, hint in _SIGNATURES:
        if data.startswith(signature):
            raise DataError(f"{path} is {what}, not text.", hint, code="file-binary")
    if data.lstrip()[:_PAGE_BYTES].lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{path} is a web page.", "Download the file that the page shows.", code="file-binary")
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _not_text(data, path, encoding, error.start) from error
    if "\0" in text:
        raise DataError(f"{path} is no text file: it holds null characters.", "Give a text file.", code="file-binary")
    return text


def _encoding(data: bytes) -> str:
    """By the byte-order mark; without one UTF-16 shows by a null in every second byte of its Latin letters."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    head = data[:2000]
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) >= 4 and not any(head[start::2]) and all(head[1 - start :: 2]):
            return encoding
    return "utf-8"


def _not_text(data: bytes, path: Path, encoding: str, start: int) -> DataError:
    if encoding != "utf-8":
        hint = "Save the file with UTF-8 encoding."
        return DataError(f"{path} is damaged {encoding.upper()} (byte {start}).", hint, code="not-utf8")
    begin = max(0, start - _SHOWN_BYTES)
    shown = data[begin : start + _SHOWN_BYTES].decode("cp1252", errors="replace").replace("\n", " ").strip()
    return DataError(
        f"{path} is not UTF-8 text (byte {start}); in Windows-1252 it would read '{shown}' there.",
        "Save the file with UTF-8 encoding.",
        code="not-utf8",
    )


def is_writable(text: str) -> bool:
    """Whether a text can be written to a file; JSON may hold halves of characters, such as `\\ud800`, which cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def half_character(place: str) -> DataError:
    """The error for a text that `is_writable` refuses."""
    return DataError(
        f"{place} holds half of a character (a surrogate such as \\ud800).",
        "Write the whole character, or remove the row.",
        code="half-character",
    )
