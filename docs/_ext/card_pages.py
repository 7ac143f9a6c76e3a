"""The cards of the bundled models, as they lie beside their weights."""

from __future__ import annotations

from importlib.resources import files


def pages() -> dict[str, str]:
    """Return a page for each bundled model and their index: path below ``docs/``, Markdown."""
    from brainstage.models.weights import BUNDLED

    cards = {f"reference/model-cards/{name}.md": _card(name) for name in BUNDLED}
    return {"reference/model-cards/index.md": _index(list(BUNDLED)), **cards}


def _index(names: list[str]) -> str:
    return "\n".join(
        [
            "# Model cards",
            "",
            "Two models come with the package. Each card stands beside its weights too, and `brainstage push`",
            "writes one for a run that is published.",
            "",
            *(f"- [](./{name}.md)" for name in names),
            "",
            "What a model's file tells about the people it was fitted on:",
            "[data statement](../../explanation/data-statement.md).",
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *names,
            "```",
            "",
        ]
    )


def _card(name: str) -> str:
    text = (files("brainstage.models.weights") / name / "README.md").read_text(encoding="utf-8")
    return text.split("\n---\n", 1)[1].lstrip() if text.startswith("---\n") else text
