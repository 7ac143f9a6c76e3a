"""The application: addresses of the API, and the page."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from numpy.typing import NDArray
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from brainstage import __version__
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.report.explanations import draw
from brainstage.scans.discover import Scan
from brainstage.serve.guard import UNFORESEEN, Limits, RequestGuard
from brainstage.serve.problems import TITLES, Problem
from brainstage.serve.registry import ModelRegistry, identity
from brainstage.serve.uploads import numbers, read_upload

_FILES = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
    "description": (
        "JPEG, PNG, NIfTI or DICOM files, told by content. Files of one DICOM series are one scan. File names are "
        "not used."
    ),
}
_MODEL = {"type": "string", "description": "One of those of /v1/models; without it the default."}
PREDICT_FORM = {
    "files": _FILES,
    "model": _MODEL,
    "one_person": {"type": "boolean", "description": "All are of one person: one answer from all, then each."},
    "pictures": {"type": "boolean", "description": "Give each slice as the model saw it, a PNG in base64."},
}
EXPLAIN_FORM = {
    "files": {**_FILES, "description": f"One scan. {_FILES['description']}"},
    "model": _MODEL,
    "method": {
        "type": "string",
        "enum": ["grad-cam", "integrated-gradients", "occlusion"],
        "description": "Without it the one that suits the model.",
    },
    "stage": {"type": "string", "description": "Stage to explain, in place of the answered one."},
}
_PROBLEM = {
    "description": f"A problem, `code` one of: {', '.join(TITLES)}",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "code", "detail", "notice"],
                "properties": {
                    **{name: {"type": "string"} for name in ("type", "title", "detail", "notice")},
                    "status": {"type": "integer"},
                    "code": {"type": "string", "enum": list(TITLES)},
                },
            }
        }
    },
}


def create_app(registry: ModelRegistry, hosts: Collection[str], limits: Limits | None = None) -> RequestGuard:
    """Return the ASGI application.

    Args:
        registry: The models.
        hosts: Names under which it may be asked.
        limits: How much it takes.
    """
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        registry.close()

    app = FastAPI(
        title="brainstage",
        version=__version__,
        description=f"Stages dementia from brain MRI slices. {RESEARCH_NOTICE}",
        docs_url=None,  # they load scripts and fonts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    guard = RequestGuard(app, hosts, limits)
    _add_problems(app)
    _add_state(app, registry, guard)
    _add_api(app, registry, limits)
    app.mount("/page", StaticFiles(directory=str(files("brainstage.serve").joinpath("static")), html=True))
    return guard


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    def _problem(_request: Request, problem: Problem) -> Response:
        return problem.response()

    @app.exception_handler(Exception)
    def _unforeseen(_request: Request, _error: Exception) -> Response:  # RequestGuard writes it to the log
        return UNFORESEEN.response()

    @app.exception_handler(HTTPException)
    def _of_framework(_request: Request, error: HTTPException) -> Response:
        known = {
            404: Problem(404, "not-found", "see /openapi.json for the addresses of the API"),
            405: Problem(405, "method-not-allowed", "see /openapi.json for the addresses of the API"),
        }
        problem = known.get(error.status_code)
        return (problem or Problem(error.status_code, "bad-form", "the request cannot be read")).response()


def _add_state(app: FastAPI, registry: ModelRegistry, guard: RequestGuard) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> RedirectResponse:
        return RedirectResponse("/page/")

    @app.get("/health", summary="Whether the server runs")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__, "notice": RESEARCH_NOTICE}

    @app.get("/ready", summary="Whether it takes requests", responses={503: _PROBLEM})
    async def ready() -> dict[str, Any]:
        guard.check_room()
        return {"status": "ready", "models": registry.names, "notice": RESEARCH_NOTICE}


def _add_api(app: FastAPI, registry: ModelRegistry, limits: Limits) -> None:
    @app.get("/v1/models", summary="The models, and what each is worth on people it has not seen")
    async def models() -> dict[str, Any]:
        return {"notice": RESEARCH_NOTICE, "models": registry.describe()}

    @app.post("/v1/predict", summary="Stage scans", **_takes_form(PREDICT_FORM))
    async def predict(request: Request) -> JSONResponse:
        upload = await read_upload(request, limits.files)
        scans = await registry.scans(upload.files)
        answers, people = await registry.predict(upload.fields.get("model"), scans, upload.flag("one_person"))
        rows = _numbered(answers.rows, scans)
        if upload.flag("pictures"):
            images = [{"picture": image} for person in people for image in person.images]
            rows = await asyncio.to_thread(_pictured, rows, images)
        model = identity(registry.model(upload.fields.get("model")).predictor)
        return JSONResponse(
            {
                "notice": answers.notice,
                "model": model,
                "calibrated": answers.calibrated,
                "classes": answers.classes,
                "predictions": rows,
            }
        )

    @app.post("/v1/explain", summary="Show what moved the score of a scan", **_takes_form(EXPLAIN_FORM))
    async def explain(request: Request) -> JSONResponse:
        upload = await read_upload(request, limits.files)
        scans = await registry.scans(upload.files)
        if len(scans) > 1:
            raise Problem(400, "several-scans", f"found {len(scans)} scans; send the files of one")
        fields = upload.fields
        found, maps = await registry.explain(
            fields.get("model"), scans[0], fields.get("method"), fields.get("stage") or None
        )
        images = [{"picture": one.image, "overlay": draw(one)} for one in maps]
        rows = await asyncio.to_thread(_pictured, _numbered([one.row for one in maps], scans), images)
        model = identity(registry.model(fields.get("model")).predictor)
        return JSONResponse({"notice": found.notice, "model": model, "method": found.method, "maps": rows})


def _takes_form(fields: dict[str, Any]) -> dict[str, Any]:
    """Return how OpenAPI describes a form, which is read by hand: its names are not to be kept."""
    schema = {"type": "object", "required": ["files"], "properties": fields}
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    return {"openapi_extra": {"requestBody": body}, "responses": {"default": _PROBLEM}}


def _numbered(rows: Sequence[dict[str, Any]], scans: Sequence[Scan]) -> list[dict[str, Any]]:
    """Return rows that name their files by their numbers in the request."""
    of_scan, of_all = {scan.name: numbers([scan]) for scan in scans}, numbers(scans)
    return [_without_source(row, of_scan.get(row["source"], of_all)) for row in rows]


def _without_source(row: dict[str, Any], files: list[int]) -> dict[str, Any]:
    reason = row["reason"] and row["reason"].removeprefix(f"{row['source']}: ")
    return {"files": files, **{key: row[key] for key in row if key != "source"}, "reason": reason}


def _pictured(
    rows: Sequence[dict[str, Any]], images: Sequence[dict[str, NDArray[np.uint8] | None]]
) -> list[dict[str, Any]]:
    """Return rows with their images as PNG in base64; in a thread: hundreds take as many milliseconds."""
    return [
        {**row, **{name: _png(image) for name, image in of_row.items()}}
        for row, of_row in zip(rows, images, strict=True)
    ]


def _png(image: NDArray[np.uint8] | None) -> str | None:
    """Return a picture as PNG in base64."""
    if image is None:
        return None
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
