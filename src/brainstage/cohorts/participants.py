"""What is known of people beside their scans: participants.tsv, sessions.tsv, or a table of one's own."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from brainstage.core.config import did_you_mean
from brainstage.core.errors import DataError
from brainstage.datasets.covariates import NOT_KNOWN

Cells = Mapping[str, str | None]
"""A row of a table: the cell of each column, None where it is not known."""

PERSON_COLUMNS = ("participant_id", "patient_id")
"""Names of the column with the person; the first is that of BIDS."""
SESSION_COLUMN, SPLIT_COLUMN = "session_id", "split"
LABEL_COLUMNS = ("diagnosis", "dx", "group", "label", "cdr")
"""Names under which the label is looked for where none is given, in this order."""
COVARIATES = ("age", "sex", "site")
"""Columns that come along where they exist and none are named."""


@dataclass(frozen=True)
class Participants:
    """What tables say of people and their sessions.

    Attributes:
        file: Name of the table, without its folder: it stands in the ledger.
        label_column: Column with the label; None where the table has none.
        covariates: Columns that come along.
        rows: Cells by person, and by person and session; of a person alone the session is None.
    """

    file: str = ""
    label_column: str | None = None
    covariates: tuple[str, ...] = ()
    rows: Mapping[tuple[str, str | None], Cells] = field(default_factory=dict)

    def cells(self, participant_id: str, session_id: str | None) -> Cells | None:
        """Return what is known of a person at a session: the session's own cells, else the person's.

        None where no row describes the person.
        """
        person, session = self.rows.get((participant_id, None)), self.rows.get((participant_id, session_id))
        if person is None and session is None:
            return None
        known = {name: cell for name, cell in (session or {}).items() if cell is not None}
        return {**(person or {}), **known}

    @property
    def people(self) -> set[str]:
        """Everyone whom a row describes."""
        return {participant_id for participant_id, _ in self.rows}

    def similar(self, participant_id: str) -> str | None:
        """Return the person whose id differs from the one asked for by zeros alone, as 1 and 01 do."""
        others = sorted(self.people - {participant_id})
        return next((other for other in others if without_zeros(other) == without_zeros(participant_id)), None)

    def with_sessions(self, tables: Iterable[tuple[str, Path]]) -> Participants:
        """Return them with what tables of sessions say; they need a column ``session_id``.

        Args:
            tables: Of some people, each with the person's id.

        Raises:
            DataError: A table cannot be read, has no such column, or describes one session twice.
        """
        rows, label = dict(self.rows), self.label_column
        for participant_id, file in tables:
            columns, records = read_table(file)
            if SESSION_COLUMN not in columns:
                raise DataError(
                    f"{file}: column {SESSION_COLUMN} not found; it has {', '.join(columns)}"
                    "; rename the column of the sessions"
                )
            label = label or find_label_column(columns, file, None)
            for line, record in records:
                key = participant_id, plain_id(record[SESSION_COLUMN], "ses")
                if rows.setdefault(key, record) != record:
                    raise DataError(
                        f"{file} line {line}: session {key[1]} of {participant_id} is described twice"
                        "; keep one of the lines"
                    )
        return replace(self, label_column=label, rows=rows)


def read_participants(
    file: Path, label_column: str | None = None, covariates: Sequence[str] | None = None
) -> Participants:
    """Read a table of people.

    Args:
        file: A TSV or CSV file with a column ``participant_id`` (or ``patient_id``), with or without the prefix
            ``sub-``, and perhaps ``session_id``: a row of a session is of that session alone.
        label_column: Column with the label; None takes the first of :data:`LABEL_COLUMNS` that exists.
        covariates: Columns that come along; None takes those of :data:`COVARIATES` that exist.

    Raises:
        DataError: The file cannot be read, a column is missing, or two rows describe one person differently.
    """
    columns, records = read_table(file)
    person = person_column(columns, file)
    label = find_label_column(columns, file, label_column)
    rows: dict[tuple[str, str | None], Cells] = {}
    line_of: dict[tuple[str, str | None], int] = {}
    for line, record in records:
        participant_id, session_id = plain_id(record[person], "sub"), plain_id(record.get(SESSION_COLUMN), "ses")
        if participant_id is None:
            raise DataError(f"{file} line {line}: column {person} is empty; name the person or remove the line")
        key = participant_id, session_id
        if rows.setdefault(key, record) != record:
            raise DataError(
                f"{file}: lines {line_of[key]} and {line} describe {participant_id} differently; keep one of them"
            )
        line_of.setdefault(key, line)
    return Participants(file.name, label, find_covariates(columns, file, covariates), rows)


def find_label_column(columns: Sequence[str], file: Path, chosen: str | None) -> str | None:
    """Return the column with the label; None where none is named and none has a usual name.

    Args:
        columns: Those of the table.
        file: The table, for errors.
        chosen: The one that was named; None takes the first of :data:`LABEL_COLUMNS` that exists.

    Raises:
        DataError: The column that was named does not exist.
    """
    if chosen is None:
        return next((name for name in LABEL_COLUMNS if name in columns), None)
    return _existing(chosen, columns, file)


def find_covariates(columns: Sequence[str], file: Path, chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns that come along.

    Args:
        columns: Those of the table.
        file: The table, for errors.
        chosen: Those that were named; None takes those of :data:`COVARIATES` that exist.

    Raises:
        DataError: A column that was named does not exist.
    """
    if chosen is None:
        return tuple(name for name in COVARIATES if name in columns)
    return tuple(_existing(name, columns, file) for name in chosen)


def person_column(columns: Sequence[str], file: Path) -> str:
    """Return the column with the person.

    Raises:
        DataError: There is none.
    """
    for name in PERSON_COLUMNS:
        if name in columns:
            return name
    raise DataError(
        f"{file}: column participant_id not found; it has {', '.join(columns)}; rename the column of the people"
    )


def read_table(file: Path) -> tuple[tuple[str, ...], list[tuple[int, Cells]]]:
    """Read a TSV or CSV file.

    A byte order mark, Windows line ends and blank lines are accepted. Cells are separated by tabs in ``.tsv``, else
    by commas, or by semicolons where the header has no comma.

    Returns:
        The columns, and of each row its line number and its cells; a cell of :data:`NOT_KNOWN` is None.

    Raises:
        DataError: The file cannot be read as such a table, or a line has more or fewer cells than the header.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file in UTF-8 ({error.reason}); save it as UTF-8") from error
    header = text.partition("\n")[0]
    separator = "\t" if file.suffix.lower() == ".tsv" else "," if "," in header or ";" not in header else ";"
    reader = csv.reader(text.splitlines(), delimiter=separator)
    columns = tuple(name.strip() for name in next(reader, []))
    if not any(columns) or len(set(columns)) < len(columns):
        raise DataError(f"{file}: its first line must name each column once")
    records: list[tuple[int, Cells]] = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{file} line {reader.line_num}: has {len(cells)} cells, the header has {len(columns)}; put cells "
                "that hold the separator in quotes"
            )
        known = (None if cell.strip().lower() in NOT_KNOWN else cell.strip() for cell in cells)
        records.append((reader.line_num, dict(zip(columns, known, strict=True))))
    return columns, records


def plain_id(value: str | None, prefix: str) -> str | None:
    """Return an id without the prefix that BIDS writes before it: ``01`` of ``sub-01``."""
    return value.removeprefix(f"{prefix}-") if value else None


def without_zeros(name: str) -> str:
    """Return an id without the zeros that its numbers begin with."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _existing(name: str, columns: Sequence[str], file: Path) -> str:
    if name not in columns:
        raise DataError(f"{file}: column {name} not found{did_you_mean(name, list(columns))}")
    return name
