"""The page in a real browser: what a user drops, what they see, and that nothing goes elsewhere."""

import csv
import gzip
import io
import json
import shutil
from datetime import date

import numpy as np
import pydicom
import pytest
from PIL import Image

from brainstage import __version__
from brainstage.datasets.sources import load_slices
from brainstage.scans.discover import find_scans
from brainstage.scans.volume import Volume
from helpers import encode
from volumes import PATIENT, brain, write_nifti, write_series

pytest.importorskip("fastapi")

pytestmark = pytest.mark.browser
LONG = 60_000  # milliseconds: registration on a busy machine
NEVER = "Not a medical device, never a diagnosis."


@pytest.fixture
def open_page(address, browser):
    """Return what opens the page; in the end nothing was asked of another origin, and no error was logged."""
    contexts, asked, errors = [], [], []

    def opened(**settings):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings})
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        context.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.goto(address)
        page.wait_for_selector("#model-facts dd")
        return page

    opened.errors = errors
    yield opened
    kept = [(one.cookies(), page.evaluate("localStorage.length")) for one in contexts for page in one.pages]
    for context in contexts:
        context.close()
    assert kept == [([], 0)] * len(contexts)
    assert errors == []
    assert asked
    assert [url for url in asked if not url.startswith((f"{address}/", "blob:", "data:"))] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory, head_slices):
    """Return a folder with a volume, a DICOM series, slices of it, a photograph and a damaged picture."""
    made = tmp_path_factory.mktemp("scans")
    volume = brain((3, 3, 3))
    write_nifti(made / "brain.nii.gz", volume)
    write_series(made / "series", volume)
    for level in range(4, 28):
        (made / f"slice-{level:02}.png").write_bytes(encode(head_slices[level]))
    (made / "photo.jpg").write_bytes(encode(photograph(), "JPEG"))
    (made / "broken.png").write_bytes(encode(head_slices[9])[:400])
    return made


@pytest.fixture(scope="module")
def study(folder):
    """Return a folder with two DICOM series, whose headers name the patient."""
    made, volume = folder.parent / "series-to-choose", brain((3, 3, 3))
    write_series(made / "a", volume, uid="1.2.3", SeriesDescription=PATIENT)
    write_series(made / "b", Volume(volume.voxels[:, :, 30:31], volume.affine), uid="1.2.4")
    return made


def photograph():
    """Return a picture of hills under a sky, in colour."""
    rows, columns = np.mgrid[:240, :320]
    hills = rows > 130 + 30 * np.sin(columns / 25) + 12 * np.sin(columns / 7)
    sky = np.stack([90 + rows / 3, 140 + rows / 4, 230 - rows / 5], axis=-1)
    grass = np.stack([60 + columns / 9, 110 + 40 * np.sin(columns * rows / 900), 40 + 0 * rows], axis=-1)
    return np.where(hills[..., None], grass, sky).astype(np.uint8)


def choose(page, *files):
    page.set_input_files("#files", list(map(str, files)))


def bars(page):
    """Return each stage's probability, as told to a screen reader."""
    return {
        one.get_attribute("aria-label"): float(one.get_attribute("aria-valuenow"))
        for one in page.locator("#bars [role=meter]").all()
    }


def drawn(locator):
    """Return the share of a part of the page that is not black."""
    return float((np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("L")) > 60).mean())


def sideways(page):
    """Return by how many pixels the page is wider than the screen."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def test_the_first_screen_says_what_this_is_and_what_it_is_worth(open_page):
    page = open_page()
    assert NEVER in page.inner_text("header")
    assert page.locator("#model option").all_inner_texts()[:2] == ["patient", "compact"]
    assert "On people whom it had not seen" in page.inner_text("#model-performance")
    assert "clean: no inferred patient on both sides" in page.inner_text("#model-facts")
    page.click("#model-details summary")
    assert "200 of the OASIS-1 study" in page.inner_text("#model-details")
    page.click("#model-people summary")
    described = page.inner_text("#model-people")
    for part in ("100 Non, 70 Very Mild, 28 Mild, 2 Moderate", "older than 60", "Who is a man and who a woman"):
        assert part in described
    assert not page.is_visible("#model-figures table")
    page.click("#model-figures summary")
    rows = page.locator("#model-figures tbody tr").all_inner_texts()
    assert rows[0].startswith("chosen inside the folds, 4 stages")
    assert all(row.startswith(("chosen inside", "optimistic", "linear baseline")) for row in rows)
    page.select_option("#model", "compact")
    assert "leaky: 200 inferred patients" in page.inner_text("#model-facts")
    assert "scores, not probabilities" in page.inner_text("#model-performance")


def test_a_volume_shows_probabilities_slices_and_three_planes(open_page, folder):
    page = open_page()
    choose(page, folder / "brain.nii.gz")
    page.wait_for_selector("#bars .row >> nth=3", state="attached")
    assert sum(bars(page).values()) == pytest.approx(1, abs=0.001)
    assert list(bars(page)) == ["Non", "Very Mild", "Mild", "Moderate"]
    assert page.inner_text("#words").startswith("Among people like the 200 of the OASIS-1 study, ")
    assert page.inner_text("#notice").count(".") == 1
    assert "never a diagnosis" in page.inner_text("#notice")
    page.click("#details summary")
    for part in ("On people whom it had not seen", "is wrong on scans from elsewhere", "registration to MNI152"):
        assert part in page.inner_text("#details")
    page.click("#meaning summary")
    assert "about 60 of them have it" in page.inner_text("#meaning")
    assert "Of the reference people 50\u00a0% have dementia" in page.inner_text("#meaning")
    page.click("#people summary")
    assert "200 people of the study OASIS-1" in page.inner_text("#people")
    assert "protocol patient" in page.inner_text("#person-model")
    assert page.locator("#sheet [role=option]").count() == 32
    page.wait_for_selector("#planes[data-drawn]")
    assert drawn(page.locator("#planes")) > 0.1
    assert page.locator("#large b").all_inner_texts() == ["R", "L"]
    assert "right (R) is on the left" in page.inner_text(".sheet-side")
    assert PATIENT not in page.content()


def test_the_side_that_is_marked_right_is_the_persons_right(open_page, tmp_path):
    """A bright spot in the brain's right half comes to lie on the left, where the R is."""
    volume = brain((3, 3, 3))
    right = np.arange(volume.voxels.shape[0]) * 3 - 98 > 10  # x goes to the right
    volume.voxels[right] *= 1.4
    page = open_page()
    choose(page, write_nifti(tmp_path / "brain.nii.gz", volume))
    page.wait_for_selector("#large img")
    picture = np.asarray(Image.open(io.BytesIO(page.locator("#large .layers").screenshot())).convert("L"), float)
    half = picture.shape[1] // 2
    assert picture[:, :half].sum() > 1.15 * picture[:, half:].sum()
    marks = {mark.inner_text(): mark.bounding_box()["x"] for mark in page.locator("#large b").all()}
    assert marks["R"] < marks["L"]


def test_on_a_lone_picture_no_side_is_marked(open_page, folder):
    page = open_page()
    choose(page, folder / "slice-12.png")
    page.wait_for_selector("#large img")
    assert page.locator("#large b").count() == 0
    assert not page.is_visible("#sides-note")


@pytest.mark.usefixtures("quick_n4")
def test_a_head_gets_a_prediction_once_its_outline_is_approved(open_page, head_file, folder):
    page = open_page()
    choose(page, head_file, folder / "slice-12.png")
    page.wait_for_selector("#batch-summary")
    assert "1 head: open each to check" in page.inner_text("#batch-summary")
    row = page.locator("#results tbody tr", has_text="head.nii.gz")
    assert "a skull was taken off" in row.inner_text().lower()
    _, rows = saved(page)
    assert [(row["status"], row["stage"] == "") for row in rows] == [("predicted", False), ("unchecked", True)]
    row.click()
    assert page.locator("#outline-cuts img").count() == 3
    assert page.locator("#outline-cuts b").all_inner_texts() == ["R", "L"] * 2
    assert not page.is_visible("#prediction")
    page.click("#outline-no")
    assert "there is no prediction" in page.inner_text("#outline-refused")
    page.click("#outline-yes")
    page.wait_for_selector("#bars .row >> nth=3", state="attached")
    assert page.locator("#large b").all_inner_texts() == ["R", "L"]
    page.evaluate(  # the brain is to be explained, not the head again
        """() => {
            window.fetch = (address, { body }) => {
                window.sent = body.getAll("files").map(({ size }) => size);
                return new Promise(() => {});
            };
        }"""
    )
    page.click("#explain")
    assert len(page.evaluate("window.sent")) == 1
    assert page.evaluate("window.sent") != [head_file.stat().st_size]
    page.click("#back")
    assert "2 predicted" in page.inner_text("#batch-summary")
    assert [row["status"] for row in saved(page)[1]] == ["predicted", "predicted"]


def test_a_case_is_one_file_without_script_and_without_a_name(open_page, folder, tmp_path, browser):
    page = open_page()
    named = tmp_path / "Sommer Karl.nii.gz"
    shutil.copy(folder / "brain.nii.gz", named)
    choose(page, named)
    page.wait_for_selector("#bars .row >> nth=3", state="attached")
    before = date.today()
    with page.expect_download() as download:
        page.click("#save-case")
    days = {f"{day:%Y-%m-%d}" for day in (before, date.today())}  # it may have been midnight
    text = download.value.path().read_text(encoding="utf-8")
    assert "Sommer" not in text + download.value.suggested_filename
    assert "<script" not in text and "http:" not in text and "https:" not in text
    for part in (NEVER, __version__, "patient, model ", "protocol patient", "OASIS-1"):
        assert part in text
    assert any(day in text for day in days)
    kept = tmp_path / "case.html"
    kept.write_text(text, encoding="utf-8")
    opened = browser.new_page(java_script_enabled=False)
    opened.set_default_timeout(LONG)
    opened.goto(kept.as_uri())
    assert opened.locator("figure img").count() == 32
    assert opened.locator("figure b.right").count() == 32
    assert opened.locator("meter").count() == 4
    assert drawn(opened.locator("figure img >> nth=12")) > 0.1
    opened.close()


@pytest.mark.usefixtures("quick_n4")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault_in_any_view(open_page, folder, study, head_file, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(color_scheme=scheme, bypass_csp=True)

    def check(view):
        results = axe.run(page)
        assert results.violations_count == 0, f"{view}: {results.generate_report()}"

    for summary in page.locator("#start summary").all():
        summary.click()
    check("start")
    choose(page, folder / "brain.nii.gz")
    page.wait_for_selector("#planes[data-drawn]")
    for summary in page.locator("#person summary").all():
        summary.click()
    check("person")
    choose(page, folder / "slice-12.png", folder / "photo.jpg", folder / "broken.png")
    page.wait_for_selector("#batch-summary")
    check("batch")
    page.click("#results tbody tr >> nth=2")
    check("refused")
    page.set_input_files("#folder", str(study))
    page.wait_for_selector("#series-list button")
    check("series")
    choose(page, head_file)
    page.wait_for_selector("#outline-cuts img")
    check("outline")


def test_the_arrow_keys_walk_over_the_slices_of_a_dicom_folder(open_page, folder):
    page = open_page()
    (folder / "series" / "notes.txt").write_text("no scan")
    page.set_input_files("#folder", str(folder / "series"))
    page.wait_for_selector("#sheet [role=option] >> nth=31")
    assert page.inner_text("#person-title") == "series"
    assert "DICOM files · prediction from 32 slices" in page.inner_text("#person-facts")
    assert not page.is_visible("#volume")
    page.focus("#sheet [aria-selected=true]")
    for key, level in (("Home", 0), ("ArrowRight", 1), ("ArrowDown", 9), ("ArrowUp", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        assert page.inner_text("#large-caption strong") == f"Level {level}"
    page.keyboard.press("End")
    assert page.inner_text("#large-caption strong") == "Level 31"
    assert page.locator("#sheet [aria-selected=true]").count() == 1
    assert PATIENT not in page.content()


def test_what_moved_the_score_is_laid_over_the_picture_and_fades(open_page, folder):
    page = open_page()
    choose(page, folder / "slice-12.png")
    page.click("#explain")
    page.wait_for_selector("#heat-controls")
    assert "not a lesion map" in page.inner_text("#heat-notice")
    assert not page.locator("#large b.right, #large b.left").count()  # left and right of a lone slice are not known
    seen = [page.locator("#large").screenshot()]
    page.fill("#heat-fade", "40")
    seen.append(page.locator("#large").screenshot())
    page.uncheck("#heat-on")
    seen.append(page.locator("#large").screenshot())
    red, green, blue = np.asarray(Image.open(io.BytesIO(seen[2])).convert("RGB"), int)[40:-40, 40:-40].T
    assert len(set(seen)) == 3
    assert max(np.abs(red - green).max(), np.abs(green - blue).max()) == 0


def test_hovering_a_volumes_slice_says_what_each_cell_adds(open_page, folder):
    page = open_page()
    choose(page, folder / "brain.nii.gz")
    page.wait_for_selector("#explain")
    with page.expect_response("**/v1/explain") as response:
        page.click("#explain")
    reply = response.value.json()
    page.wait_for_selector("#heat-largest")
    assert page.locator("#large b.right, #large b.left").all_inner_texts() == ["R", "L"]
    assert page.locator("#heat-largest button").all_inner_texts() == [
        part["words"] for part in reply["people"][0]["largest"]
    ]
    level = int(page.inner_text("#large-caption strong").removeprefix("Level "))
    [row] = [row for row in reply["maps"] if row["level"] == level]
    assert f"{row['grey_values']:+.3f} towards" in page.inner_text("#heat-cell")
    box = page.locator("#large .layers").bounding_box()
    for cell in ((2, 4), (7, 1)):
        at = {"x": box["width"] * (cell[1] + 0.5) / 8, "y": box["height"] * (cell[0] + 0.5) / 8}
        page.hover("#large .layers", position=at)
        said = page.inner_text("#heat-cell")
        value = row["cells"][cell[0]][cell[1]]
        assert f"{value:+.3f} towards {'Moderate' if value > 0 else 'Non'}" in said
        assert ("at the rim of the brain" in said) == row["rim_cells"][cell[0]][cell[1]]
        outlined = page.locator("#large .cell-mark").bounding_box()
        assert outlined["x"] - box["x"] == pytest.approx(cell[1] * box["width"] / 8, abs=1)
        assert outlined["y"] - box["y"] == pytest.approx(cell[0] * box["height"] / 8, abs=1)
    page.mouse.move(0, 0)
    assert "Grey values of this slice" in page.inner_text("#heat-cell")
    place = next(part for part in reply["people"][0]["largest"] if part["cell"])
    page.click(f"#heat-largest button:has-text('{place['words']}')")
    shown_level = int(page.inner_text("#large-caption strong").removeprefix("Level "))
    assert place["levels"][0] <= shown_level <= place["levels"][1]
    assert page.locator("#large .cell-mark").count() == 1


def test_a_long_explanation_can_be_cancelled(open_page, folder):
    page = open_page()
    choose(page, folder / "slice-12.png")
    page.wait_for_selector("#explain")
    page.route("**/v1/explain", lambda route: None)  # never answered
    page.click("#explain")
    page.wait_for_selector("#explain-progress")
    page.click("#explain")
    page.wait_for_selector("#explain-progress", state="hidden")
    assert page.inner_text("#explain-state") == "Cancelled."
    assert page.inner_text("#explain") == "Show what moved the score"


def test_a_dropped_photograph_is_refused_and_gets_no_stage(open_page, folder):
    page = open_page()
    content = list((folder / "photo.jpg").read_bytes())
    page.evaluate(
        """content => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], "Holiday <b>1</b>.jpg"));
            const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
            document.getElementById("drop").dispatchEvent(event);
        }""",
        content,
    )
    page.wait_for_selector("#no-stage")
    assert "does not look like the slices" in page.inner_text("#no-stage").lower()
    assert page.inner_text("#person-title") == "Holiday <b>1</b>.jpg"
    assert page.is_visible("#large img")
    assert not page.is_visible("#prediction")
    assert not page.is_visible("#heat")
    assert page.locator("#bars .row").count() == 0


def test_a_broken_file_says_what_is_wrong_with_it(open_page, folder):
    page = open_page()
    choose(page, folder / "broken.png")
    page.wait_for_selector("#no-stage")
    assert "Could not be read" in page.inner_text("#no-stage")
    assert "truncated" in page.inner_text("#no-stage")
    assert not page.is_visible("#prediction")
    assert not page.is_visible("#slices")


def test_a_batch_of_fifty_ends_in_a_csv_that_names_no_file(open_page, folder, tmp_path):
    page = open_page()
    slices = sorted(folder.glob("slice-*.png"))
    batch = [*slices, *slices, folder / "photo.jpg", folder / "broken.png"]
    copies = [tmp_path / f"=Sommer, Karl {number}{one.suffix}" for number, one in enumerate(batch, 1)]
    for one, copy in zip(batch, copies, strict=True):
        shutil.copy(one, copy)
    choose(page, *copies)
    page.wait_for_selector("#batch-summary")
    assert "50 files, 50 scans: 48 predicted, 1 refused, 1 could not be read." in page.inner_text("#batch-summary")
    assert page.inner_text("#results tbody th >> nth=0") == "=Sommer, Karl 1.png"

    text, rows = saved(page)
    assert "Sommer" not in text
    assert [row["person"] for row in rows] == [str(number) for number in range(1, 51)]
    assert [row["status"] for row in rows] == ["predicted"] * 48 + ["refused", "failed"]
    answered = rows[0]
    assert sum(float(answered[key]) for key in answered if key.startswith("prob_")) == pytest.approx(1, abs=1e-5)
    assert NEVER in answered["notice"]
    assert len(answered["model"]) == 64
    assert answered["protocol"] == "patient"
    assert rows[48]["stage"] == "" and "out-of-distribution score" in rows[48]["reason"]

    page.check("#with-names")
    _, named = saved(page)
    assert [row["source"] for row in named][:2] == ["'=Sommer, Karl 1.png", "'=Sommer, Karl 2.png"]

    page.click("#results tbody tr >> nth=4")
    assert page.inner_text("#person-title") == "=Sommer, Karl 5.png"
    page.go_back()
    assert page.is_visible("#results")


def saved(page):
    """Save the CSV; return its text and its rows."""
    with page.expect_download() as download:
        page.click("#save")
    text = download.value.path().read_bytes().decode("utf-8-sig")
    return text, list(csv.DictReader(io.StringIO(text, newline="")))


def test_of_a_batch_only_training_slices_are_called_so_and_every_notice_stays(
    open_page, folder, real_folder, tmp_path
):
    known = tmp_path / "known.png"
    known.write_bytes(encode(load_slices(real_folder).images[0]))
    page = open_page()
    choose(page, known, *sorted(folder.glob("slice-*.png"))[:8])  # in two requests
    page.wait_for_selector("#batch-summary")
    notice = page.inner_text("#batch-notice")
    assert notice.count(NEVER) == 1
    assert "1 of 8 slices show people in the model's training set" in notice
    for number, said in ((0, True), (1, False)):
        page.click(f"#results tbody tr >> nth={number}")
        notice = page.inner_text("#notice")
        assert "never a diagnosis" in notice
        assert ("This slice shows people of the model's training set" in notice) == said
        page.click("#back")


def test_a_model_of_phantoms_is_named_beside_the_notice_of_research(open_page, folder):
    page = open_page()
    page.select_option("#model", "trained")
    choose(page, folder / "slice-12.png")
    page.wait_for_selector("#large img")
    for said in ("never a diagnosis", "was trained on phantoms"):
        assert said in page.inner_text("#notice")


def test_a_batch_can_be_stopped(open_page, folder):
    page = open_page()
    calls = []

    def answer(route):
        calls.append(route)
        if len(calls) < 4:  # the fourth request is never answered
            route.continue_()

    page.route("**/v1/predict", answer)
    choose(page, *sorted(folder.glob("slice-*.png")), folder / "photo.jpg")
    page.wait_for_selector("#results tbody tr >> nth=23")
    assert page.inner_text("#batch-count") == "24 of 25 files"
    assert page.evaluate("document.getElementById('batch-progress').position") == 24 / 25
    page.click("#stop")
    page.wait_for_selector("#batch-summary")
    assert "Stopped after 24 of 25 files: 23 predicted, 1 refused" in page.inner_text("#batch-summary")


def test_a_busy_server_is_asked_again_and_a_problem_is_told_in_its_words(open_page, folder):
    page = open_page()
    busy, large = (
        {
            "status": status,
            "headers": {"Retry-After": "1"},
            "content_type": "application/problem+json",
            "body": json.dumps({"code": code, "detail": detail}),
        }
        for status, code, detail in ((503, "too-busy", "ask again"), (413, "too-large", "send <i>it</i> in parts"))
    )
    answers = [busy, None, large]

    def answer(route):
        instead = answers.pop(0)
        route.fulfill(**instead) if instead else route.continue_()

    page.route("**/v1/predict", answer)
    choose(page, folder / "slice-12.png")
    page.wait_for_selector("#prediction")
    assert len(answers) == 1
    page.click("#back")
    choose(page, folder / "slice-12.png")
    page.wait_for_selector("#problem")
    assert page.inner_text("#problem") == "slice-12.png: send <i>it</i> in parts"
    assert [said.split("status of ")[1][:3] for said in open_page.errors] == ["503", "413"]
    open_page.errors.clear()


@pytest.mark.parametrize("meta", [True, False])
def test_files_are_recognised_as_the_command_line_does(open_page, folder, tmp_path, meta):
    """DICOM files without a preamble are one series; an archive, and half of a two-file NIfTI, are no scans."""
    made = tmp_path / "study"
    (made / "series").mkdir(parents=True)
    for number, file in enumerate(sorted((folder / "series").glob("IM*"))):
        data = io.BytesIO()
        dataset = pydicom.dcmread(file)
        dataset.preamble = None
        if not meta:
            del dataset.file_meta
        dataset.save_as(data, implicit_vr=not meta, little_endian=True, enforce_file_format=False)
        assert data.getvalue()[128:132] != b"DICM"
        (made / "series" / f"IM{number:03}").write_bytes(data.getvalue())
    (made / "archive.tar.gz").write_bytes(gzip.compress(bytes(10_240)))
    (made / "half.hdr").write_bytes(bytes(344) + b"ni1\0")
    assert [scan.name for scan in find_scans(made)] == [str(made / "series")]
    page = open_page()
    page.set_input_files("#folder", str(made))
    page.wait_for_selector("#sheet [role=option] >> nth=31")
    assert page.inner_text("#person-title") == "study/series"
    shutil.copy(folder / "brain.nii.gz", made / "renamed")  # a volume, whatever its name
    page.set_input_files("#folder", str(made))
    page.wait_for_selector("#batch-summary")
    assert "2 scans: 2 predicted" in page.inner_text("#batch-summary")
    assert "2 files in the folder are not scans" in page.inner_text("#batch-summary")


def test_several_series_in_a_folder_are_listed_to_choose_from(open_page, study):
    page = open_page()
    page.set_input_files("#folder", str(study))
    page.wait_for_selector("#series-list button >> nth=1")
    listed = page.locator("#series-list button").all_inner_texts()
    assert "Series 1" in listed[0] and "MR · 63 slices · 66 × 77 pixels · 3.0 mm apart" in listed[0]
    assert "Series 2" in listed[1] and "MR · 1 slice · 66 × 77 pixels" in listed[1]
    assert PATIENT not in page.content() and "study" not in page.inner_text("#series")
    page.click("#series-list button >> nth=0")
    page.wait_for_selector("#sheet [role=option] >> nth=31")
    assert page.inner_text("#back") == "← All series"
    page.click("#back")
    page.click("#series-all")
    page.wait_for_selector("#batch-summary")
    assert page.locator("#results tbody th").all_inner_texts() == ["series-to-choose/a", "series-to-choose/b/IM000"]
    assert "64 files, 2 scans: 2 predicted" in page.inner_text("#batch-summary")


def test_pictures_of_one_person_are_answered_together(open_page, folder):
    page = open_page()
    page.check("#one-person")
    choose(page, *sorted(folder.glob("slice-*.png"))[:6], folder / "photo.jpg")
    page.wait_for_selector("#sheet [role=option] >> nth=6")
    assert "7 files · prediction from 6 slices · 1 refused" in page.inner_text("#person-facts")
    page.click("#sheet .not")
    assert "Does not look like" in page.inner_text("#large-caption")


def test_the_keyboard_alone_is_enough(open_page, folder):
    page = open_page()
    page.on("filechooser", lambda chooser: None)  # from here on no real dialogue opens
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose-files"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([str(one) for one in sorted(folder.glob("slice-*.png"))[:2]])
    page.wait_for_selector("#batch-summary")
    assert page.evaluate("document.activeElement.id") == "batch-title"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "slice-04.png"
    page.keyboard.press("Enter")
    assert page.inner_text("#person-title") == "slice-04.png"
    assert page.evaluate("document.activeElement.id") == "person-title"


def test_on_a_phone_nothing_runs_off_the_screen(open_page, folder):
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.click("summary")
    assert sideways(page) <= 0
    choose(page, folder / "slice-12.png", folder / "photo.jpg", folder / "broken.png")
    page.wait_for_selector("#batch-summary")
    assert sideways(page) <= 0
    page.click("#results tbody tr >> nth=2")
    page.wait_for_selector("#bars .row >> nth=3", state="attached")
    assert sideways(page) <= 0
    assert page.locator(".never").bounding_box()["y"] >= 0


def test_light_and_dark_follow_the_system(open_page):
    page = open_page(color_scheme="light")
    shades = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        shades.append(np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L")))
    assert np.median(shades[0]) > 240
    assert np.median(shades[1]) < 40
