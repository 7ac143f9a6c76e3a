"""The application: the addresses of the API, and the page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from brainstage import __version__
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.datasets.patient_map import is_public
from brainstage.inference.explanations import SliceExplanation
from brainstage.inference.predictions import Predictions
from brainstage.scans.discover import File, Scan, ScanInfo, number_patients, scans_of
from brainstage.serve.guard import UNFORESEEN, Limits, RequestGuard
from brainstage.serve.heads import CHECK, SkullRemoval
from brainstage.serve.openapi import (
    EXPLAIN_FIELDS,
    PREDICT_FIELDS,
    PROBLEM,
    describe_api,
    predict_form,
    scans_form,
    takes_form,
)
from brainstage.serve.pictures import png
from brainstage.serve.problems import Problem
from brainstage.serve.registry import ModelRegistry
from brainstage.serve.replies import EXPLANATIONS, HEALTH, MODELS, PREDICTIONS, READY, SCANS, reply
from brainstage.serve.tokens import PAGE, TokenCheck
from brainstage.serve.uploads import FOLDER, file_numbers, read_upload
from brainstage.serve.usage import Usage


def create_app(
    registry: ModelRegistry,
    hosts: Collection[str],
    limits: Limits | None = None,
    *,
    token: TokenCheck | None = None,
    usage: Usage | None = None,
) -> RequestGuard:
    """Return the ASGI application.

    Args:
        registry: The models.
        hosts: Whole names and addresses that the ``Host`` of a request may have.
        limits: How much the server takes.
        token: Lets requests with the token pass; None lets all.
        usage: What all worker processes use of the limits; None for one that works alone.
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
        docs_url=None,  # these pages load scripts and fonts from other sites
        redoc_url=None,
        openapi_url=None,  # it describes all models, which are opened for it
        lifespan=lifespan,
        max_body_size=limits.request_bytes,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_host_names(hosts), www_redirect=False)
    guard = RequestGuard(app, limits, token, usage)
    _add_problems(app, limits)
    _add_page(app, token)
    _add_state(app, registry, guard)
    _add_scans(app, registry, limits)
    _add_predict(app, registry, limits)
    _add_explain(app, registry, limits)
    _add_description(app, registry, limits, token)
    app.mount(PAGE, StaticFiles(directory=str(files("brainstage.serve").joinpath("static")), html=True))
    return guard


def _host_names(hosts: Collection[str]) -> list[str]:
    """Return hosts as they stand in a Host header, IPv6 addresses in brackets."""
    return [f"[{host}]" if ":" in host else host for host in hosts]


def _add_problems(app: FastAPI, limits: Limits) -> None:
    see = "see /openapi.json for the addresses of the API"

    @app.exception_handler(Problem)
    def answer_problem(_request: Request, problem: Problem) -> Response:
        return problem.response()

    @app.exception_handler(Exception)
    def answer_unforeseen(_request: Request, _error: Exception) -> Response:  # the guard writes it to the log
        return UNFORESEEN.response()

    @app.exception_handler(HTTPException)
    def answer_http(_request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:  # Starlette's static files do not say what they allow
            headers = error.headers or {"Allow": "GET, HEAD"}
            return Problem(405, "method-not-allowed", see).response(headers)
        known = {404: Problem(404, "not-found", see), 413: limits.body_too_large}
        problem = known.get(error.status_code)
        return (problem or Problem(error.status_code, "bad-form", "the request cannot be read")).response()


def _add_page(app: FastAPI, token: TokenCheck | None) -> None:
    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> RedirectResponse:
        reply = RedirectResponse(PAGE)
        if token and token.is_shown(request.scope):
            token.set_cookie(reply)
        return reply


def _add_state(app: FastAPI, registry: ModelRegistry, guard: RequestGuard) -> None:
    @app.get("/health", summary="Whether the server runs", responses=reply(HEALTH, "It runs."))
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__, "notice": RESEARCH_NOTICE}

    @app.get("/ready", summary="Whether it takes requests", responses={**reply(READY, "It does."), 503: PROBLEM})
    async def ready() -> dict[str, Any]:
        guard.check_room()
        return {"status": "ready", "models": registry.names, "notice": RESEARCH_NOTICE}

    @app.get(
        "/v1/models",
        summary="The models, and their performance on people outside their training sets",
        responses=reply(MODELS, "The models."),
    )
    async def models() -> dict[str, Any]:
        return {"notice": RESEARCH_NOTICE, "models": await registry.run_when_opened(registry.describe)}


def _add_description(app: FastAPI, registry: ModelRegistry, limits: Limits, token: TokenCheck | None) -> None:
    describe = partial(describe_api, app, registry, limits.files, token.cookie if token else None)

    @app.api_route("/openapi.json", methods=["GET", "HEAD"], include_in_schema=False)
    async def description() -> JSONResponse:
        return JSONResponse(await registry.run_when_opened(describe))


def _add_scans(app: FastAPI, registry: ModelRegistry, limits: Limits) -> None:
    @app.post(
        "/v1/scans",
        summary="List the scans that files hold, by their headers",
        openapi_extra=takes_form(scans_form(limits.files)),
        responses={**reply(SCANS, "The scans."), "default": PROBLEM},
    )
    async def scans(request: Request) -> JSONResponse:
        upload = await read_upload(request, limits.files, ())
        return JSONResponse(
            {"notice": RESEARCH_NOTICE, "scans": await registry.run(partial(_listed, upload.files))}
        )


def _add_predict(app: FastAPI, registry: ModelRegistry, limits: Limits) -> None:
    @app.post(
        "/v1/predict",
        summary="Stage scans",
        openapi_extra=takes_form(predict_form(registry, limits.files)),
        responses={**reply(PREDICTIONS, "The predictions."), "default": PROBLEM},
    )
    async def predict(request: Request) -> JSONResponse:
        upload = await read_upload(request, limits.files, PREDICT_FIELDS)
        model = await registry.opened(upload.fields.get("model"))
        one_person, with_pictures = upload.flag("one_person"), upload.flag("pictures")
        scans = await registry.run(partial(scans_of, upload.files))
        skulls = SkullRemoval(scans)
        predictions, pictures = await model.predict(skulls.scans, one_person, with_pictures)
        rows = _with_training_slices(predictions, _with_file_numbers(predictions.rows, scans))
        if with_pictures:
            rows = [{**row, "picture": picture} for row, picture in zip(rows, pictures, strict=True)]
        return JSONResponse(
            {
                "notice": " ".join([predictions.notice, *([CHECK] if skulls.extracted else [])]),
                "details": predictions.details,
                "version": __version__,
                "model": model.identity,
                "extracted": skulls.extracted,
                "training_slices": sum(row["training_slice"] for row in rows),
                "calibrated": predictions.calibrated,
                "classes": predictions.classes,
                "predictions": rows,
            }
        )


def _add_explain(app: FastAPI, registry: ModelRegistry, limits: Limits) -> None:
    @app.post(
        "/v1/explain",
        summary="Show what moved the score of a scan",
        responses={**reply(EXPLANATIONS, "The explanations."), "default": PROBLEM},
    )
    async def explain(request: Request) -> JSONResponse:
        upload = await read_upload(request, limits.files, EXPLAIN_FIELDS)
        model = await registry.opened(upload.fields.get("model"))
        one_person = upload.flag("one_person")
        scans = await registry.run(partial(scans_of, upload.files))
        explanations, people = await model.explain(
            scans, upload.fields.get("method"), upload.fields.get("stage"), one_person
        )
        slices = [item for person in people for item in person.slices]
        rows = await registry.run(partial(_drawn, _with_file_numbers(explanations.rows, scans), slices))
        return JSONResponse(
            {
                "notice": explanations.notice,
                "model": model.identity,
                "method": explanations.method,
                "people": [_without_name(person) for person in explanations.people],
                "maps": rows,
            }
        )


def _with_training_slices(predictions: Predictions, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows that say which slices show people in a bundled model's training set: it has a performance."""
    bundled = "performance" in predictions.about
    return [
        {**row, "training_slice": bundled and row["slice_id"] is not None and is_public(row["slice_id"])}
        for row in rows
    ]


def _with_file_numbers(rows: Sequence[dict[str, Any]], scans: Sequence[Scan]) -> list[dict[str, Any]]:
    """Return rows that name their files by the files' numbers in the request."""
    by_scan, all_numbers = {scan.name: file_numbers([scan]) for scan in scans}, file_numbers(scans)
    return [_without_source(row, by_scan.get(row["source"], all_numbers)) for row in rows]


def _without_name(person: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in person.items() if key != "source"}


def _without_source(row: dict[str, Any], numbers: list[int]) -> dict[str, Any]:
    # a series is named after its folder, but an error may name a file of it
    reason = row["reason"] and re.sub(rf"^{FOLDER}\b[^:]*: ", "", row["reason"])
    return {"files": numbers, **{key: row[key] for key in row if key != "source"}, "reason": reason}


def _listed(files: Sequence[File]) -> list[dict[str, Any]]:
    """Describe the scans of an upload without a name of theirs."""
    scans = scans_of(files)
    infos = [scan.describe() if scan.describe else ScanInfo("", "picture", slices=1) for scan in scans]
    return [
        {
            "files": file_numbers([scan]),
            **{key: value for key, value in info.to_dict().items() if key not in ("number", "source")},
        }
        for scan, info in zip(scans, number_patients(infos), strict=True)
    ]


def _drawn(rows: Sequence[dict[str, Any]], slices: Sequence[SliceExplanation]) -> list[dict[str, Any]]:
    """Return the rows of explanations with each slice and its overlay."""
    from brainstage.report.explanations import draw  # Matplotlib, for which predictions need not wait

    def drawn(row: dict[str, Any], explanation: SliceExplanation) -> dict[str, Any]:
        pictures = {"picture": explanation.image, "overlay": draw(explanation)}
        return row | {name: None if picture is None else png(picture) for name, picture in pictures.items()}

    return [drawn(row, explanation) for row, explanation in zip(rows, slices, strict=True)]
