"""A Hub on 127.0.0.1 that serves folders as model and dataset repositories, for tests that must not reach the network.

It speaks the part of the Hub's HTTP interface that reading and downloading needs: repository facts, file tree, files
with byte ranges, and the error headers for missing, gated and unknown things; and what publishing needs: who the user
is, making a repository, uploading large files (git LFS) and committing. It counts what it sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_listing import git_hash, list_entries


@dataclass(frozen=True)
class Repository:
    """One published model, or a dataset, whose name begins with `datasets/`.

    Attributes:
        gated: the licence must be accepted: files are refused without `token`.
    """

    folder: Path
    sha: str
    license: str | None = "apache-2.0"
    gated: bool = False
    private: bool = False

    def files(self) -> dict[str, Path]:
        return {str(path.relative_to(self.folder)): path for path in sorted(self.folder.rglob("*")) if path.is_file()}


@dataclass(frozen=True)
class Proposal:
    """A pull request with its own files."""

    repository: Repository
    author: str
    status: str


@dataclass
class HubServer:
    """Serves repositories while used as a context manager.

    Attributes:
        token: the token that opens gated and private repositories.
        sent: bytes sent so far of each file, keyed "repo/file".
        broken: when set, every answer is this HTTP status.
        made: facts of the repositories that were made, by name, as they were asked for.
        committed: files that were committed, keyed "repo/file".
        proposals: pull requests by repository and number.
        deletions: DELETE requests and commits that delete, which nothing here may ever send.
        user: name of the user of `token`; `groups` are the user's organizations.
        objects: large files that were uploaded, by sha256.
        uploads: sha256 of each large file that was sent, in order; a file that is sent twice stands there twice.
        uploads_left: large files that are still accepted; None for any number.
        commits_left: the same for commits.
        drops_left: connections that break in the middle of a large file, which is read or sent; None for all.
        requests: method and path with query of each request that changes something.
    """

    token: str = "hf_test"
    sent: dict[str, int] = field(default_factory=dict)
    broken: int | None = None
    repositories: dict[str, Repository] = field(default_factory=dict)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    committed: dict[str, bytes] = field(default_factory=dict)
    proposals: dict[tuple[str, int], Proposal] = field(default_factory=dict)
    deletions: list[str] = field(default_factory=list)
    user: str = "someone"
    groups: tuple[str, ...] = ("lab",)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    uploads_left: int | None = None
    commits_left: int | None = None
    drops_left: int | None = 0
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._folders: list[tempfile.TemporaryDirectory[str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for folder in self._folders:
            folder.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, repo_id: str, folder: Path, **facts: Any) -> str:
        """Serve `folder` as the model `repo_id` (a dataset's id begins with `datasets/`); `facts` are `Repository`
        fields. Returns the commit's hash.
        """
        sha = hashlib.sha1(f"{repo_id}{folder}".encode()).hexdigest()
        self.repositories[repo_id] = Repository(folder, sha, **facts)
        return sha

    def propose(
        self, repo_id: str, number: int, folder: Path, *, author: str = "SFconvertbot", status: str = "open"
    ) -> None:
        """Open a pull request whose revision `refs/pr/NUMBER` has the files of `folder`."""
        sha = hashlib.sha1(f"{repo_id}{number}{folder}".encode()).hexdigest()
        self.proposals[repo_id, number] = Proposal(Repository(folder, sha), author, status)

    def revision(self, repo_id: str, name: str | None) -> Repository | None:
        """The files of a branch, a commit or a pull request."""
        repository = self.repositories[repo_id]
        if name in (None, "main", repository.sha):
            return repository
        proposed = {number: found.repository for (repo, number), found in self.proposals.items() if repo == repo_id}
        return next((found for number, found in proposed.items() if name in (f"refs/pr/{number}", found.sha)), None)

    def make(self, name: str, private: bool) -> None:
        """Make an empty repository, as the Hub does: with a file `.gitattributes`."""
        self._folders.append(tempfile.TemporaryDirectory())
        folder = Path(self._folders[-1].name)
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n", encoding="utf-8")
        self.repositories[name] = Repository(folder, hashlib.sha1(str(folder).encode()).hexdigest(), private=private)

    def add(self, name: str, path: str, content: bytes) -> None:
        """Commit one file to a repository; the folder of one that a test published stays as it is."""
        self.committed[f"{name}/{path}"] = content
        if name not in self.made:
            return
        repository = self.repositories[name]
        file = repository.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        sha = hashlib.sha1(f"{repository.sha}{path}".encode() + content).hexdigest()
        self.repositories[name] = replace(repository, sha=sha)

    def weight_bytes_sent(self) -> int:
        """Bytes of safetensors files sent so far."""
        return sum(count for name, count in self.sent.items() if name.endswith(".safetensors"))


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output quiet."""

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.hub.deletions.append(self.path)
        self._send(403, b"{}")

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if match := re.fullmatch(r"/api/(?:models/)?(.+?)/paths-info/([^/]+)", path):
            wanted = parse_qs(body.decode()) if b"=" in body[:8] else json.loads(body)
            self._repository(match[1], match[2], lambda *found: self._paths(*found, wanted["paths"]))
            return
        self.hub.requests.append(f"POST {self.path}")
        if self.headers.get("authorization") != f"Bearer {self.hub.token}":
            self._send(401, b'{"error": "Invalid username or password."}')
        elif path == "/api/repos/create":
            self._make(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/(?:models/)?(.+?)/preupload/([^/]+)", path):
            self._json({"files": [self._upload_mode(match[1], file["path"]) for file in json.loads(body)["files"]]})
        elif re.fullmatch(r"/.+\.git/info/lfs/objects/batch", path):
            self._json({"transfer": "basic", "objects": list(map(self._lfs_action, json.loads(body)["objects"]))})
        elif path == "/lfs/verify":
            found = json.loads(body)["oid"] in self.hub.objects
            self._send(200 if found else 404, b"{}")
        elif match := re.fullmatch(r"/api/(?:models/)?(.+?)/commit/([^/]+)", path):
            self._commit(match[1], body)
        else:
            self._send(404, b"no such page")

    def do_PUT(self) -> None:
        self.hub.requests.append(f"PUT {self.path}")
        if self._drops():
            self.rfile.read(int(self.headers.get("content-length") or 0) // 2)
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        oid = urlsplit(self.path).path.rpartition("/")[2]
        if self.hub.uploads_left == 0 or hashlib.sha256(body).hexdigest() != oid:
            self._send(400, b"broken")
            return
        if self.hub.uploads_left is not None:
            self.hub.uploads_left -= 1
        self.hub.objects[oid] = body
        self.hub.uploads.append(oid)
        self._send(200, b"")

    def _upload_mode(self, name: str, path: str) -> dict[str, Any]:
        repository = self.hub.repositories.get(name)
        file = repository.files().get(path) if repository else None
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        oid = (
            None if file is None else hashlib.sha256(file.read_bytes()).hexdigest() if mode == "lfs" else git_hash(file)
        )
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _lfs_action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid = wanted["oid"]
        if oid in self.hub.objects:
            return wanted
        upload = {"href": f"{self.hub.url}/lfs/{oid}?X-Amz-Signature=signed"}
        return {**wanted, "actions": {"upload": upload, "verify": {"href": f"{self.hub.url}/lfs/verify"}}}

    def _route(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path.replace("refs%2Fpr%2F", "refs-pr-"))
        if self.hub.broken is not None:
            self._send(self.hub.broken, b"broken")
        elif path == "/api/whoami-v2":
            self._who()
        elif path in ("/api/models", "/api/datasets"):
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            self._search(query, "datasets/" if path.endswith("datasets") else "")
        elif match := re.fullmatch(r"/api/(?:models/)?(.+?)/auth-check", path):
            self._repository(match[1], None, lambda *_: self._json({}))
        elif match := re.fullmatch(r"/api/models/(.+?)/discussions", path):
            self._repository(match[1], None, self._discussions)
        elif match := re.fullmatch(r"/api/(?:models/)?(.+?)/tree/([^/]+)/?(.*)", path):
            self._repository(match[1], match[2], self._tree)
        elif match := re.fullmatch(r"/api/(?:models/)?(.+?)(?:/revision/([^/]+))?", path):
            self._repository(match[1], match[2], self._facts)
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            name = match[3]
            self._repository(match[1], match[2], lambda *found: self._file(*found, name))
        else:
            self._send(404, b"no such page")

    def _repository(self, repo_id: str, revision: str | None, answer: Any) -> None:
        repository = self.hub.repositories.get(repo_id)
        authorised = self.headers.get("authorization") == f"Bearer {self.hub.token}"
        if repository is None or (repository.private and not authorised):
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif (found := self.hub.revision(repo_id, revision and revision.replace("refs-pr-", "refs/pr/"))) is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif repository.gated and not authorised and answer != self._facts:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Repo-Commit": repository.sha})
        else:
            answer(repo_id, found)

    def _discussions(self, repo_id: str, _repository: Repository) -> None:
        self._json(
            {
                "count": len(self.hub.proposals),
                "start": 0,
                "discussions": [
                    {
                        "num": number,
                        "title": "Adding `safetensors` variant of this model",
                        "author": {"name": proposal.author},
                        "status": proposal.status,
                        "isPullRequest": True,
                        "createdAt": "2023-11-14T00:00:00.000Z",
                        "repo": {"name": repo_id, "type": "model"},
                    }
                    for (name, number), proposal in self.hub.proposals.items()
                    if name == repo_id
                ],
            }
        )

    def _search(self, query: dict[str, str], prefix: str) -> None:
        words, owner = query.get("search", "").lower(), prefix + query.get("author", "")
        kind = [name for name in self.hub.repositories if name.startswith("datasets/") == bool(prefix)]
        found = [name.removeprefix(prefix) for name in kind if words in name.lower() and name.startswith(owner)]
        self._json([{"id": name, "modelId": name} for name in found])

    def _who(self) -> None:
        if self.headers.get("authorization") != f"Bearer {self.hub.token}":
            self._send(401, b'{"error": "Invalid username or password."}')
            return
        groups = [{"name": name, "roleInOrg": "write"} for name in self.hub.groups]
        self._json({"type": "user", "name": self.hub.user, "orgs": groups, "auth": {"type": "access_token"}})

    def _make(self, wanted: dict[str, Any]) -> None:
        owner = wanted.get("organization") or self.hub.user
        name = f"{wanted.get('type', 'model')}s/{owner}/{wanted['name']}".removeprefix("models/")
        if name in self.hub.made or name in self.hub.repositories:
            self._send(409, json.dumps({"error": "You already created this repo"}).encode())
            return
        self.hub.made[name] = wanted
        self.hub.make(name, wanted.get("visibility") == "private")
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _commit(self, name: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.decode().splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if self.hub.commits_left == 0:
            self._send(400, b"broken")
            return
        if parent and parent != self.hub.repositories[name].sha:
            self._send(412, b'{"error": "A commit has happened since."}')
            return
        if self.hub.commits_left is not None:
            self.hub.commits_left -= 1
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                self.hub.add(name, value["path"], base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                self.hub.add(name, value["path"], self.hub.objects[value["oid"]])
            elif line["key"].startswith("deleted"):
                self.hub.deletions.append(str(value))
        repository = self.hub.repositories.get(name)
        oid = repository.sha if repository else "1" * 40
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "hookOutput": ""})

    def _paths(self, _repo_id: str, repository: Repository, wanted: list[str]) -> None:
        self._json([entry for entry in list_entries(repository.files()) if entry["path"] in wanted])

    def _facts(self, repo_id: str, repository: Repository) -> None:
        card = {"license": repository.license} if repository.license else {}
        siblings = [
            {"rfilename": name, "size": path.stat().st_size, "blobId": git_hash(path)}
            for name, path in repository.files().items()
        ]
        self._json(
            {
                "id": repo_id.removeprefix("datasets/"),
                "modelId": repo_id,
                "sha": repository.sha,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "cardData": card,
                "siblings": siblings,
                "tags": [],
            }
        )

    def _tree(self, repo_id: str, repository: Repository) -> None:
        self._json([entry for entry in list_entries(repository.files()) if entry["type"] == "file"])

    def _file(self, repo_id: str, repository: Repository, name: str) -> None:
        path = repository.files().get(name)
        headers = {"X-Repo-Commit": repository.sha, "Accept-Ranges": "bytes"}
        if path is None:
            self._send(404, b"{}", {**headers, "X-Error-Code": "EntryNotFound"})
            return
        body, status = path.read_bytes(), 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or ""):
            start, end = int(match[1]), min(int(match[2] or len(body)), len(body) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            body, status = body[start : end + 1], 206
        dropped = self.command == "GET" and name.endswith(".safetensors") and self._drops()
        if self.command == "GET":
            key = f"{repo_id}/{name}"
            self.hub.sent[key] = self.hub.sent.get(key, 0) + (len(body) // 2 if dropped else len(body))
        self._send(status, body, {**headers, "ETag": f'"{git_hash(path)}"'}, half=dropped)

    def _drops(self) -> bool:
        """Whether this connection breaks."""
        if self.hub.drops_left == 0:
            return False
        if self.hub.drops_left is not None:
            self.hub.drops_left -= 1
        self.close_connection = True
        return True

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, half: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
