"""Claim: pictures that are not axial brain slices like the training slices are refused, and real slices are not.

    python benchmarks/refusal.py [--far FOLDER ...] [--near FOLDER ...]

Real slices are scored by a detector that was fitted to other people (five folds): as they are, and under the
acquisitions of ``stability.py``, by stage, since a refusal that falls on the sicker would spoil every figure of
those who are left.

Pictures that come with scikit-image and drawn shapes are what its one constant was chosen on; its faces and the
pictures of scikit-learn, matplotlib, pydicom and the folders named had no part in that. Near ones are cuts of
MNI152 (nilearn), of its tissue maps and of the volumes in the folders named, in three planes, as they are and
inverted, and real slices that were changed. Of each picture there are twenty random crops, some inverted, turned,
or cut to an ellipse on black as a head would be.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import nilearn
import numpy as np
import pydicom
import skimage
import sklearn
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from sklearn.model_selection import GroupKFold
from statsmodels.stats.proportion import proportion_confint

import stability
from brainstage.core.arrays import Pixels
from brainstage.core.errors import DataError
from brainstage.core.parallel import parallel_map
from brainstage.core.schema import STAGES
from brainstage.datasets.phantom import draw_head
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SliceTable
from brainstage.inference.out_of_distribution import OutOfDistributionDetector
from brainstage.scans.nifti import decode_nifti
from brainstage.scans.registration import mapped, sample
from brainstage.scans.volume import Volume

SIDE = 128


def main() -> None:
    """Print the share that is accepted of each kind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--far", type=Path, nargs="*", default=[], help="folders of pictures of anything")
    parser.add_argument("--near", type=Path, nargs="*", default=[], help="folders of NIfTI volumes")
    folders = parser.parse_args()
    slices = load_slices()
    by_stage(slices)
    detector = OutOfDistributionDetector.fit(slices.images)
    print(f"fitted to all; out-of-distribution threshold {detector.threshold:.3f}")
    rng = np.random.default_rng(0)
    report(detector, "far, chosen on: scikit-image", pictures([package(skimage) / "data"], rng))
    report(detector, "far, chosen on: drawn", dict(drawn(rng)))
    named = [package(sklearn) / "datasets/images", package(matplotlib) / "mpl-data/sample_data", *folders.far]
    report(detector, "far, new: pictures", pictures(named, rng))
    report(detector, "far, new: DICOM of other kinds", dicom_pictures())
    report(detector, "far, new: faces", faces())
    for name, volume in near_volumes(folders.near):
        planes = {plane: cuts(volume, plane) for plane in ("axial", "coronal", "sagittal")}
        planes["inverted axial"] = [inverted(one) for one in planes["axial"]]
        scores = {plane: detector.score(images) for plane, images in planes.items()}
        counts = [f"{plane} {(of <= detector.threshold).sum():2} ({of.min():.2f})" for plane, of in scores.items()]
        print(f"near: {name[:36]:36} of 24 cuts: {', '.join(counts)}", flush=True)
    report(detector, "near: phantoms", {str(stage): list(draw_head(stage, 0, seed=5)) for stage in range(4)})
    chosen = [slices.images[row] for row in rng.permutation(len(slices))[:400]]
    for name, change in CHANGES.items():
        report(detector, f"near: real, {name}", {"real": [change(image) for image in chosen]})


def by_stage(slices: SliceTable) -> None:
    """Print the shares of slices and of people that are refused, by stage, with 95 % intervals for people.

    A person is refused where more than half of the slices are. Two Moderate people count as Mild.
    """
    people, person = np.unique([str(patient) for patient in slices.patients], return_inverse=True)
    stage = np.minimum(slices.targets(range(len(slices))), 2)
    of_people = np.array([stage[person == number][0] for number in range(len(people))])
    folds = list(GroupKFold(5, shuffle=True, random_state=0).split(person, groups=person))
    detectors = [OutOfDistributionDetector.fit([slices.images[row] for row in train]) for train, _ in folds]
    names = [name.removesuffix("_Demented") for name in STAGES[:3]]
    print(f"refused, real slices out of fold: {', '.join(names)}: share of slices; people")
    for name, change in (stability.within_family() | stability.outside_family()).items():
        refused = np.zeros(len(slices), dtype=bool)
        for detector, (_, test) in zip(detectors, folds, strict=True):
            images = parallel_map(change, [slices.images[row] for row in test])
            refused[test] = detector.score(images) > detector.threshold
        lost = np.bincount(person, refused) > np.bincount(person) / 2
        slices_lost = ", ".join(f"{refused[stage == number].mean():6.2%}" for number in range(3))
        people_lost = ", ".join(_share(lost[of_people == number]) for number in range(3))
        print(f"  {name:32} {slices_lost}; {people_lost}", flush=True)


def _share(lost: NDArray[np.bool_]) -> str:
    """Return how many of some people are refused, with the 95 % Wilson interval of the share."""
    low, high = proportion_confint(int(lost.sum()), len(lost), method="wilson")
    return f"{lost.sum()} of {len(lost)} [{low:.2f}, {high:.2f}]"


def report(detector: OutOfDistributionDetector, name: str, groups: dict[str, list[Pixels]]) -> None:
    """Print how many pictures are accepted, of how many sources, and the lowest out-of-distribution score."""
    images = [image for members in groups.values() for image in members]
    scores = detector.score(images)
    accepted = int((scores <= detector.threshold).sum())
    print(
        f"{name:42} {accepted:5,} of {len(images):5,} accepted ({len(groups):3} sources), "
        f"score: median {np.median(scores):5.2f}, lowest {scores.min():5.2f}",
        flush=True,
    )


# --- far ----------------------------------------------------------------------------------------------------------


def package(module: object) -> Path:
    """Return the folder of a package."""
    return Path(str(module.__file__)).parent  # type: ignore[attr-defined]


def pictures(folders: Sequence[Path], rng: np.random.Generator) -> dict[str, list[Pixels]]:
    """Return crops of the JPEG, PNG and WebP files in some folders."""
    files = [
        file
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
    ]
    found = {}
    for file in files:
        with Image.open(file) as picture:
            picture.thumbnail((800, 800))
            found[str(file)] = crops(np.asarray(picture.convert("L")), rng)
    return found


def crops(image: Pixels, rng: np.random.Generator) -> list[Pixels]:
    """Return a picture and twenty random parts of it, a quarter each inverted, turned, or cut to an ellipse."""
    found = [image]
    for number in range(20):
        side = int(min(image.shape) * rng.uniform(0.2, 1))
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape)
        part = image[top : top + side, left : left + side]
        found.append([part, 255 - part, np.rot90(part), oval(part)][number % 4])
    return found


def oval(image: Pixels) -> Pixels:
    """Return a picture in an ellipse on black."""
    y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    return np.where((y / 0.85) ** 2 + (x / 0.65) ** 2 < 1, image, 0).astype(np.uint8)


def drawn(rng: np.random.Generator) -> Iterator[tuple[str, list[Pixels]]]:
    """Yield pictures made here: noise of several grains, discs, rings, shapes, text, blanks."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    clouds = [gaussian_filter(rng.normal(size=(SIDE, SIDE)), rng.uniform(1, 12)) for _ in range(40)]
    clouds = [((one - one.min()) / np.ptp(one) * 255).astype(np.uint8) for one in clouds]
    far = [(y / rng.uniform(0.5, 0.95)) ** 2 + (x / rng.uniform(0.5, 0.95)) ** 2 for _ in range(40)]
    yield "noise", list(rng.integers(0, 256, (40, SIDE, SIDE), dtype=np.uint8))
    yield "clouds", clouds
    yield "clouds in an ellipse", [oval(one) for one in clouds]
    yield "discs", [np.where(one < 1, 220 - 100 * one, 0).astype(np.uint8) for one in far]
    yield "rings", [np.where(one < 1, 127 + 127 * np.cos(15 * one), 0).astype(np.uint8) for one in far]
    yield "shapes", [shapes(rng) for _ in range(40)]
    yield "text", [text(rng) for _ in range(40)]
    yield "blanks", [np.full((SIDE, SIDE), grey, np.uint8) for grey in range(0, 256, 32)]


def shapes(rng: np.random.Generator) -> Pixels:
    """Return ellipses in random places."""
    picture = Image.new("L", (SIDE, SIDE))
    for _ in range(int(rng.integers(2, 12))):
        (left, right), (top, bottom) = np.sort(rng.integers(0, SIDE, (2, 2))).tolist()
        ImageDraw.Draw(picture).ellipse((left, top, right + 1, bottom + 1), fill=int(rng.integers(0, 256)))
    return np.asarray(picture)


def text(rng: np.random.Generator) -> Pixels:
    """Return lines of letters."""
    picture = Image.new("L", (SIDE, SIDE), int(rng.integers(0, 2)) * 255)
    for line in range(12):
        letters = bytes(rng.integers(97, 123, 14).tolist()).decode()
        ImageDraw.Draw(picture).text((int(rng.integers(0, 60)), 10 * line), letters, fill=128)
    return np.asarray(picture)


def faces() -> dict[str, list[Pixels]]:
    """Return scikit-image's two hundred small photographs, half of them of faces."""
    small = np.load(package(skimage) / "data/lfw_subset.npy", allow_pickle=False)
    return {str(number): [(one * 255).astype(np.uint8)] for number, one in enumerate(small)}


def dicom_pictures() -> dict[str, list[Pixels]]:
    """Return the pictures of pydicom's test files: CT, ultrasound, radiographs, knees."""
    found: dict[str, list[Pixels]] = {}
    for file in sorted((package(pydicom) / "data/test_files").rglob("*")):
        try:
            data = pydicom.dcmread(BytesIO(file.read_bytes()))
            pixels = np.asarray(data.pixel_array, dtype=np.float64)
        except Exception:  # noqa: S112 - many of them are damaged on purpose
            continue
        if pixels.ndim == 3 and pixels.shape[-1] != 3:
            pixels = pixels[len(pixels) // 2]
        pixels = pixels.mean(axis=-1) if pixels.ndim == 3 else pixels
        if pixels.ndim == 2:
            scaled = (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1) * 255
            found.setdefault(str(data.get("Modality", "?")), []).append(scaled.astype(np.uint8))
    return found


# --- near ---------------------------------------------------------------------------------------------------------


def near_volumes(folders: Sequence[Path]) -> Iterator[tuple[str, Volume]]:
    """Yield nilearn's MNI152 and its tissue maps, and the volumes of some folders; small heads at human size."""
    own = package(nilearn) / "datasets/data"
    for file in [
        *sorted(own.glob("mni*.nii.gz")),
        *(one for folder in folders for one in sorted(folder.glob("*.nii.gz"))),
    ]:
        try:
            volume = decode_nifti(file.read_bytes(), file.name)
        except DataError as error:
            print(error)
            continue
        low, high = box(volume)
        scale = max(1.0, 170 / (high - low)[1])
        name = (
            file.name.removesuffix(".nii.gz")
            .removeprefix("mni_icbm152_")
            .removesuffix("_tal_nlin_sym_09a_converted")
        )
        yield name, Volume(volume.voxels, np.diag([scale, scale, scale, 1.0]) @ volume.affine)


def box(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners, in millimetres, of what is bright."""
    bright = np.stack(np.nonzero(volume.voxels > 0.15 * np.percentile(volume.voxels, 99.5)))
    low, high = np.quantile(mapped(volume.affine, bright.astype(np.float64)), [0.002, 0.998], axis=1)
    return low, high


def cuts(volume: Volume, plane: str) -> list[Pixels]:
    """Return 24 cuts through the middle half of a head, framed as the training slices: 187 by 221 mm."""
    low, high = box(volume)
    (x, y, z), extent = (low + high) / 2, high - low
    down, across = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE), indexing="ij")
    same = np.ones_like(down)
    found = []
    for share in np.linspace(-0.25, 0.25, 24):
        points = {
            "axial": (x - 93.5 * across, y + 110.5 * down, (z + share * extent[2]) * same),
            "coronal": (x - 93.5 * across, (y + share * extent[1]) * same, z - 110.5 * down),
            "sagittal": ((x + share * extent[0]) * same, y + 110.5 * across, z - 93.5 * down),
        }[plane]
        values = sample(volume, np.stack([one.ravel() for one in points])).reshape(SIDE, SIDE)
        found.append((values * (237 / max(float(np.percentile(values, 99)), 1e-6))).clip(0, 255).astype(np.uint8))
    return found


def inverted(image: Pixels) -> Pixels:
    """Return a head with dark tissue bright, about as T2 weighting shows it."""
    return np.where(image > 20, 255 - image, 0).astype(np.uint8)


def resized(image: Pixels, side: int = SIDE) -> Pixels:
    """Return a picture at another size."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def tilted(image: Pixels, degrees: float) -> Pixels:
    """Return a picture turned by some degrees."""
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "left for right": lambda image: image[:, ::-1],
    "turned by 5 degrees": lambda image: tilted(image, 5),
    "at a third of the resolution": lambda image: resized(image, 43),
    "stretched by 14 %": lambda image: resized(image[8:120]),
    "turned by 15 degrees": lambda image: tilted(image, 15),
    "moved by 6 pixels": lambda image: np.roll(image, 6, axis=0),
    "cropped to 80 %": lambda image: image[13:115, 13:115],
    "nose up": lambda image: image[::-1],
    "turned by 90 degrees": lambda image: np.rot90(image),
    "inverted": inverted,
    "one half": lambda image: np.where(np.arange(SIDE) < SIDE // 2, image, 0).astype(np.uint8),
}


if __name__ == "__main__":
    main()
