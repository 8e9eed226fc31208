"""A saved merge as an archive: what is in it, who gets it, and what there is not."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from safemerge_ui.downloads import archive, saved_merge
from safemerge_ui.views.results import files_line
from safemerge_ui.watch import RunWatch
from tests.ui.golden import golden_events, write_run
from tests.ui.served_space import ServedSpace, serve_space

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 70_001, "sub/empty.txt": b"", "README.md": b"x" * 512}


def save_merge(runs: Path, run_id: str) -> None:
    write_run(runs / run_id, golden_events())
    for name, content in FILES.items():
        path = runs / run_id / "merged" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}  # type: ignore[union-attr]


def test_an_archive_holds_every_file(tmp_path: Path) -> None:
    save_merge(tmp_path, "one")
    data = b"".join(archive(tmp_path / "one" / "merged", "one"))
    assert unpacked(data) == {f"one/{name}": content for name, content in FILES.items()}
    assert len(data) % tarfile.BLOCKSIZE == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSpace]:
    folder = tmp_path_factory.mktemp("downloads")
    settings = Settings(folder / "home", folder / "runs", True, frozenset({"ada"}), None, 0.5)
    save_merge(settings.runs, "one")
    write_run(settings.runs / "without", golden_events())
    page = serve_space(settings, "a secret of the test")
    yield page
    page.app.close()


def test_listed_visitors_get_it_and_nobody_else(served: ServedSpace) -> None:
    import httpx

    cookies = {"session": served.cookie("ada")}
    answer = httpx.get(f"{served.url}merges/one.tar", cookies=cookies)
    assert answer.status_code == 200 and 'filename="one.tar"' in answer.headers["content-disposition"]
    assert unpacked(answer.content)["one/config.json"] == b"{}"
    assert served.get("merges/one.tar").json()["code"] == "not-signed-in"
    assert httpx.get(f"{served.url}merges/one.tar", cookies={"session": served.cookie("eve")}).status_code == 403
    elsewhere = {"sec-fetch-site": "cross-site"}
    assert httpx.get(f"{served.url}merges/one.tar", cookies=cookies, headers=elsewhere).json()["code"] == "other-site"
    for name, code in (("nope", "no-run"), ("without", "no-merge"), ("..", "no-run"), ("%00", "no-run")):
        missing = httpx.get(f"{served.url}merges/{name}.tar", cookies=cookies)
        assert missing.status_code == 404 and missing.json()["code"] == code, name
    assert httpx.get(f"{served.url}merges/..%2Fone.tar", cookies=cookies).status_code == 404


def test_the_page_of_a_finished_run_links_to_it(settings: Settings) -> None:
    save_merge(settings.runs, "one")
    watched = RunWatch(settings.runs).look("one")
    assert 'href="merges/one.tar"' in files_line(watched.folder.path, watched.view)
    assert saved_merge(settings, "one") == settings.runs / "one" / "merged"
