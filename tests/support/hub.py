"""A stand-in of the Hugging Face hub on this machine: repositories in memory, as ``huggingface_hub`` asks for them.

It answers what a model repository needs, reading and writing: information, file lists, files, new repositories, the
check of a card's metadata, and a commit whose large files are uploaded beforehand (Git LFS, basic transfer).
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

LARGE = 5_000
"""Bytes from which on a file is large, and not in git itself."""
WRITER, READER = "hf_writer", "hf_reader"
"""Tokens that may write below ``my-lab``, and that may not write."""


@dataclass
class Repo:
    """A repository: the files of each commit, the newest last."""

    commits: dict = field(default_factory=dict)
    private: bool = False

    @property
    def head(self):
        return list(self.commits)[-1]

    @property
    def files(self):
        return self.commits[self.head]

    def commit(self, files):
        number = f"{len(self.commits)}{sorted(files)}".encode()
        self.commits[hashlib.sha1(number).hexdigest()] = files  # noqa: S324
        return self


@dataclass
class Hub:
    """What a stand-in holds.

    Attributes:
        repos: Repositories by id.
        faults: What goes wrong, by a part of METHOD and path: a status and headers, or ``"drop"``.
        requests: METHOD and path of each request, in their order.
        tokens: Whatever stood in ``Authorization``.
        agents: Whatever stood in ``User-Agent``.
    """

    repos: dict = field(default_factory=dict)
    faults: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    tokens: set = field(default_factory=set)
    agents: set = field(default_factory=set)
    storage: dict = field(default_factory=dict)

    def add(self, name, files, *, private=False):
        """Add a repository with one commit."""
        self.repos[name] = Repo(private=private).commit(files)
        return self.repos[name]

    @property
    def writes(self):
        """Requests that change something; the check of a card's metadata does not."""
        return [line for line in self.requests if line.startswith(("POST", "PUT")) and "validate-yaml" not in line]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does; ``hub`` is set by :func:`hub`."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(self.path.partition("?")[0])
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self._chunks()
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        self.hub.tokens.add(self.headers.get("Authorization"))
        self.hub.agents.add(self.headers.get("User-Agent"))
        for part, fault in self.hub.faults.items():
            if part in line:
                if fault == "drop":
                    self.close_connection = True
                    self.connection.close()
                else:
                    self._reply(fault[0], b"{}", fault[1])
                return
        for pattern, answer in ROUTES:
            if match := re.fullmatch(pattern, line):
                answer(self, body, *match.groups())
                return
        self._reply(404, b"{}")

    def _chunks(self):
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    @property
    def _token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may_write(self, org):
        if self._token not in (WRITER, READER):
            self._reply(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif self._token == READER or org != "my-lab":
            self._reply(403, b"{}", {"X-Error-Message": f"You don't have the rights under the namespace {org}"})
        else:
            return True
        return False

    def _found(self, name):
        """Return a repository that the caller may see."""
        repo = self.hub.repos.get(name)
        if repo and (not repo.private or self._token in (WRITER, READER)):
            return repo
        self._reply(404 if self._token else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        return None

    def _commit_of(self, repo, revision):
        if revision in (None, "main"):
            return repo.head
        if revision in repo.commits:
            return revision
        self._reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return None

    def info(self, _body, name, revision=None):
        if (repo := self._found(name)) and (commit := self._commit_of(repo, revision)):
            siblings = [{"rfilename": file} for file in repo.commits[commit]]
            self._json({"id": name, "sha": commit, "siblings": siblings, "tags": [], "private": repo.private})

    def tree(self, _body, name, revision):
        if (repo := self._found(name)) and (commit := self._commit_of(repo, revision)):
            self._json([entry(*item) for item in repo.commits[commit].items()])

    def file(self, _body, name, revision, file):
        if (repo := self._found(name)) and (commit := self._commit_of(repo, revision)):
            data = repo.commits[commit][file]
            etag = (hashlib.sha256 if len(data) > LARGE else hashlib.sha1)(data).hexdigest()
            if "damaged" in self.hub.faults and len(data) > LARGE:
                data = b"x" * len(data)
            self._reply(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"})

    def create(self, body):
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if self._may_write(asked["organization"]):
            if name in self.hub.repos:
                self._reply(409, b"{}")
                return
            private = asked.get("visibility") == "private"
            self.hub.add(name, {".gitattributes": b"*.safetensors lfs"}, private=private)
            self._json({"url": f"http://{self.headers['Host']}/{name}"})

    def validate(self, body):
        card = json.loads(body)["content"]
        if "license: no-such" in card:
            answer = {"errors": [{"message": '"license" must be one of [apache-2.0, mit]'}]}
            self._reply(400, json.dumps(answer).encode(), {})
        else:
            self._json({"warnings": [], "errors": []})

    def preupload(self, body, name):
        if self._may_write(name.split("/")[0]):
            sizes = {file["path"]: file["size"] for file in json.loads(body)["files"]}
            there = self.hub.repos[name].files
            self._json(
                {
                    "files": [
                        {
                            "path": path,
                            "uploadMode": "lfs" if size > LARGE else "regular",
                            "shouldIgnore": False,
                            "oid": identity(path, there[path]) if path in there else None,
                        }
                        for path, size in sizes.items()
                    ]
                }
            )

    def batch(self, body, _name):
        objects = json.loads(body)["objects"]
        for each in objects:
            if each["oid"] not in self.hub.storage:
                href = f"http://{self.headers['Host']}/storage/{each['oid']}?signature=secret"
                each["actions"] = {"upload": {"href": href}}
        self._json({"transfer": "basic", "objects": objects})

    def store(self, body, oid):
        self.hub.storage[oid] = body
        self._json({})

    def commit(self, body, name):
        if not self._may_write(name.split("/")[0]):
            return
        repo, (header, *operations) = self.hub.repos[name], map(json.loads, body.splitlines())
        if header["value"].get("parentCommit", repo.head) != repo.head:
            self._reply(412, b"{}")
            return
        files = dict(repo.files)
        for each in operations:
            value = each["value"]
            if each["key"] == "deletedFile":
                del files[value["path"]]
            elif each["key"] == "lfsFile":
                files[value["path"]] = self.hub.storage[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        repo.commit(files)
        self._json(
            {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{repo.head}", "commitOid": repo.head}
        )

    def _json(self, content):
        self._reply(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _reply(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (rf"GET /api/models/{REPO}", Handler.info),
    (rf"GET /api/models/{REPO}/revision/(.+)", Handler.info),
    (rf"GET /api/models/{REPO}/tree/(.+)", Handler.tree),
    (rf"(?:GET|HEAD) /{REPO}/resolve/([^/]+)/(.+)", Handler.file),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST /api/models/{REPO}/preupload/main", Handler.preupload),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /storage/(\w+)", Handler.store),
    (rf"POST /api/models/{REPO}/commit/main", Handler.commit),
)


def identity(path, data):
    """Return what tells a file's content: of a large one its SHA-256, else git's own."""
    about = entry(path, data)
    return about.get("lfs", about)["oid"]


def entry(path, data):
    """Return what a file list says of a file."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
    return {"type": "file", "path": path, "size": len(data), "oid": git, **(large if len(data) > LARGE else {})}


@contextmanager
def hub():
    """Give the address of a stand-in, and what it holds."""
    held = Hub()
    with serving(type("Own", (Handler,), {"hub": held})) as address:
        yield address, held


@contextmanager
def serving(handler):
    """Give the address of a server in a thread."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # it ends at the next look whether it is to: half a second by itself
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
