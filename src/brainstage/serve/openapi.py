"""What OpenAPI says about the forms and the problems of the API.

Forms are read by hand (:mod:`brainstage.serve.uploads`), so that nothing of a file's name is kept; their
description is written by hand too. ``tests/serve/test_contract.py`` sends what it allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from brainstage.inference.attribution import CONTRIBUTIONS
from brainstage.serve.problems import TITLES
from brainstage.serve.registry import LoadedModel, ModelRegistry

PREDICT_FIELDS = ("model", "one_person", "pictures")
EXPLAIN_FIELDS = ("model", "one_person", "method", "stage")
PROBLEM: dict[str, Any] = {
    "description": f"A problem; `code` is one of {', '.join(TITLES)}",
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


def predict_form(registry: ModelRegistry, max_files: int) -> dict[str, Any]:
    """Return the schema of the form of ``/v1/predict``."""
    return _form(
        {
            "files": _files(max_files),
            "model": _model(registry.names),
            "one_person": {
                "type": "boolean",
                "default": False,
                "description": "All files show one person: one prediction from all of them, then one for each.",
            },
            "pictures": {
                "type": "boolean",
                "default": False,
                "description": "Return each slice as the model was given it, a PNG in base64.",
            },
        }
    )


def scans_form(max_files: int) -> dict[str, Any]:
    """Return the schema of the form of ``/v1/scans``."""
    return _form({"files": _files(max_files)})


def explain_form(registry: ModelRegistry, max_files: int) -> dict[str, Any]:
    """Return the schema of the form of ``/v1/explain``: each model has its methods and its stages."""
    models = [registry.model(name) for name in registry.names]
    form = _form(
        {
            "files": _files(max_files),
            "model": _model(registry.names),
            "one_person": {
                "type": "boolean",
                "default": False,
                "description": "All files show one person: their slices are explained together.",
            },
            "method": {
                "enum": sorted({method for model in models for method in model.methods}),
                "description": (
                    "Without it the one that suits the model, `explained_by` of /v1/models, or the stage: "
                    "contributions are to the score behind all stages, and take none."
                ),
            },
            "stage": {
                "enum": list(dict.fromkeys(stage for model in models for stage in model.predictor.classes)),
                "description": "The stage to explain; without it the predicted one.",
            },
        }
    )
    default = {"properties": _choices(models[0]), "not": {"required": ["model"]}}
    named = [
        {"properties": {**_choices(model), "model": {"const": model.name}}, "required": ["model"]}
        for model in models
    ]
    whatever_the_stage = {"properties": {"method": {"const": CONTRIBUTIONS}}, "required": ["method", "stage"]}
    return {**form, "anyOf": [default, *named], "not": whatever_the_stage}


def takes_form(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what OpenAPI says of a route that takes a form."""
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def describe_api(app: FastAPI, registry: ModelRegistry, max_files: int, cookie: str | None) -> dict[str, Any]:
    """Return the description of the API, with the methods and the stages of all models: it opens them.

    Args:
        app: The application.
        registry: The models.
        max_files: Most files of a request.
        cookie: Name of the token's cookie; None where no token is needed.
    """
    schema = app.openapi()
    schema["paths"]["/v1/explain"]["post"].update(takes_form(explain_form(registry, max_files)))
    if cookie:
        add_security(schema, cookie)
    return schema


def add_security(schema: dict[str, Any], cookie: str) -> None:
    """State in a description of the API that the token is needed, and how it is shown.

    Args:
        schema: The description, which is changed.
        cookie: Name of the cookie.
    """
    schema.setdefault("components", {})["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "The token that the server printed."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": cookie, "description": "What a browser has for it."},
    }
    schema["security"] = [{"token": []}, {"cookie": []}]
    schema["paths"]["/health"]["get"]["security"] = []


def _form(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": ["files"], "properties": properties, "additionalProperties": False}


def _files(max_files: int) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "maxItems": max_files,
        "description": (
            "JPEG, PNG, NIfTI or DICOM files, recognised by their content. Files of one DICOM series are one scan. "
            "File names are not used."
        ),
    }


def _model(names: Sequence[str]) -> dict[str, Any]:
    return {"enum": list(names), "default": names[0], "description": "A name that /v1/models lists."}


def _choices(model: LoadedModel) -> dict[str, Any]:
    return {"method": {"enum": model.methods}, "stage": {"enum": list(model.predictor.classes)}}
