"""Text for a terminal: what a file is called could hold the commands of one."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text in which characters that are not printable are escapes; ends of lines stay."""
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)
