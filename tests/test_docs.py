"""Rules for the documentation: links and paths exist, commands parse, YAML is valid, pages stay short."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import yaml

from core.cli.main import build_parser
from core.contracts.comparison_spec import any_spec_from_dict
from core.settings import REPOSITORY

README_LINES = 170
PAGE_LINES = 200
GENERATED = ("docs/reference/spec.md", "docs/reference/events.md")
"""Pages that a command writes from the code: their length follows from the code."""

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`(?P<text>[^`\n]+)`")
PATH = re.compile(r"(?:\.ci|app\.py|assets|benchmarks|core|docs|safemerge_ui|tests)(?:/[\w.-]+)+/?")
MODULE = re.compile(r"(?:core|safemerge_ui|benchmarks)(?:\.\w+)+")
OLD_WORDS = (
    "METHOD.md",
    "DESIGN.md",
    "What differs from the plan",
    "cannot be had",
    "come to the same",
    "comes to the same",
    "makes way for",
    "is told of",
    "whoever",
    "for good",
    "takes the place of",
    "came to nothing",
    "optimiser",
    "tokeniser",
    "behaviour",
)


def pages() -> list[str]:
    """Every Markdown page of ours, as a path relative to the repository."""
    top = [path for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md") if (path := REPOSITORY / name).exists()]
    found = [*top, *sorted((REPOSITORY / "docs").rglob("*.md")), REPOSITORY / "assets" / "demo" / "README.md"]
    return [str(path.relative_to(REPOSITORY)) for path in found]


@cache
def read(page: str) -> str:
    """The text of a page."""
    return (REPOSITORY / page).read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block of a page: its language and its text."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(match["language"], match["text"]) for match in FENCE.finditer(read(page))]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", read(page))


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages())
def test_every_relative_link_leads_somewhere(page: str) -> None:
    broken = []
    for match in LINK.finditer(prose(page)):
        target, _, anchor = match["target"].partition("#")
        if target.startswith(("http://", "https://")):
            continue
        path = ((REPOSITORY / page).parent / target).resolve() if target else REPOSITORY / page
        exists = path.is_relative_to(REPOSITORY) and path.exists()
        if exists and anchor and path.suffix == ".md":
            exists = anchor in anchors(str(path.relative_to(REPOSITORY)))
        if not exists:
            broken.append(match["target"])
    assert broken == []


def mentioned_paths(page: str) -> Iterator[str]:
    """Paths of the repository that a page names in code style, or in a block that is not YAML."""
    spans = [match["text"] for match in CODE.finditer(prose(page))]
    spans += [block.text for block in blocks(page) if block.language != "yaml"]
    for span in spans:
        for match in PATH.finditer(span):
            before, after = span[: match.start()][-1:], span[match.end() :][:1]
            if before not in ("/", "-", "_", "~") and not before.isalnum() and after not in ("*", "<", "{"):
                yield match[0].rstrip(".")


@pytest.mark.parametrize("page", [page for page in pages() if page != "CHANGELOG.md"])
def test_every_path_that_a_page_names_exists(page: str) -> None:
    missing = {path for path in mentioned_paths(page) if "NAME" not in path and not (REPOSITORY / path).exists()}
    assert missing == set()


@pytest.mark.parametrize("page", [page for page in pages() if page != "CHANGELOG.md"])
def test_every_module_that_a_page_names_exists(page: str) -> None:
    names = {match[0] for match in MODULE.finditer(read(page)) if not match[0].endswith((".py", ".md"))}
    assert {name for name in names if not _exists(name)} == set()


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, or a name that a module defines."""
    path = REPOSITORY.joinpath(*name.split("."))
    if path.with_suffix(".py").exists() or path.is_dir():
        return True
    module = path.parent.with_suffix(".py")
    defined = rf"^(?:class |def |async def )?{re.escape(path.name)}\b"
    return module.exists() and re.search(defined, module.read_text(encoding="utf-8"), re.MULTILINE) is not None


def commands(page: str) -> Iterator[str]:
    """The command lines in a page's shell blocks, without comments and continued lines joined."""
    for block in blocks(page):
        if block.language in ("bash", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    yield line.strip()


@pytest.mark.parametrize("page", pages())
def test_every_command_that_a_page_shows_is_a_command(page: str) -> None:
    for line in commands(page):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words[:3] == ["python", "-m", "core"]:
            _parse(words[3:], line)
        elif words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("core", "benchmarks"):
            assert importlib.util.find_spec(words[2]) is not None, line
        elif words[0] == "make":
            assert [word for word in words[1:] if "=" not in word and word not in _targets()] == [], line


def _parse(arguments: list[str], line: str) -> None:
    """Parse a command line of `python -m core`; what follows a pipe or a redirection is the shell's."""
    shell = next((index for index, word in enumerate(arguments) if word in ("|", ">", "<", "&&")), len(arguments))
    with patch("sys.stderr"):
        try:
            build_parser().parse_args(arguments[:shell])
        except SystemExit as error:
            raise AssertionError(f"not a command line: {line}") from error


@cache
def _targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


@pytest.mark.parametrize("page", pages())
def test_every_yaml_block_is_a_valid_spec(page: str) -> None:
    """A block that is only a part of a spec is completed by the demo's."""
    for block in blocks(page):
        if block.language != "yaml" or block.text.startswith("---"):
            continue
        spec = yaml.safe_load(block.text)
        if "models" not in spec:
            spec = {**_demo_spec(), **spec}
        any_spec_from_dict(spec)


def _demo_spec() -> dict[str, Any]:
    spec = yaml.safe_load((REPOSITORY / "assets" / "specs" / "demo.yaml").read_text(encoding="utf-8"))
    assert isinstance(spec, dict)
    return spec


def test_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("docs/") and page not in GENERATED])
def test_no_page_is_long(page: str) -> None:
    assert len(read(page).splitlines()) <= PAGE_LINES


@pytest.mark.parametrize("page", pages())
def test_pages_use_the_usual_words(page: str) -> None:
    text = " ".join(read(page).split())
    assert [word for word in OLD_WORDS if word in text] == []


def test_a_typical_change_touches_at_most_three_code_files() -> None:
    section = read("CONTRIBUTING.md").split("## Ten typical changes")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?!change|-)([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
    assert len(rows) == 10
    assert [change for change, files in rows if not 1 <= len(files.split(", ")) <= 3] == []


def test_every_page_of_a_folder_is_in_its_index() -> None:
    for folder in ("docs", "docs/decisions"):
        index = read(f"{folder}/README.md")
        listed = {match["target"].partition("#")[0] for match in LINK.finditer(index)}
        below = (REPOSITORY / folder).rglob("*.md") if folder == "docs" else (REPOSITORY / folder).glob("*.md")
        names = {str(path.relative_to(REPOSITORY / folder)) for path in below}
        decisions = {name for name in names if name.startswith("decisions/0")}
        assert names - decisions - listed - {"README.md"} == set()


def test_docs_that_the_code_names_exist() -> None:
    found: set[str] = set()
    for folder in ("core", "safemerge_ui", "benchmarks", "tests"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            found |= set(re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8")))
    assert {name for name in found if not (REPOSITORY / name).exists()} == set()
