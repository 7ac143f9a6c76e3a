"""The hub code against a local stand-in: the same requests, no network."""

import hashlib
import http.server
import json
from contextlib import contextmanager

import pytest
from huggingface_hub import constants

from brainstage.core.errors import DataError
from brainstage.datasets import public as hub
from brainstage.models import backbones
from hub import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {f"data/{name}-0.parquet": name.encode() * 50_000 for name in ("train", "test")}


class StandIn(http.server.BaseHTTPRequestHandler):
    """Predictions as the hub does for one repository with ``files``; ``mode`` says what goes wrong."""

    mode = "good"
    files = FILES
    served: list = []  # noqa: RUF012

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.mode == "not found":
            self._reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in self.path:
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
                for name, data in self.files.items()
            ]
            self._reply(200, json.dumps(files).encode(), {"Content-Type": "application/json"})
        elif self.path.startswith(("/api/datasets/", "/api/models/")):
            siblings = [
                {"rfilename": name, "size": len(data), "lfs": lfs(data)} for name, data in self.files.items()
            ]
            body = {"id": "org/name", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            self._reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        else:
            self._file(next(data for name, data in self.files.items() if self.path.endswith(f"/{name}")))

    def _file(self, data):
        etag = hashlib.sha256(data).hexdigest()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        part = data[start:]
        if self.command == "GET":
            self.served.append((self.path, start))
            if self.mode == "damaged" and lfs(data):
                part = b"x" * len(part)
            if lfs(data) and (self.mode == "interrupted" or (self.mode == "drops" and not start)):
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


def lfs(data):
    """Return what the hub states of a large file; small ones lie in git itself."""
    large = len(data) > 5_000
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130} if large else None


@contextmanager
def stand_in(mode="good", files=FILES):
    handler = type("Handler", (StandIn,), {"mode": mode, "files": files, "served": []})
    with serving(handler) as address:
        yield address, handler


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


NAME = "org/name"


@pytest.fixture(scope="session")
def backbone_files(vit_folder):
    return {file.name: file.read_bytes() for file in vit_folder.iterdir()}


def test_a_backbone_is_fetched_checked_and_kept(backbone_files):
    with stand_in(files=backbone_files | {"pytorch_model.bin": b"pickle" * 9_000}) as (address, handler):
        folder = backbones.fetch(NAME, endpoint=address)
        assert {name: (folder / name).read_bytes() for name in backbone_files} == backbone_files
        assert not list(folder.rglob("*.bin"))
        first = len(handler.served)
        assert backbones.fetch(NAME, endpoint=address) == folder
        assert len(handler.served) == first  # nothing is downloaded twice
        other = backbones.fetch(f"{NAME}@refs/pr/1", endpoint=address)
        assert other != folder
    assert backbones.find_backbone(NAME) == folder  # and nothing is asked of the hub
    assert json.loads((folder / "fetched.json").read_text())["commit"] == COMMIT


def test_a_backbone_with_a_wrong_checksum_is_told_and_its_weights_removed(tmp_path, backbone_files):
    with (
        stand_in("damaged", backbone_files) as (address, _),
        pytest.raises(DataError, match=r"SHA-256 is .* download it again"),
    ):
        backbones.fetch(NAME, endpoint=address)
    assert not list(tmp_path.rglob("*.safetensors"))
    with stand_in(files=backbone_files) as (address, _):
        assert backbones.fetch(NAME, endpoint=address).is_dir()


def test_an_interrupted_backbone_can_be_fetched_again(tmp_path, backbone_files):
    with stand_in("interrupted", backbone_files) as (address, _), pytest.raises(DataError, match="again to go on"):
        backbones.fetch(NAME, endpoint=address)
    assert not list(tmp_path.rglob("*.safetensors"))
    with stand_in(files=backbone_files) as (address, _):
        folder = backbones.fetch(NAME, endpoint=address)
    assert (folder / "model.safetensors").read_bytes() == backbone_files["model.safetensors"]


def test_a_dropped_connection_is_taken_up_where_it_broke(monkeypatch, backbone_files):
    monkeypatch.setattr(
        constants, "DOWNLOAD_CHUNK_SIZE", 10_000
    )  # what arrives is kept by the chunk, of 10 MB else
    with stand_in("drops", backbone_files) as (address, handler):
        folder = backbones.fetch(NAME, endpoint=address)
    assert max(start for _, start in handler.served) == 50_000
    assert (folder / "model.safetensors").read_bytes() == backbone_files["model.safetensors"]


def test_a_backbone_that_the_hub_does_not_have_is_told(backbone_files):
    with (
        stand_in("not found") as (address, _),
        pytest.raises(DataError, match=r"the hub refused org/name.*check the n"),
    ):
        backbones.fetch(NAME, endpoint=address)


def test_no_network_names_the_two_ways_out(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="cannot be reached.*on a machine with a network.*or give a folder with"):
        backbones.fetch(NAME, endpoint="http://127.0.0.1:9")


def test_a_hub_backbone_of_pickles_alone_is_refused(backbone_files):
    files = {name: data for name, data in backbone_files.items() if name != "model.safetensors"}
    with (
        stand_in(files=files | {"pytorch_model.bin": b"pickle" * 9_000}) as (address, _),
        pytest.raises(DataError, match="org/name: holds no model.safetensors; pickled weights"),
    ):
        backbones.fetch(NAME, endpoint=address)
