"""Pictures as replies have them."""

from __future__ import annotations

import base64
import io

from PIL import Image

from brainstage.core.arrays import Pixels


def png(picture: Pixels) -> str:
    """Return a picture, uint8 of shape (H, W) or (H, W, 3), as PNG in base64; takes about a millisecond."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
