"""Publishing a model and using it, against a stand-in of the hub: the same requests, no network."""

import io
import json
import os
import pickle
import shutil
import types

import pytest
from huggingface_hub import ModelCard, constants

from brainstage.core.run import RunFolder
from brainstage.models.weights import bundled_folder
from helpers import encode, picture, run_cli
from hub import READER, WRITER, hub

NAME = "my-lab/stages"
TOO_MANY = (429, {"Retry-After": "1"})
INVALID = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A hub of this machine, someone logged in who may write to it, and an empty cache."""
    with hub() as (address, held):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix("https://huggingface.co")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage is a service of its own
        clock = types.SimpleNamespace(sleep=lambda _: None)
        monkeypatch.setattr("huggingface_hub.utils._http.time", clock)  # it waits before it tries again
        monkeypatch.setenv("HF_TOKEN", WRITER)
        monkeypatch.chdir(tmp_path)
        yield held


@pytest.fixture
def scan(tmp_path):
    file = tmp_path / "slice.png"
    file.write_bytes(encode(picture()))
    return file


@pytest.fixture
def published(site, trained):
    assert push(trained).code == 0
    return site


def push(run, *options, name=NAME, **environment):
    return run_cli("push", os.fspath(run), name, "--yes", *options, **environment)


def predict(name, scan, **environment):
    """Predict a picture of noise, whatever the model makes of it."""
    return run_cli("predict", os.fspath(name), scan, "--json", **environment)


def says(outcome, text):
    """Check that a command failed with one sentence, which shows neither a token nor an address of the storage."""
    assert (outcome.code, outcome.out) == (1, "")
    *used, sentence = outcome.err.splitlines()
    assert all(line.startswith("Model ") for line in used)
    assert sentence.startswith("Error: ") and text in sentence
    assert not any(secret in outcome.err for secret in (WRITER, READER, "signature"))
    return True


def in_repo(site, name=NAME):
    return site.repos[name].files


# --- what is uploaded ----------------------------------------


def test_a_dry_run_lists_every_file_and_asks_nobody(site, trained, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, out, err = run_cli("push", trained.path, NAME, "--dry-run")
    assert (code, err) == (0, "")
    assert site.requests == []
    assert f"To {constants.ENDPOINT}/{NAME} (private" in out
    size = (trained.model / "model.safetensors").stat().st_size
    assert f"model/model.safetensors {size / 1e3:,.1f} kB" in " ".join(out.split())
    kept = out.partition("Stays here: ")[2].partition("The weights can hold memories")[0].replace("\n", " ")
    assert {"predictions.parquet", "splits.json", "train_config.json"} <= set(kept.replace(",", "").split())
    as_json = json.loads(run_cli("push", trained.path, NAME, "--dry-run", "--json").out)
    assert as_json["files"]["model/model.safetensors"] == size and as_json["private"]


def test_model_card_and_manifest_are_uploaded_and_nothing_of_a_person(published, trained):
    repo = published.repos[NAME]
    assert repo.private
    assert len(repo.commits) == 2  # the empty repository, then everything at once
    files = in_repo(published)
    model = {f"model/{file.name}": file.read_bytes() for file in trained.model.iterdir()}
    assert set(files) == {".gitattributes", "README.md", "manifest.json", *model}
    assert {name: files[name] for name in model} == model
    manifest = json.loads(files["manifest.json"])
    assert set(manifest["files"]) == set(model)
    assert manifest["protocol"] == "official" and manifest["leakage"]["sentence"].startswith("leaky")
    assert not {"threads", "training_seconds"} & set(manifest)
    patients = set(json.loads(trained.splits.read_text())["folds"][0]["train"][:3])
    assert not any(patient.encode() in content for patient in patients for content in files.values())


def test_the_card_is_the_runs_own_with_protocol_and_verdict(site, trained):
    assert push(trained, "--license", "mit", "--public").code == 0
    assert not site.repos[NAME].private
    text = in_repo(site)["README.md"].decode()
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "brainstage", "image-classification")
    assert "research-only" in data.tags
    assert (
        data.eval_results is None and "Trained on phantoms, synthetic" in text
    )  # figures of nobody are no results
    evaluation = json.loads(trained.metrics.read_text())
    assert f"| slices | official | {evaluation['overall']['accuracy']['value']:.3f} [" in text
    assert f"official: {evaluation['leakage']}" in text or "official: leaky" in text
    assert f"brainstage predict {NAME} scan.nii.gz" in text
    assert "Not a medical device" in text


def test_a_patient_model_says_that_it_holds_its_people(site, monkeypatch):
    answer = types.SimpleNamespace(isatty=lambda: True, readline=lambda: "n\n")
    monkeypatch.setattr("sys.stdin", answer)
    code, _, err = run_cli("push", bundled_folder("patient"), NAME)
    assert code == 1
    assert "the stage, of each of its 200 training people" in " ".join(err.split())
    assert "explanation/data-statement" in err and "Nothing was uploaded." in err
    assert site.writes == []


def test_it_asks_and_without_anyone_to_answer_it_stops(site, trained, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert says(run_cli("push", trained.path, NAME), "nobody can be asked here; look at --dry-run, then add --yes")
    assert site.writes == []
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(isatty=lambda: True, readline=lambda: "y\n"))
    code, out, err = run_cli("push", trained.path, NAME)
    assert code == 0 and "A new repository is made." in err and out.strip().startswith("Published ")


def test_pushed_again_it_is_replaced_in_one_commit(published, trained, tmp_path):
    first = dict(in_repo(published))
    assert "holds this model already; nothing was changed" in push(trained).out
    assert len(published.repos[NAME].commits) == 2
    published.repos[NAME].commit({**first, "figure.png": b"mine", "model/calibration.json": b"{}"})
    assert push(trained, "--license", "mit").code == 0
    assert len(published.repos[NAME].commits) == 4
    again = in_repo(published)
    assert again["README.md"] != first["README.md"]
    assert again["figure.png"] == b"mine" and "model/calibration.json" not in again


def test_the_token_goes_to_the_hub_alone_and_nothing_else_is_told(published):
    assert published.tokens <= {f"Bearer {WRITER}", None}
    assert not any("torch" in agent or "agent/" in agent for agent in published.agents)


# --- what is refused, before anything is sent ----------------------------------------


@pytest.mark.parametrize("name", ["stages", "my-lab/stages@main", "a/b/c", "../up", "my-lab/a--b" * 20])
def test_a_name_that_the_hub_does_not_allow(name, site, trained):
    assert says(push(trained, name=name), "ORG/NAME")
    assert site.writes == []


def test_not_logged_in(site, trained, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert says(push(trained), "not logged in to the Hugging Face hub; run `hf auth login`")
    assert site.requests == []


def test_what_is_no_finished_run(site, tmp_path, trained):
    assert says(push(tmp_path / "none"), "no such run")
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "changed"))
    (run.model / "config.json").write_text("{}")
    assert says(push(run), "was changed after the run finished")
    shutil.copytree(trained.path, tmp_path / "pickled")
    (tmp_path / "pickled" / "model" / "optimizer.pt").write_bytes(pickle.dumps([]))
    assert says(push(tmp_path / "pickled"), "a pickle, or named like one")
    assert site.requests == []


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (
            {"config.json": b"{}", "model.safetensors": b""},
            "holds config.json and no brainstage model; take another",
        ),
        ({"manifest.json": b"", "model/config.json": b"", "x.pkl": b""}, "holds x.pkl, a pickle or named like one"),
    ],
)
def test_a_repository_that_holds_something_else(files, text, site, trained):
    site.add(NAME, files, private=True)
    assert says(push(trained), text)
    assert site.writes == []


def test_who_may_read_it_is_never_a_surprise(published, trained):
    assert says(push(trained, "--public"), "is private; make it public in its settings")
    published.repos[NAME].private = False
    assert says(push(trained), "is public, so everyone could read the model; add --public")


# --- what the hub refuses ----------------------------------------


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (
            {"GET /api/models": (401, {"X-Error-Message": "Invalid credentials in Authorization header"})},
            "log in again",
        ),
        ({"GET /api/models": (503, {})}, "the hub has a fault of its own (503); try again later"),
        ({"POST /api/repos/create": (409, {})}, "the name is taken"),
        ({"POST /api/repos/create": TOO_MANY}, "too many requests; wait a few minutes"),
        ({"PUT /storage": TOO_MANY}, "too many requests; wait a few minutes"),
        ({"PUT /storage": "drop"}, "the connection to the hub was lost; check the network"),
        ({"POST /api/models": "drop"}, "the connection to the hub was lost; check the network"),
        ({"/commit/": (500, {})}, "the hub has a fault of its own (500)"),
        ({"/commit/": (412, {})}, "it was changed at the same time"),
    ],
    ids=str,
)
def test_an_upload_that_fails_leaves_nothing(fault, text, site, trained):
    site.faults |= fault
    assert says(push(trained), text)
    assert NAME not in site.repos or set(in_repo(site)) == {".gitattributes"}
    site.faults.clear()
    assert push(trained).code == 0  # and can be repeated


def test_a_token_that_may_not_write(site, trained):
    assert says(push(trained, HF_TOKEN=READER), "your login may not write there; take a name of your own")


def test_the_storage_that_users_have_says_what_to_do_too(site, trained, monkeypatch):
    """The stand-in has no such storage, so what is seen is how its client, ``hf_xet``, fails."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")  # else it waits four minutes in all
    for fault, text in (((403, {}), "your login may not write there"), ((429, {}), "too many requests")):
        site.faults["xet-write-token"] = fault
        assert says(push(trained), text)
    assert set(in_repo(site)) == {".gitattributes"}


def test_a_name_of_someone_else(site, trained):
    assert says(push(trained, name="their-lab/stages"), "your login may not write there; take a name of your own")
    site.add("their-lab/stages", {"manifest.json": b"", "model/config.json": b""})
    assert says(
        push(trained, "--public", name="their-lab/stages"), "nothing was uploaded: your login may not write"
    )


def test_a_licence_that_the_hub_does_not_know(site, trained):
    assert says(push(trained, "--license", "no-such"), '"license" must be one of [apache-2.0, mit]')


def test_no_network(site, trained, scan, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert says(push(trained), "the hub cannot be reached; check the network")
    assert says(predict(NAME, scan), "the hub cannot be reached; check the network")


# --- a published model at work ----------------------------------------


def test_it_predicts_as_the_run_does(published, trained, scan):
    code, out, err = predict(NAME, scan)
    commit = published.repos[NAME].head
    assert err.startswith(f"Model {NAME}@{commit} from the hub.\n")
    local = predict(trained, scan)
    assert (code, json.loads(out)) == (local.code, json.loads(local.out))


def test_a_revision_is_the_one_that_is_named(published, trained, scan):
    first = published.repos[NAME].head
    published.repos[NAME].commit({"README.md": b""})
    assert says(predict(NAME, scan), "holds no brainstage model")
    assert predict(f"{NAME}@{first}", scan).code == predict(trained, scan).code
    assert says(predict(f"{NAME}@v2", scan), "no such revision of it; name a branch, a tag or a commit after @")


def test_offline_the_cache_answers(published, scan, monkeypatch):
    online = predict(NAME, scan)
    published.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert predict(NAME, scan) == online
    assert says(predict("my-lab/other", scan), "HF_HUB_OFFLINE is set and the cache does not hold it")
    assert published.requests == []


def test_only_files_of_a_model_are_downloaded_and_once(published, scan):
    published.repos[NAME].commit({**in_repo(published), "predictions.parquet": b"x" * 9_000})
    predict(NAME, scan)
    fetched = {line.partition("/resolve/")[2].partition("/")[2] for line in published.requests if "resolve" in line}
    assert "model/model.safetensors" in fetched and "predictions.parquet" not in fetched
    published.requests.clear()
    predict(NAME, scan)
    assert not any("resolve" in line for line in published.requests)


def test_a_folder_of_that_name_comes_first(published, trained, scan, tmp_path):
    assert "from the hub" in predict(NAME, scan).err
    shutil.copytree(trained.path, tmp_path / NAME)
    published.requests.clear()
    assert predict(NAME, scan).err.startswith(f"Model: the folder {NAME}, which is here; the one on the hub is")
    assert published.requests == []
    assert "from the hub" in predict(f"{NAME}@main", scan).err


@pytest.mark.parametrize("name", ["scans/jane-doe", "people/jane-doe.nii.gz", "jane/doe.dcm"])
def test_the_name_of_a_scan_never_leaves_this_machine(name, site, scan, tmp_path):
    (tmp_path / "scans").mkdir()
    assert says(predict(name, scan), "no such run, file or folder")
    assert says(run_cli("predict", "jane/doe"), "no such run, file or folder")
    assert says(predict("jane/doe", "missing.png"), "missing.png: no such file or folder")
    assert site.requests == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model/optimizer.pt": b""}, "holds model/optimizer.pt, a pickle or named like one"),
        ({"pytorch_model.bin": b""}, "holds pytorch_model.bin, a pickle or named like one"),
        ({"model/calibration.json": pickle.dumps([0])}, "a pickle, or named like one"),
        ({"model/config.json": b'{"model_type": "llama"}'}, "a file is not as its manifest.json says"),
        ({"manifest.json": b"{}", "model/config.json": b'{"model_type": "llama"}'}, "its architecture is llama"),
    ],
    ids=str,
)
def test_a_published_folder_passes_the_checks_of_any(change, text, published, scan):
    published.repos[NAME].commit({**in_repo(published), **change})
    assert says(predict(NAME, scan), text)


def test_a_damaged_download_is_told(published, scan):
    published.faults["damaged"] = ()
    assert says(predict(NAME, scan), "if the download was damaged, delete ")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ((429, {}), "too many requests; wait a few minutes"),
        ("drop", "the connection to the hub was lost"),
        ((403, {}), "your login may not read it; ask its owner for access"),
    ],
    ids=str,
)
def test_a_download_that_fails(fault, text, published, scan):
    published.faults["/resolve/"] = fault
    assert says(predict(NAME, scan), text)
    published.faults.clear()
    assert "from the hub" in predict(NAME, scan).err


def test_a_full_disk(published, scan, monkeypatch):
    import errno

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    assert says(predict(NAME, scan), "the disk is full; free some space or set HF_HOME")


def test_what_the_hub_does_not_have_or_keeps_from_others(published, scan, monkeypatch):
    assert says(
        predict("my-lab/other", scan), "no such folder here, and no such model on the hub, or it is private"
    )
    monkeypatch.delenv("HF_TOKEN")
    assert says(predict(NAME, scan), "or it is private and your login may not read it")


def test_the_other_commands_take_it_too(published, trained, scan, phantom_folder, tmp_path):
    from brainstage import Predictor
    from brainstage.serve.registry import ModelRegistry

    assert Predictor.open(NAME).hash == Predictor.open(trained).hash
    registry = ModelRegistry([NAME])
    assert registry.names == ["stages"]
    registry.close()
    assert says(run_cli("evaluate", NAME), f"brainstage validate {NAME} --data FOLDER")
    assert says(run_cli("export", NAME), "choose a folder for the export with --out")
    outcome = run_cli("validate", NAME, "--data", phantom_folder, "--out", tmp_path / "validation", "--quiet")
    assert says(outcome, f"are in the data that {NAME}@{published.repos[NAME].head} was made with")
