"""A built page may load nothing from elsewhere: no script, style, font or picture. Links may lead anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LOADING_LINKS = {"stylesheet", "preload", "preconnect", "modulepreload", "icon", "font", "dns-prefetch"}
FOREIGN = re.compile(r"(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:@import\s+|url\(\s*)["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class _Loads(HTMLParser):
    """Collects the addresses that a browser loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        loads = [values[name] for name in ("src", "srcset", "poster", "data") if name in values]
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").lower().split()):
            loads.append(values.get("href", ""))
        self.addresses += [address for address in loads if FOREIGN.match(address)]
        self.addresses += IN_STYLE.findall(values.get("style", ""))


def foreign_addresses(text: str) -> list[str]:
    """Return the addresses of other sites that a page or a style sheet loads by itself."""
    parser = _Loads()
    parser.feed(text)
    return [*parser.addresses, *IN_STYLE.findall(text)]


def check_site(folder: Path) -> Iterator[str]:
    """Yield a sentence for each file of a built site that loads something from elsewhere."""
    for path in sorted([*folder.rglob("*.html"), *folder.rglob("*.css")]):
        for address in foreign_addresses(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(folder)}: loads {address}; a page may load nothing from elsewhere"


def _check(app: Sphinx, error: Exception | None) -> None:
    from sphinx.util import logging

    if error is None and app.builder.format == "html":
        for sentence in check_site(Path(app.outdir)):
            logging.getLogger(__name__).warning(sentence)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx; with warnings as errors a page that loads from elsewhere ends the build."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
