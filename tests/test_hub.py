"""The hub code against a local stand-in: the same requests, no network."""

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager

import pytest

from brainstage.data import hub
from brainstage.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {f"data/{name}-0.parquet": name.encode() * 50_000 for name in ("train", "test")}


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for one data set; ``mode`` says what goes wrong."""

    mode = "good"
    served: list = []  # noqa: RUF012

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.mode == "not found":
            self._reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in self.path:
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
                for name, data in FILES.items()
            ]
            self._reply(200, json.dumps(files).encode(), {"Content-Type": "application/json"})
        elif self.path.startswith("/api/datasets/"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            body = {"id": hub.DATASET, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            self._reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        else:
            self._file(next(data for name, data in FILES.items() if self.path.endswith(name)))

    def _file(self, data):
        etag = hashlib.sha256(data).hexdigest()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        part = data[start:]
        if self.command == "GET":
            self.served.append((self.path, start))
            if self.mode == "damaged":
                part = b"x" * len(part)
            if self.mode == "interrupted":
                self.send_response(200)
                self.send_header("Content-Length", str(len(part)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(part[: len(part) // 2])
                self.wfile.flush()
                self.connection.close()
                return
        self._reply(206 if start else 200, part, headers)

    def _reply(self, status, body, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def stand_in(mode="good"):
    handler = type("Handler", (StandIn,), {"mode": mode, "served": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _small_dataset(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "FILES", {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()})
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path))


def test_files_are_fetched_checked_and_kept():
    with stand_in() as (address, handler):
        files = hub.fetch(endpoint=address)
        assert [file.read_bytes() for file in files] == list(FILES.values())
        first = len(handler.served)
        hub.fetch(endpoint=address)
        assert len(handler.served) == first  # nothing is downloaded twice


def test_a_wrong_checksum_is_told_and_the_file_removed(tmp_path):
    with stand_in("damaged") as (address, _), pytest.raises(DataError, match="SHA-256|checksum|size|Consistency"):
        hub.fetch(endpoint=address)
    assert not list(tmp_path.rglob("*.parquet"))


def test_an_interrupted_download_goes_on(tmp_path):
    with stand_in("interrupted") as (address, _), pytest.raises(DataError, match="run it again to go on"):
        hub.fetch(endpoint=address)
    assert not list(tmp_path.rglob("*.parquet"))
    with stand_in() as (address, _):
        files = hub.fetch(endpoint=address)
    assert [file.read_bytes() for file in files] == list(FILES.values())


def test_a_dataset_that_is_gone_is_told():
    with stand_in("not found") as (address, _), pytest.raises(DataError, match="the hub refused|cannot be reached"):
        hub.fetch(endpoint=address)


def test_no_network_fails_soon_and_says_the_way_out():
    with pytest.raises(DataError, match="on another machine and name their folder with --data"):
        hub.fetch(endpoint="http://127.0.0.1:9")
