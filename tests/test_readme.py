"""The README: short, and no figure in it that a benchmark did not print."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "benchmarks").glob("*.md"))
REPORTED = {"0.9078"}
"""Figures of the report that the project follows, which no benchmark of ours prints."""


def test_it_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("figure", sorted(set(re.findall(r"\b[01]\.\d{3,4}\b", README)) - REPORTED))
def test_each_figure_was_printed_by_a_benchmark(figure):
    assert re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", BENCHMARKS)


def test_its_pictures_are_there():
    pictures = re.findall(r"!\[[^\]]*\]\((docs/[^)]+)\)", README)
    assert len(pictures) == 2
    assert all((ROOT / picture).is_file() for picture in pictures)
