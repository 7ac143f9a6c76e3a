"""The page of the HTTP API, from the schema that the server itself gives under ``/openapi.json``."""

from __future__ import annotations

import asyncio
import json
from typing import Any


def pages() -> dict[str, str]:
    """Return the page of the API: path below ``docs/``, Markdown."""
    return {"reference/http-api.md": "\n".join([*_introduction(), *_addresses(schema()), *_problems()]) + "\n"}


def schema() -> dict[str, Any]:
    """Return the schema of a server of the bundled models."""
    from brainstage.serve.app import create_app
    from brainstage.serve.registry import ModelRegistry

    registry = ModelRegistry(["patient", "compact"])
    try:
        return json.loads(asyncio.run(_get(create_app(registry, ["127.0.0.1"]), "/openapi.json")))
    finally:
        registry.close()


async def _get(app: Any, path: str) -> bytes:
    """Ask an ASGI application for a path, without a server."""
    received: list[bytes] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        received.append(message.get("body", b""))

    await app(scope, receive, send)
    return b"".join(received)


def _introduction() -> list[str]:
    return [
        "# HTTP API",
        "",
        "`brainstage serve` answers under these addresses. `/openapi.json` has the same for programs.",
        "[Serve](../how-to/serve.md) says how to start it for one machine or for a laboratory.",
        "",
        "```{code-block} bash",
        "curl -F files=@slice-1.png -F files=@slice-2.png -F one_person=true http://127.0.0.1:8000/v1/predict",
        "```",
        "",
        "Every reply has the research-use notice, every prediction the model's hash, protocol and leakage verdict.",
        "A server that asks for a token takes it as `Authorization: Bearer TOKEN`.",
        "",
    ]


def _addresses(about: dict[str, Any]) -> list[str]:
    lines = []
    for path, methods in about["paths"].items():
        for method, operation in methods.items():
            lines += [f"## {method.upper()} {path}", "", operation.get("description", operation["summary"]), ""]
            form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema")
            if form:
                lines += ["A form (`multipart/form-data`):", "", *_fields(form)]
            lines += ["| status | what |", "| --- | --- |"]
            lines += [f"| {status} | {_cell(reply)} |" for status, reply in operation["responses"].items()]
            reply = operation["responses"]["200"]["content"]["application/json"]["schema"]
            lines += ["", "The reply (`application/json`):", "", *_reply(reply), ""]
    return lines


def _reply(schema: dict[str, Any], within: str = "") -> list[str]:
    """List the fields of an object, and after each the fields of the objects in it."""
    lines = []
    for name, field in schema.get("properties", {}).items():
        lines += [f"- `{within}{name}`" + (f": {field['description']}" if field.get("description") else "")]
        items, mark = (field["items"], "[]") if "items" in field else (field, "")
        lines += _reply(items, f"{within}{name}{mark}.")
    return lines


def _fields(form: dict[str, Any]) -> list[str]:
    lines = []
    for name, field in form["properties"].items():
        facts = ["required"] if name in form.get("required", ()) else []
        facts += ["one of " + ", ".join(f"`{value}`" for value in field["enum"])] if "enum" in field else []
        facts += [f"default `{json.dumps(field['default'])}`"] if "default" in field else []
        text = " ".join(field.get("description", "").split())
        lines += [f"`{name}`", f": {text} *{', '.join(facts)}.*" if facts else f": {text}", ""]
    return lines


def _cell(reply: dict[str, Any]) -> str:
    return " ".join(reply["description"].split("; `code`")[0].split())


def _problems() -> list[str]:
    from brainstage.serve.problems import TITLES

    lines = [
        "## Errors",
        "",
        "An error is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Its `code`",
        "never changes its meaning; `detail` says in one sentence what is wrong and what to do.",
        "",
        "| code | meaning |",
        "| --- | --- |",
    ]
    return [*lines, *(f"| `{code}` | {title} |" for code, title in TITLES.items()), ""]
