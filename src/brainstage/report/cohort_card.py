"""What stands beside a cohort's slices: its card, Croissant metadata, and the description that BIDS asks for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.cohorts.assemble import Cohort
from brainstage.cohorts.folder import CohortFolder
from brainstage.cohorts.ledger import covariate_names
from brainstage.cohorts.sources import DESCRIPTION
from brainstage.core.files import sha256, write_json
from brainstage.report.pages import write_page

CARD, CROISSANT = "README.md", "croissant.json"
BIDS_VERSION = "1.9.0"
CROISSANT_VERSION = "http://mlcommons.org/croissant/1.0"
COLUMNS = {
    "image": "An axial slice: PNG, 8-bit grey, 128 × 128 pixels, the nose down.",
    "label": "Number of the class; the card names them in order.",
    "patient_id": "The person. All slices of a person belong on one side of any split.",
    "session_id": "The session; empty where there is one.",
    "scan_id": "The scan, as in scans.parquet.",
    "slice_index": "Level of the slice, from 0, the lowest, to {last}; {spacing:g} mm apart.",
}
_TYPES = {"int64": "sc:Integer", "int32": "sc:Integer", "double": "sc:Float", "string": "sc:Text"}
_CONTEXT: dict[str, Any] = {  # the same for every dataset, by the specification
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "separator": "cr:separator",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "source": "cr:source",
}


def write_cohort_card(cohort: Cohort, command: Sequence[str]) -> bool:
    """Write ``README.md``, ``croissant.json`` and ``dataset_description.json`` into a cohort's folder.

    Args:
        cohort: The cohort.
        command: The command that made it, without the folders of its paths: they may name people.

    Returns:
        Whether the card was written. One that its author changed is kept.

    Raises:
        RunError: The folder is not writable.
    """
    folder = CohortFolder(cohort.folder)
    shards = sorted(folder.data.glob("*.parquet"))
    write_json(folder.path / DESCRIPTION, _description(command))
    write_json(folder.path / CROISSANT, _croissant(cohort, shards))
    card, seal = folder.path / CARD, folder.private / "card.sha256"
    ours = not card.exists() or (seal.exists() and seal.read_text(encoding="ascii") == sha256(card))
    if ours:
        write_page(card, "cohort.md", _content(cohort, command))
        seal.write_text(sha256(card), encoding="ascii")
    return ours


def _content(cohort: Cohort, command: Sequence[str]) -> dict[str, Any]:
    return {
        "about": cohort.about,
        "classes": [row for row in cohort.counts if row[0] is not None],
        "ordered": cohort.ordered,
        "levels": cohort.level_set,
        "columns": {name: _about_column(name, cohort) for name in (*COLUMNS, *covariate_names(cohort.ledger))},
        "command": " ".join(command),
        "version": version("brainstage"),
        "sides": sorted({file.name.partition("-")[0] for file in (cohort.folder / "data").glob("*.parquet")}),
    }


def _about_column(name: str, cohort: Cohort) -> str:
    """Return what a column holds."""
    text = COLUMNS.get(name, "As in the table of participants.")
    return text.format(last=cohort.level_set.count - 1, spacing=cohort.level_set.spacing)


def _description(command: Sequence[str]) -> dict[str, Any]:
    return {
        "Name": "Axial slices prepared by brainstage",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "brainstage", "Version": version("brainstage"), "Description": " ".join(command)}],
    }


def _croissant(cohort: Cohort, shards: Sequence[Path]) -> dict[str, Any]:
    """Return the metadata of Croissant 1.0 (https://docs.mlcommons.org/croissant): a file object for each shard."""
    schema = pq.read_schema(shards[0])
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": "brainstage-cohort",
        "description": (
            f"Axial slices of brain MRI scans, levels {cohort.level_set}, for research on stages of dementia. "
            "No diagnosis."
        ),
        "conformsTo": CROISSANT_VERSION,
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file.name,
                "contentUrl": f"data/{file.name}",
                "encodingFormat": "application/x-parquet",
                "sha256": sha256(file),
            }
            for file in shards
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": file.stem,
                "field": [_field(file, schema.field(name), _about_column(name, cohort)) for name in schema.names],
            }
            for file in shards
        ],
    }


def _field(file: Path, column: pa.Field, about: str) -> dict[str, Any]:
    image = column.name == "image"
    source = {"fileObject": {"@id": file.name}, "extract": {"column": column.name}}
    if image:
        source["transform"] = {"jsonPath": "bytes"}
    return {
        "@type": "cr:Field",
        "@id": f"{file.stem}/{column.name}",
        "description": about,
        "dataType": "sc:ImageObject" if image else _TYPES[str(column.type)],
        "source": source,
    }
