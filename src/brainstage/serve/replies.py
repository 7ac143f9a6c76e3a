"""What OpenAPI says about the replies of the API, field by field; ``tests/serve/test_contract.py`` compares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_YES_OR_NO: Schema = {"type": "boolean"}


def _told(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _object(fields: dict[str, Schema], *, optional: Iterable[str] = (), others: bool = False) -> Schema:
    """Return the schema of an object; ``others`` says whether it has fields that are not described."""
    required = [name for name in fields if name not in set(optional)]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": others}


def _list(items: Schema, description: str = "") -> Schema:
    return _told({"type": "array", "items": items}, description)


_NOTICE = _told(_TEXT, "Research software, never a diagnosis; and what else must be read with the reply.")
_VERSION = _told(_TEXT, "Version of brainstage.")
_FILES = _list(_COUNT, "Numbers of its files in the request, from 1.")
_PERSON = _told(_COUNT, "Number of the person, from 1.")
_LEVEL = _told(_or_null(_COUNT), "Level of the slice, from 0, the lowest; null of a person and where not known.")
_STATUS = _told({"enum": ["predicted", "refused", "failed"]}, "Whether there is a stage.")
_REASON = _told(_or_null(_TEXT), "Why there is none, and what to do.")
_PNG = _told(_or_null(_TEXT), "The slice as the model was given it, a PNG in base64.")
_IDENTITY = {
    "hash": _told(_TEXT, "SHA-256 of the model's weights."),
    "recipe": _told(_TEXT, "How it was trained."),
    "protocol": _told(_TEXT, "Protocol of its training: official or patient."),
    "leakage": _told(_object({}, others=True), "The leakage verdict, and the counts behind it."),
    "synthetic": _told(_YES_OR_NO, "Whether it was trained on phantoms, and says nothing about real brains."),
}
_MODEL = _told(_object(_IDENTITY), "The model that answered.")

HEALTH = _object({"status": _told({"const": "ok"}, "Always `ok`."), "version": _VERSION, "notice": _NOTICE})
READY = _object(
    {
        "status": _told({"const": "ready"}, "Always `ready`."),
        "models": _list(_TEXT, "Names of the models."),
        "notice": _NOTICE,
    }
)
MODELS = _object(
    {
        "notice": _NOTICE,
        "models": _list(
            _object(
                {
                    "name": _told(_TEXT, "What requests call it."),
                    "default": _told(_YES_OR_NO, "Whether it answers where none is named."),
                    **_IDENTITY,
                    "calibrated": _told(_YES_OR_NO, "Whether its probabilities are calibrated, with 90 % sets."),
                    "refuses": _told(_YES_OR_NO, "Whether it refuses what does not look like its training slices."),
                    "classes": _list(_TEXT, "Its stages, from the least to the most severe."),
                    "levels": _told(_TEXT, "The set of levels that it was trained on: public or brain."),
                    "explained_by": _told(_TEXT, "The method of /v1/explain where none is named."),
                    "performance": _told(
                        _or_null(_TEXT), "Its performance on people outside its training set, in a sentence."
                    ),
                    "people": _told(_or_null(_object({}, others=True)), "The people whom it was trained on."),
                    "details": _list(_TEXT, "What else must be known of it, a sentence each."),
                    "figures": _told(_object({}, others=True), "Its figures, each with its 95 % interval."),
                }
            ),
            "The models.",
        ),
    }
)
SCANS = _object(
    {
        "notice": _NOTICE,
        "scans": _list(
            _object(
                {
                    "files": _FILES,
                    "kind": _told(_TEXT, "DICOM, NIfTI or picture; unknown where it only looks like a scan."),
                    "modality": _told(_or_null(_TEXT), "DICOM's code, such as MR or CT."),
                    "slices": _told(_or_null(_COUNT), "Number of slices, where the header tells."),
                    "matrix": _told(_or_null(_list(_COUNT)), "Rows and columns of a slice."),
                    "spacing_mm": _list(_NUMBER, "Millimetres from row to row, column to column, slice to slice."),
                    "patient": _told(_COUNT, "Number of the patient, where the series show several."),
                },
                optional=["patient"],
            ),
            "The scans, in the order of their files.",
        ),
    }
)
PREDICTIONS = _object(
    {
        "notice": _NOTICE,
        "details": _list(_TEXT, "The performance and its limits, and how the stages are defined, a sentence each."),
        "version": _VERSION,
        "model": _MODEL,
        "extracted": _list(
            _object(
                {
                    "files": _FILES,
                    "similarity": _told(_NUMBER, "Similarity of the brain to the template, at most 1."),
                    "outline": _told(
                        {"type": "object", "additionalProperties": _TEXT},
                        "A cut of each plane with the edge of the brain, PNG in base64: look at them.",
                    ),
                    "brain": _told(_TEXT, "The brain that was taken out, a gzipped NIfTI file in base64."),
                }
            ),
            "Each head whose skull was taken off first.",
        ),
        "training_slices": _told(
            _COUNT, "How many slices are of the public dataset, which a bundled model was trained on."
        ),
        "calibrated": _told(_YES_OR_NO, "Whether the probabilities are calibrated; scores where not."),
        "classes": _list(_TEXT, "The stages, from the least to the most severe."),
        "predictions": _list(
            _object(
                {
                    "files": _FILES,
                    "person": _PERSON,
                    "slices": _told(_COUNT, "Number of slices that it is made from."),
                    "level": _LEVEL,
                    "slice_id": _told(_or_null(_TEXT), "SHA-256 of the slice's pixels; null of a person."),
                    "status": _STATUS,
                    "stage": _told(_or_null(_TEXT), "The most probable stage."),
                    "words": _told(_or_null(_TEXT), "What is not ruled out, in a sentence."),
                    "stability": _told(
                        _or_null(_NUMBER),
                        "Share of the acquisitions looked at with the same most probable stage.",
                    ),
                    "spread": _told(_or_null(_NUMBER), "Standard deviation of its probability over them."),
                    "reason": _REASON,
                    "training_slice": _told(
                        _YES_OR_NO,
                        "Whether it is of the public dataset and the model a bundled one, which was trained on it.",
                    ),
                    "picture": _PNG,
                },
                optional=["picture"],
                others=True,
            ),
            "For each person a row from all slices, then one for each slice. `prob_STAGE` is the probability of a "
            "stage, `in_set_STAGE` whether it is in the 90 % set.",
        ),
    }
)
EXPLANATIONS = _object(
    {
        "notice": _NOTICE,
        "model": _MODEL,
        "method": _told(_TEXT, "The method."),
        "people": _list(
            _object(
                {
                    "person": _PERSON,
                    "stage": _told(_TEXT, "The stage that is explained."),
                    "slices": _told(_COUNT, "Number of slices."),
                },
                others=True,
            ),
            "Each person. With `contributions` also the score, its sums, sentences and the largest contributions.",
        ),
        "maps": _list(
            _object(
                {
                    "files": _FILES,
                    "person": _PERSON,
                    "level": _LEVEL,
                    "status": _STATUS,
                    "stage": _told(_or_null(_TEXT), "The stage that is explained."),
                    "outside": _told(
                        _or_null(_NUMBER), "Share of the map outside of the head; null for contributions."
                    ),
                    "reason": _REASON,
                    "picture": _PNG,
                    "overlay": _told(_or_null(_TEXT), "The slice with what moved the score, a PNG in base64."),
                },
                others=True,
            ),
            "Each slice.",
        ),
    }
)


def reply(schema: Schema, description: str) -> dict[int | str, dict[str, Any]]:
    """Return what a route says of its reply."""
    return {200: {"description": description, "content": {"application/json": {"schema": schema}}}}
