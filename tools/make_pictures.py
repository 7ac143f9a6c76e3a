"""Remake the pictures of the README.

    python tools/make_pictures.py

writes docs/pictures/page.png, what ``brainstage serve`` shows of the example volume, a phantom; and
docs/pictures/leak.png, figures of docs/benchmarks/claims.md. Needs Chromium and the extras of developers. A minute.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "pictures"
ROWS = {
    "nearest training slice, untrained": ("nearest training slice,\nnothing trained", "#000000", "s"),
    "compact": ("network compact", "#D55E00", "o"),
    "small CNN": ("small CNN", "#0072B2", "^"),
}
LARGEST = "always the largest class"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Figures(NamedTuple):
    """Share of test slices that are right, with its 95 % interval."""

    value: float
    low: float
    high: float


def main() -> None:
    """Draw both."""
    PICTURES.mkdir(exist_ok=True)
    draw_leak(PICTURES / "leak.png", read_claims(DOCS / "benchmarks" / "claims.md"))
    show_page(PICTURES / "page.png")


def read_claims(page: Path) -> dict[str, tuple[Figures, Figures]]:
    """Return each recipe's figures on people in the training set and on people not in it."""
    rows = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = re.findall(r"(\d\.\d+) (\d\.\d+)–(\d\.\d+)", line)
        if len(cells) == 3:  # official, by slice, patient
            official, _, patient = (Figures(*map(float, cell)) for cell in cells)
            rows[re.split(r"\s{2,}", line)[0]] = official, patient
    return rows


def draw_leak(target: Path, rows: dict[str, tuple[Figures, Figures]]) -> None:
    """Draw how accuracy falls from people in the training set to people not in it."""
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    largest = rows[LARGEST][1].value
    axes.axhline(largest, linestyle=":", color="0.4")
    axes.annotate(f"always Non, {largest:.2f}", (0.04, largest), (0, -12), textcoords="offset points", color="0.3")
    for number, (name, (label, colour, marker)) in enumerate(ROWS.items()):
        places = [0.25 + 0.06 * number, 0.75 + 0.06 * number]
        values = [figures.value for figures in rows[name]]
        spread = [[f.value - f.low for f in rows[name]], [f.high - f.value for f in rows[name]]]
        axes.errorbar(places, values, yerr=spread, color=colour, marker=marker, capsize=3, label=label)
    axes.set(xlim=(0, 1.12), ylim=(0.38, 1.03), ylabel="accuracy, four stages")
    axes.set_xticks([0.31, 0.81], ["people in the\ntraining set", "people not in the\ntraining set"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(0, 0.45), fontsize=9)
    figure.savefig(target, dpi=160)


def show_page(target: Path) -> None:
    """Drop the example volume on the page and save what it shows."""
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as name, serving() as address, sync_playwright() as playwright:
        run("data", "example", "--out", name)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--use-gl=angle", "--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000}, device_scale_factor=1.5)
        page.goto(address)
        page.set_input_files("#files", str(Path(name) / "brain.nii.gz"))
        page.wait_for_selector("#planes[data-drawn]", timeout=120_000)
        page.screenshot(path=target)
        browser.close()


@contextmanager
def serving() -> Iterator[str]:
    """Serve the bundled model and yield the address of its page."""
    command = [sys.executable, "-m", "brainstage", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield re.findall(r"http://\S+", line)[0]
        finally:
            process.terminate()


def run(*words: str) -> None:
    """Run a command of brainstage."""
    subprocess.run([sys.executable, "-m", "brainstage", *words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
