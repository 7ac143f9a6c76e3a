"""Pages that quote a benchmark: what they quote is what it printed."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
LINK = re.compile(r"\(\.\./benchmarks/(\w+)\.md\)")
BLOCK = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)


def quotations():
    """Yield benchmarks and lines of each block of output in a section that links to benchmarks."""
    for page in sorted(DOCS.rglob("*.md")):
        for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            names = LINK.findall(section)
            for block in BLOCK.findall(section) if names else ():
                yield pytest.param(names, block.splitlines(), id=f"{page.stem}: {section.partition(chr(10))[0]}")


@pytest.mark.parametrize(("names", "lines"), quotations())
def test_each_line_was_printed_by_a_benchmark(names, lines):
    printed = [
        line for name in names for line in (DOCS / "benchmarks" / f"{name}.md").read_text("utf-8").splitlines()
    ]
    starts = [line.removesuffix("…") for line in lines if line.endswith("…")]
    assert not set(lines) - set(printed) - {f"{start}…" for start in starts}
    assert all(any(line.startswith(start) for line in printed) for start in starts)


def test_the_pages_that_explain_figures_are_among_them():
    assert len(list(quotations())) >= 5
