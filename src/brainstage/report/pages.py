"""Pages from templates of the package, with pictures embedded."""

from __future__ import annotations

import base64
import io
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, select_autoescape
from PIL import Image

from brainstage.core.arrays import Pixels
from brainstage.core.files import write_text
from brainstage.core.schema import RESEARCH_NOTICE


def write_page(target: Path, template: str, content: dict[str, Any]) -> Path:
    """Write a page, whole or not at all, and return it.

    Args:
        target: The HTML or Markdown file.
        template: As for :func:`render_page`.
        content: As for :func:`render_page`.
    """
    write_text(target, render_page(template, content))
    return target


def render_page(template: str, content: dict[str, Any]) -> str:
    """Return a page.

    Args:
        template: Name of a file in ``templates``.
        content: Variables of the template, beside ``notice``, the research-use notice.
    """
    pages = Environment(
        loader=FunctionLoader(_template),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(template).render({"notice": RESEARCH_NOTICE, **content})


def _template(name: str) -> str:
    return files("brainstage.report").joinpath("templates", name).read_text(encoding="utf-8")


def plain(text: str) -> str:
    """Return a name without what Markdown or HTML would read as more than a name."""
    return re.sub(r"[\s|<>`\[\]]+", " ", text).strip()


def jpeg_uri(picture: Pixels, quality: int = 85) -> str:
    """Return a picture, uint8 of shape (H, W) or (H, W, 3), as the ``data:`` address of a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=quality)
    return data_uri(stream.getvalue(), "jpeg")


def data_uri(picture: bytes, kind: str) -> str:
    """Return a picture as a ``data:`` address; ``kind`` is ``png`` or ``jpeg``."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")
