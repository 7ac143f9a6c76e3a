"""The API as its clients see it: right answers, to whom they belong, and nothing of names."""

import asyncio
import base64
import gzip
import io
import itertools
import json
import logging

import httpx2
import jsonschema
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import slice_id
from brainstage.inference.explanations import NOTICE
from brainstage.inference.predictions import predict_scans
from brainstage.scans.discover import File, scans_of
from brainstage.scans.volume import Volume
from brainstage.serve.app import create_app
from brainstage.serve.guard import Limits
from brainstage.serve.registry import ModelRegistry
from helpers import encode, picture
from volumes import PATIENT, brain, write_nifti, write_series

HOST = "http://127.0.0.1"
SECRET = f"{PATIENT}.png"
"""A file name that says who it is."""


@pytest.fixture(scope="module")
def client(registry):
    """Return a client that compares each reply with its description."""
    client = TestClient(create_app(registry, {"127.0.0.1"}), base_url=HOST)
    addresses = client.get("/openapi.json").json()["paths"]

    def compare(reply):
        operation = addresses.get(reply.request.url.path, {}).get(reply.request.method.lower())
        if operation and reply.status_code == 200:
            described = operation["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(json.loads(reply.read()), described)

    client.event_hooks = {"response": [compare]}
    return client


def parts(*contents):
    return [("files", (SECRET, content)) for content in contents]


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_pictures_get_the_answers_of_the_predictor(client, registry, heads):
    sent = [heads[5], b"text", heads[9], encode(picture(0, (128, 128)))]
    reply = client.post("/v1/predict", files=parts(*sent), data={"pictures": "true"})
    assert reply.status_code == 200
    found = reply.json()
    assert found["notice"].startswith(RESEARCH_NOTICE)
    assert found["model"]["protocol"] == "patient"
    assert found["model"]["leakage"]["status"] == "clean"
    predictor = registry.model().predictor
    assert found["model"]["hash"] == predictor.hash
    expected = predict_scans(
        predictor, scans_of(File(str(n), lambda one=one: io.BytesIO(one)) for n, one in enumerate(sent))
    )
    rows = found["predictions"]
    assert [row["files"] for row in rows] == [[1], [2], [3], [4]]
    assert [row["status"] for row in rows] == ["predicted", "failed", "predicted", "refused"]
    for row, known in zip(rows, expected.rows, strict=True):
        assert [row[key] for key in ("person", "slice_id", "stage", "words")] == [
            known[key] for key in ("person", "slice_id", "stage", "words")
        ]
        assert row["prob_Non_Demented"] == pytest.approx(known["prob_Non_Demented"], abs=1e-5)
    assert rows[1]["reason"] == "not a JPEG, PNG, NIfTI, DICOM or parquet file; give or make one of these"
    assert rows[3]["reason"].startswith("does not look like the slices")
    assert slice_id(decoded(rows[0]["picture"])) == rows[0]["slice_id"]
    assert rows[1]["picture"] is None


def test_slices_of_the_training_set_are_marked_one_by_one(client, heads, real_folder):
    known = encode(load_slices(real_folder).images[0])
    reply = client.post("/v1/predict", files=parts(heads[5], known, b"text")).json()
    assert [row["training_slice"] for row in reply["predictions"]] == [False, True, False]
    assert reply["training_slices"] == 1
    own = client.post("/v1/predict", files=parts(known), data={"model": "trained"}).json()  # not a bundled model
    assert (own["training_slices"], own["predictions"][0]["training_slice"]) == (0, False)


def test_pictures_of_one_person_are_joined(client, heads):
    reply = client.post("/v1/predict", files=parts(*heads[4:12:2]), data={"one_person": "true"}).json()
    whole, *slices = reply["predictions"]
    assert (whole["files"], whole["slices"]) == ([1, 2, 3, 4], 4)
    assert [row["files"] for row in slices] == [[1], [2], [3], [4]]
    assert "picture" not in whole


def test_volumes_of_any_kind_in_one_request(client, tmp_path):
    volume = brain((3, 3, 3))
    flat = Volume(volume.voxels[:, :, 30:31], volume.affine)
    files = [
        file
        for name, uid in (("study", "1.2"), ("flat", "1.3"))
        for file in sorted(write_series(tmp_path / name, volume if name == "study" else flat, uid=uid).iterdir())
    ]
    reply = client.post("/v1/predict", files=parts(*(file.read_bytes() for file in files)), data={"pictures": "1"})
    whole, *slices, single = reply.json()["predictions"]
    assert whole["files"] == list(range(1, len(files)))
    assert (whole["slices"], whole["stage"], whole["picture"]) == (32, "Non_Demented", None)
    assert [row["level"] for row in slices] == list(range(32))
    assert decoded(slices[7]["picture"]).shape == (128, 128)
    assert (single["files"], single["status"], single["level"]) == ([len(files)], "predicted", None)
    assert reply.json()["extracted"] == []
    assert "How often it is wrong on scans from elsewhere" in reply.json()["notice"]
    details = " ".join(reply.json()["details"])
    for said in (
        "registration to MNI152",
        "Clinical Dementia Ratings 0, 0.5, 1 and 2",
        "200 of the OASIS-1 study",
    ):
        assert said in details
    assert all(0 < row["stability"] <= 1 and row["spread"] >= 0 for row in slices)


@pytest.mark.usefixtures("quick_n4")
def test_a_head_is_stripped_and_what_was_cut_is_sent_back(client, head_file, heads):
    sent = parts(heads[8], head_file.read_bytes())
    reply = client.post("/v1/predict", files=sent).json()
    picture_row, whole, *_ = reply["predictions"]
    assert (picture_row["status"], whole["status"], whole["slices"]) == ("predicted", "predicted", 32)
    assert "(`extracted`) the line must follow the edge of the brain in every cut" in reply["notice"]
    [extracted] = reply["extracted"]
    assert extracted["files"] == whole["files"] == [2]
    assert set(extracted["outline"]) == {"axial", "coronal", "sagittal"}
    red, _, blue = decoded(extracted["outline"]["axial"]).astype(int).transpose(2, 0, 1)
    assert (red - blue > 150).sum() > 500  # the line
    brain_sent = base64.b64decode(extracted["brain"])
    again = client.post("/v1/predict", files=parts(brain_sent)).json()
    assert again["extracted"] == []
    assert [row["slice_id"] is None for row in again["predictions"]] == [True] + [False] * 32
    for name in again["classes"]:
        assert again["predictions"][0][f"prob_{name}"] == pytest.approx(whole[f"prob_{name}"], abs=0.02)
    assert PATIENT.encode() not in gzip.decompress(brain_sent)


def test_without_the_extra_a_head_is_refused_with_its_install_command(client, head_file, monkeypatch):
    monkeypatch.setattr("brainstage.scans.skull_strip.find_spec", lambda name: None)
    [row] = client.post("/v1/predict", files=parts(head_file.read_bytes())).json()["predictions"]
    assert row["status"] == "refused"
    assert row["reason"].startswith("shows a head with its skull; ")
    assert "pip install" in row["reason"] and "brainstage[heads]" in row["reason"]


def test_the_scans_in_files_are_listed_without_names(client, tmp_path, heads):
    volume = brain((4, 4, 4))
    series = write_series(tmp_path / "study", volume, SeriesDescription=PATIENT)
    other = write_series(tmp_path / "other", volume, uid="1.2.9", Modality=PATIENT)
    nifti = write_nifti(tmp_path / "brain.nii", volume)
    files = [*sorted(series.iterdir()), *sorted(other.iterdir()), nifti]
    reply = client.post("/v1/scans", files=parts(*(file.read_bytes() for file in files), heads[3], b"text"))
    assert PATIENT not in reply.text
    count = volume.voxels.shape[2]
    first, second, third, slice_, text = reply.json()["scans"]
    assert first["files"] == list(range(1, count + 1))
    assert (first["kind"], first["modality"], first["slices"]) == ("DICOM", "MR", count)
    assert (first["matrix"], first["spacing_mm"]) == ([*volume.voxels.shape[:2]], [4.0, 4.0, 4.0])
    assert (second["modality"], second["slices"]) == (None, count)
    assert (third["kind"], third["files"]) == ("NIfTI", [len(files)])
    assert (slice_["kind"], slice_["slices"]) == ("picture", 1)
    assert (text["kind"], text["slices"]) == ("unknown", None)


def test_a_reason_names_no_file_of_a_series(client, tmp_path):
    series = write_series(tmp_path / "study", brain((4, 4, 4)), Modality="CT")
    reply = client.post("/v1/predict", files=parts(*(one.read_bytes() for one in series.iterdir()))).json()
    [row] = reply["predictions"]
    assert (row["status"], row["reason"]) == ("refused", "is of modality CT, expected MR; give an MR series")


def test_a_bundled_model_is_opened_when_it_is_asked_for():
    registry = ModelRegistry(["patient", "compact"])
    try:
        client = TestClient(create_app(registry, {"127.0.0.1"}), base_url=HOST)
        assert client.post("/v1/predict", files=parts(b"text")).status_code == 200
        assert list(registry._models) == ["patient"]
        assert [model["name"] for model in client.get("/v1/models").json()["models"]] == ["patient", "compact"]
        assert list(registry._models) == ["patient", "compact"]
    finally:
        registry.close()


def test_nothing_of_names_and_headers_comes_out(client, caplog, tmp_path):
    volume = brain((4, 4, 4))
    files = [file.read_bytes() for file in write_series(tmp_path / "study", volume).iterdir()]
    cut = write_nifti(tmp_path / "cut.nii", volume).read_bytes()[:5000]
    broken = (files[:4], [files[0][:2000]], [cut], [cut[:400], files[3]])
    with caplog.at_level(logging.DEBUG):
        for address, sent in (("/v1/predict", files), *itertools.product(("/v1/predict", "/v1/explain"), broken)):
            reply = client.post(address, files=parts(*sent))
            assert reply.status_code in (200, 400)
            assert PATIENT not in reply.text
    assert PATIENT not in caplog.text


def test_a_slice_is_explained(client, heads):
    reply = client.post("/v1/explain", files=parts(heads[8])).json()
    assert NOTICE in reply["notice"]
    assert "never a diagnosis" in reply["notice"]
    assert reply["method"] == "contributions"
    [row], [person] = reply["maps"], reply["people"]
    assert (row["status"], row["files"]) == ("predicted", [1])
    added = np.sum(row["cells"]) + row["grey_values"]
    assert added == pytest.approx(person["severity"] - person["mean_severity"], abs=1e-4)
    assert np.shape(row["rim_cells"]) == np.shape(row["cells"]) == (8, 8)
    assert not person["registered"]
    assert "source" not in person
    assert decoded(row["overlay"]).shape == (128, 128, 3)
    assert np.array_equal(decoded(row["picture"]), np.asarray(Image.open(io.BytesIO(heads[8]))))


def test_slices_of_one_person_are_explained_together(client, heads):
    sent, data = parts(heads[8], heads[20]), {"one_person": "true"}
    reply = client.post("/v1/explain", files=sent, data=data).json()
    [person] = reply["people"]
    assert [row["files"] for row in reply["maps"]] == [[1], [2]]
    added = sum(np.sum(row["cells"]) + row["grey_values"] for row in reply["maps"])
    assert added == pytest.approx(person["severity"] - person["mean_severity"], abs=1e-4)
    assert client.post("/v1/explain", files=sent).json()["people"][1]["slices"] == 1
    by_stage = client.post("/v1/explain", files=sent[:1], data={"stage": "Mild_Demented"}).json()
    assert (by_stage["method"], by_stage["people"][0]["stage"]) == ("occlusion", "Mild_Demented")


def test_each_of_several_scans_is_explained(client, heads):
    reply = client.post("/v1/explain", files=parts(heads[8], b"text", heads[9]), data={"model": "compact"}).json()
    assert [(row["person"], row["files"], row["status"]) for row in reply["maps"]] == [
        (1, [1], "predicted"),
        (2, [2], "failed"),
        (3, [3], "predicted"),
    ]
    first, second = (decoded(row["picture"]) for row in reply["maps"] if row["picture"])
    assert not np.array_equal(first, second)


def test_what_is_refused_or_damaged_has_no_map(client):
    for sent, status in ((encode(picture(0, (128, 128))), "refused"), (b"text", "failed")):
        [row] = client.post("/v1/explain", files=parts(sent)).json()["maps"]
        assert (row["status"], row["overlay"], row["picture"], row["stage"]) == (status, None, None, None)
        assert row["reason"]
        assert "upload" not in row["reason"]


def test_a_network_by_its_name(client, registry, trained, phantom):
    reply = client.post("/v1/predict", files=parts(encode(phantom.images[3])), data={"model": "trained"}).json()
    assert reply["model"]["hash"] == registry.model(trained.path.name).predictor.hash
    assert not reply["calibrated"]
    assert "Scores, not probabilities" in reply["notice"]
    assert reply["model"]["synthetic"]


def test_the_models_and_their_performance(client):
    listed = client.get("/v1/models").json()
    assert listed["notice"] == RESEARCH_NOTICE
    default, _, other = listed["models"]
    assert (default["name"], default["default"], other["default"]) == ("patient", True, False)
    assert "On people whom it had not seen" in default["performance"]
    first = next(iter(default["figures"]))  # what was chosen inside the folds stands first
    assert first == "chosen inside the folds, 4 stages"
    assert default["figures"][first]["accuracy"]["low"] < 0.61
    assert (default["explained_by"], other["explained_by"]) == ("contributions", "grad-cam")


def test_health_readiness_and_a_description(client):
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/ready").json()["models"] == ["patient", "compact", "trained"]
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        *("/health", "/ready", "/v1/models", "/v1/scans", "/v1/predict", "/v1/explain"),
    }
    form = described["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"files", "model", "one_person", "pictures"}
    assert RESEARCH_NOTICE in described["info"]["description"]
    assert client.get("/docs").status_code == 404  # it would load scripts from elsewhere


def test_the_page_may_load_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get("/v1/models").headers["cache-control"] == "no-store"


def ask(client, address="/v1/predict", **options):
    return client.post(address, **{"files": parts(encode(picture())), **options})


@pytest.mark.parametrize(
    ("request_", "status", "code", "says"),
    [
        (lambda c: c.post("/v1/predict", json={}), 415, "bad-form", "multipart/form-data"),
        (lambda c: c.post("/v1/predict", files={"image": b"a"}), 400, "no-files", "a part named files"),
        (lambda c: c.post("/v1/predict", content=b"--x", headers=FORM), 400, "no-files", "at least one file"),
        (lambda c: c.post("/v1/predict", content=b"\0\1", headers=FORM), 400, "bad-form", "damaged"),
        (lambda c: ask(c, data={"model": "../up"}), 404, "unknown-model", "patient, compact, trained"),
        (
            lambda c: ask(c, "/v1/explain", data={"method": "grad-cam"}),
            400,
            "cannot-explain",
            "take contributions or",
        ),
        (lambda c: ask(c, "/v1/explain", data={"stage": "Grim"}), 400, "cannot-explain", "no such stage"),
        (
            lambda c: ask(c, "/v1/explain", data={"method": "contributions", "stage": "Mild_Demented"}),
            400,
            "cannot-explain",
            "leave out the stage, or take occlusion",
        ),
        (
            lambda c: ask(c, data={"one_persn": "true"}),
            400,
            "bad-form",
            "fields are files, model, one_person, pictures",
        ),
        (
            lambda c: ask(c, files=[*parts(b"a"), ("model", ("m.txt", b"compact"))]),
            400,
            "bad-form",
            "model: it was sent as a file; send it as text",
        ),
        (
            lambda c: ask(c, files=[*parts(b"a"), ("files", (None, b"a"))]),
            400,
            "bad-form",
            "files: it was sent as text; send each file as a part with a file name",
        ),
        (lambda c: ask(c, data={"one_person": "maybe"}), 400, "bad-form", "one_person: send true or false"),
        (lambda c: c.get("/v1/nothing"), 404, "not-found", "/openapi.json"),
        (lambda c: c.get("/../../etc/passwd"), 404, "not-found", "/openapi.json"),
        (lambda c: c.get("/v1/predict"), 405, "method-not-allowed", "/openapi.json"),
        (lambda c: c.get("/v1/models", headers=FOLLOWED_LINK), 403, "foreign-origin", "other sites"),
        (lambda c: c.get("/page/app.js", headers=FOLLOWED_LINK), 403, "foreign-origin", "other sites"),
        (
            lambda c: c.get("/", headers={**FOLLOWED_LINK, "Sec-Fetch-Dest": "iframe"}),
            403,
            "foreign-origin",
            "other",
        ),
        (lambda c: c.get("/", headers={**FOLLOWED_LINK, "Sec-Fetch-Mode": "cors"}), 403, "foreign-origin", ""),
        (lambda c: c.get("/", headers={**FOLLOWED_LINK, "Host": "evil.example"}), 403, "foreign-host", "own names"),
        (lambda c: ask(c, headers=FOLLOWED_LINK), 403, "foreign-origin", "other sites"),
        (lambda c: ask(c, headers={"Host": "rebound.example"}), 403, "foreign-host", "--allow-host"),
        (lambda c: ask(c, headers={"Host": "[::1"}), 403, "foreign-host", "--allow-host"),
        (lambda c: c.get("/", headers={"Host": "127.0.0.1.evil.example"}), 403, "foreign-host", "own names"),
        (lambda c: ask(c, headers={"Origin": "https://evil.example"}), 403, "foreign-origin", "other sites"),
        (lambda c: ask(c, headers={"Origin": "null"}), 403, "foreign-origin", "other sites"),
        (lambda c: ask(c, headers={"Sec-Fetch-Site": "cross-site"}), 403, "foreign-origin", "other sites"),
    ],
)
def test_a_request_that_cannot_be_answered_is_a_problem_with_a_code(client, request_, status, code, says):
    reply = request_(client)
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert (reply.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert says in problem["detail"]
    assert problem["notice"] == RESEARCH_NOTICE


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
BODY = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\na\r\n--x--\r\n'
FOLLOWED_LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
"""What a browser sends when a link on another site is followed."""


def post_as(client, content_type):
    return client.post("/v1/predict", content=BODY, headers={"Content-Type": content_type})


@pytest.mark.parametrize("charset", ["punycode", "undefined", "idna", "utf-16", "none-such"])
def test_a_form_in_an_odd_charset_is_refused(client, charset):
    reply = post_as(client, f"{FORM['Content-Type']}; charset={charset}")
    assert (reply.status_code, reply.json()["code"]) == (400, "bad-form")
    assert reply.json()["detail"].endswith("send UTF-8, or name none")


@pytest.mark.parametrize(
    "content_type", ["Multipart/Form-Data; boundary=x", 'multipart/form-data; Charset="UTF-8"; boundary=x']
)
def test_a_forms_type_is_read_whatever_its_case(client, content_type):
    assert post_as(client, content_type).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page/", "/page/index.html"])
def test_a_link_from_another_site_opens_the_page(client, path):
    reply = client.get(path, headers=FOLLOWED_LINK)
    assert reply.status_code == 200
    assert "<title>brainstage</title>" in reply.text
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        *((path, {"GET"}) for path in ("/", "/health", "/ready", "/v1/models")),
        *((path, {"GET", "HEAD"}) for path in ("/openapi.json", "/page/", "/page/app.js")),
        *((path, {"POST"}) for path in ("/v1/scans", "/v1/predict", "/v1/explain")),
    ],
)
def test_a_method_that_is_not_allowed_is_answered_with_those_that_are(client, path, allowed):
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed:
        reply = client.request(method, path)
        assert reply.status_code == 405, method
        assert {name.strip() for name in reply.headers["allow"].split(",")} == allowed
        assert reply.headers["content-type"] == "application/problem+json"
    assert all(client.request(method, path).status_code != 405 for method in allowed)


def test_the_servers_own_page_may_ask(client):
    own = {"Origin": HOST, "Sec-Fetch-Site": "same-origin"}
    assert ask(client, headers=own).status_code == 200


def streamed(size):
    """Yield a form of one file in pieces, with no length told beforehand."""
    yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    for _ in range(size // 1000):
        yield bytes(1000)
    yield b"\r\n--x--\r\n"


@pytest.mark.parametrize(
    ("limits", "count", "code", "status"),
    [
        (Limits(request_bytes=20_000), 1, "too-large", 413),
        (Limits(all_bytes=20_000), 1, "too-busy", 503),
        (Limits(requests=0), 1, "too-busy", 503),
        (Limits(seconds=0.0), 1, "too-slow", 503),
        (Limits(files=2), 3, "too-many-files", 413),
    ],
)
def test_limits_hold_while_a_body_streams_in(registry, limits, count, code, status):
    client = TestClient(create_app(registry, {"127.0.0.1"}, limits), base_url=HOST)
    if count == 1:
        reply = client.post("/v1/predict", content=streamed(100_000), headers=FORM)
    else:
        reply = client.post("/v1/predict", files=parts(*[b"a"] * count))
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    if status == 503:
        assert reply.headers["retry-after"]
    if limits.requests:
        again = client.post("/v1/predict", files=parts(b"a"))  # what the first held is free again
        assert again.status_code == 200 or limits.seconds == 0
    assert (client.get("/ready").status_code == 200) == bool(limits.requests)


def test_a_body_whose_length_says_too_much_is_not_read(registry):
    client = TestClient(create_app(registry, {"127.0.0.1"}, Limits(request_bytes=1000)), base_url=HOST)
    reply = client.post("/v1/predict", files=parts(bytes(2000)))
    assert (reply.status_code, reply.json()["code"]) == (413, "too-large")
    assert "send it in parts" in reply.json()["detail"]


def test_an_error_that_was_not_foreseen_says_nothing_of_the_request(registry, monkeypatch, caplog):
    def broken(*_):
        raise ValueError(PATIENT)

    monkeypatch.setattr("brainstage.serve.app.scans_of", broken)
    reply = ask(TestClient(create_app(registry, {"127.0.0.1"}), base_url=HOST, raise_server_exceptions=False))
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    assert PATIENT not in reply.text + caplog.text
    assert "ValueError at " in caplog.text


def test_explaining_and_predicting_at_once_give_what_each_gives_alone(registry, phantom):
    """Eight explanations of a network among forty predictions by it."""
    app = create_app(registry, {"127.0.0.1"}, Limits(requests=200))
    pictures = [encode(image) for image in phantom.images[:40]]

    async def ask(client, address, picture):
        reply = await client.post(address, files=parts(picture), data={"model": "trained"})
        assert reply.status_code == 200
        return reply.json()

    async def everyone():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=HOST, timeout=60) as client:
            explained = [await ask(client, "/v1/explain", picture) for picture in pictures[:8]]
            together = await asyncio.gather(
                *(ask(client, "/v1/explain", picture) for picture in pictures[:8]),
                *(ask(client, "/v1/predict", picture) for picture in pictures),
            )
            return explained, together[:8], together[8:]

    alone, explained, predicted = asyncio.run(everyone())
    for one, other in zip(alone, explained, strict=True):
        difference = np.abs(decoded(one["maps"][0]["overlay"]).astype(int) - decoded(other["maps"][0]["overlay"]))
        assert difference.max() <= 1
    expected = registry.model("trained").predictor.predict_proba(phantom.images[:40])
    for reply, probabilities in zip(predicted, expected, strict=True):
        [row] = reply["predictions"]
        assert [row[f"prob_{name}"] for name in reply["classes"]] == pytest.approx(probabilities.tolist(), abs=1e-5)


def test_many_at_once_get_their_own_answers(registry, heads, phantom):
    """A hundred requests of two models, half of them with something broken in it, all under way together."""
    app = create_app(registry, {"127.0.0.1"}, Limits(requests=200))
    known = {one: slice_id(np.asarray(Image.open(io.BytesIO(one)))) for one in heads}

    async def ask(client, number):
        own = heads[number % len(heads)]
        sent = [own, b"text"] if number % 2 else [own]
        model = "trained" if number % 5 == 0 else "patient"
        reply = await client.post("/v1/predict", files=parts(*sent), data={"model": model})
        rows = reply.json()["predictions"]
        assert [row["slice_id"] for row in rows] == [known[own], None][: len(sent)]
        return number % len(heads), model, json.dumps({**rows[0], "files": None})

    async def everyone():
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url=HOST, timeout=60) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(100)))

    answers = {}
    for head, model, row in asyncio.run(everyone()):
        row = json.loads(row)
        first = answers.setdefault((head, model), row)
        assert row["prob_Non_Demented"] == pytest.approx(first["prob_Non_Demented"], abs=1e-5)
    assert len({json.dumps(row) for row in answers.values()}) == len(answers)
