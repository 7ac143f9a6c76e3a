"""Every relative link leads somewhere, and nothing is loaded from elsewhere."""

import re
from pathlib import Path

import pytest

from documentation import DOCS, ROOT
from self_contained import check_site, foreign_addresses

LINK = re.compile(r"(?<!\\)\]\(<?([^)\s>]+)>?\)|^```\{(?:image|figure|include)\}\s+(\S+)", re.MULTILINE)
DOOR = re.compile(r'<a class="door" href="([^"]+)"')
FENCE = re.compile(r"^(`{3,}|:{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
READ_BY_PEOPLE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


def anchors(text):
    """Return the anchors of a page's headings, as MyST and GitHub name them."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def is_tutorial(target, site):
    """Return whether a page is one that the gallery writes."""
    examples = site / "examples"
    return target.parent == site / "tutorials" and (
        target.stem == "index" or (examples / f"{target.stem}.py").is_file()
    )


def broken_links(page, site):
    text = page.read_text(encoding="utf-8")
    broken = []
    for groups in LINK.findall(text):
        link = "".join(groups)
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if is_tutorial(target, site):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


@pytest.mark.parametrize(
    "name", sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if "_build" not in path.parts)
)
def test_links_of_a_page(name, site):
    page = site / name
    if not page.is_file():
        pytest.skip("left over from an earlier build")
    assert broken_links(page, site) == []


def test_links_of_the_pages_that_the_code_writes(site):
    written = [*(site / "reference" / "commands").glob("*.md"), *(site / "reference" / "model-cards").glob("*.md")]
    assert len(written) > 20
    for page in [*written, site / "reference" / "settings.md", site / "reference" / "http-api.md"]:
        assert broken_links(page, site) == [], page.name


@pytest.mark.parametrize("page", READ_BY_PEOPLE, ids=lambda page: page.name)
def test_links_of_the_files_at_the_root(page):
    assert broken_links(page, DOCS) == []


def test_doors_of_the_first_page_lead_to_pages(site):
    doors = DOOR.findall((site / "index.md").read_text())
    assert len(doors) >= 6
    for door in doors:
        target = site / door
        assert is_tutorial(target, site) or target.with_suffix(".md").is_file(), door


def test_a_broken_link_is_noticed(site, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `code`, 2 words\n\n[a](#a-code-2-words) [b](#b) [c](no.md) [d](https://e.org/f)")
    assert broken_links(page, site) == ["#b", "no.md"]


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ('<script src="https://cdn.org/x.js"></script>', ["https://cdn.org/x.js"]),
        ('<link rel="stylesheet" href="//fonts.org/css">', ["//fonts.org/css"]),
        ('<img src="http://badge.org/b.svg">', ["http://badge.org/b.svg"]),
        ("@import 'https://fonts.org/a.css';", ["https://fonts.org/a.css"]),
        ("@font-face { src: url(https://fonts.org/a.woff2) }", ["https://fonts.org/a.woff2"]),
        ('<a href="https://e.org">e</a> <link rel="canonical" href="https://e.org/"> <img src="a.png">', []),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_noticed(text, loads):
    assert foreign_addresses(text) == loads


def test_the_theme_and_our_styles_load_nothing_from_elsewhere():
    furo = pytest.importorskip("furo")
    assert list(check_site(DOCS / "_static")) == []
    assert list(check_site(Path(furo.__file__).parent)) == []
