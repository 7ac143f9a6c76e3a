"""A researcher's own scans."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.cli.choices import Skull, choice
from brainstage.cli.shared import (
    ClassOrder,
    Cluster,
    Jobs,
    Json,
    Quiet,
    named_model,
    open_workers,
    parse_order,
    parse_pair,
    progress_of,
    read_slices,
    show_result,
    takes_data,
    typed_command,
    warn,
)
from brainstage.core.levels import LEVEL_SETS

app = typer.Typer()

Levels = Annotated[
    Any,
    choice(
        "--levels",
        tuple(LEVEL_SETS),
        "public: those of the public dataset, from the thalamus upwards; brain: from the temporal poles to the "
        "vertex, with the hippocampus.",
    ),
]

Redo = Annotated[
    Any, choice("--redo", ("refused", "failed", "prepared"), "Prepare the scans of this status again.")
]


@app.command(epilog="Example: brainstage prepare bids/ --out cohort/ --class-order CN,MCI,AD")
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="BIDS dataset; folder of NIfTI or DICOM files; or a CSV or TSV file with path, participant_id, a "
            "label and perhaps session_id."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the cohort.")],
    participants: Annotated[
        Path | None, typer.Option(help="Table of the people, in place of the participants.tsv of a BIDS dataset.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Its column with the label; without it diagnosis, dx, group, label or cdr.")
    ] = None,
    covariates: Annotated[
        str | None, typer.Option(help="Columns that come along, separated by commas; without it age,sex,site.")
    ] = None,
    class_order: ClassOrder = None,
    levels: Levels = "public",
    skull: Skull = "auto",
    all_runs: Annotated[
        bool, typer.Option("--all-runs", help="Take all T1-weighted scans of a session, not the first alone.")
    ] = False,
    exclude: Annotated[
        Path | None, typer.Option(help="File with the names of scans to leave out, one a line.")
    ] = None,
    redo: Redo = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prepare scans as a cohort to train on.

    Each scan is read, stripped of its skull where it has one, registered and cut. What cannot be used is named in
    scans.parquet with its reason. Again: only what is missing.
    """
    from brainstage.cohorts.prepare import prepare
    from brainstage.report.cohort_card import write_cohort_card
    from brainstage.report.quality_page import write_quality_page
    from brainstage.report.terminal.data import show_cohort

    with open_workers(jobs, cluster, quiet=quiet) as workers:
        cohort = prepare(
            source,
            out,
            participants=participants,
            label_column=label_column,
            covariates=covariates.split(",") if covariates else None,
            class_order=parse_order(class_order),
            level_set=LEVEL_SETS[levels],
            skull=skull,
            all_runs=all_runs,
            exclude=exclude,
            redo=(redo,) if redo else (),
            workers=workers,
            progress=progress_of(quiet),
        )
    page = write_quality_page(cohort)
    if not write_cohort_card(cohort, typed_command()):
        warn(f"{cohort.folder / 'README.md'}: kept as its author wrote it; its counts may be those of another run")
    for note in cohort.notes:
        warn(note)
    saved = f"{cohort.folder}\nLook at {page}, then: brainstage data describe --data {cohort.folder}"
    show_result(cohort, show_cohort, "how-to/cohorts", as_json=as_json, quiet=quiet, saved=saved)


@app.command(epilog="Example: brainstage validate runs/patient-001 --data cohort/ --by sex,age,site")
@takes_data
def validate(
    load: partial[Any],
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Run folder, a bundled model (patient, compact), or ORG/NAME on the hub."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the page and the figures.")] = Path("validation"),
    by: Annotated[
        str | None, typer.Option(help="Columns whose values make subgroups, separated by commas.")
    ] = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="LABEL=CLASS: class of the model that a label of the data stands for. Repeatable."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Validate a model on people whom it has never seen.

    Participant flow, discrimination, calibration, decision curve, subgroups, age and sex alone, the worst misses;
    and the checklists CLAIM 2024 and TRIPOD+AI with what a program can know filled in.
    """
    from brainstage.report.checklists import write_checklists
    from brainstage.report.terminal.validation import show_validation
    from brainstage.report.validation_facts import facts_of_validation
    from brainstage.report.validation_page import write_validation
    from brainstage.studies.external_validation import validate

    pairs = dict(parse_pair(one, "--map", "CN=Non_Demented") for one in class_map or [])
    slices, model = read_slices(load), named_model(model, quiet)
    result = validate(
        model,
        slices,
        out,
        cohort=load.keywords["data"],
        by=by.split(",") if by else (),
        class_map=pairs or None,
        progress=progress_of(quiet),
    )
    page = write_validation(result, slices, out, typed_command())
    write_checklists(facts_of_validation(model, result, slices), out)
    show_result(result, show_validation, "how-to/external-validation", as_json=as_json, quiet=quiet, saved=page)
