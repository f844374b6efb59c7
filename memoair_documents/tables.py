"""Files with several documents: JSON lines and CSV."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

# Columns that hold the text of a row, where none are named: the first of these that a table has.
_TEXT_COLUMNS = (("text",), ("question", "answer"), ("content",), ("body",), ("answer",), ("description",))
_DELIMITERS = ",;\t|"
_MAX_CELL_CHARS = 1 << 24

Row = tuple[int, dict[str, Any]]  # the line at which it ends, and the document


def read_json_lines(text: str) -> Iterator[Row]:
    """Yield the documents of a JSON Lines text; raise ValueError with the line for one that is not a document."""
    for line_number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                document = json.loads(line)
            except (ValueError, RecursionError):
                document = None
            if not is_document(document):
                raise ValueError(
                    f'{line_number}: not a document; expected {{"id": "...", "text": "...", "metadata": {{...}}}}'
                )
            yield line_number, document


def is_document(value: Any) -> bool:
    """Return whether a value has the form of a document."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("id"), str)
        and bool(value["id"])
        and isinstance(value.get("text"), str)
        and isinstance(value.get("metadata") or {}, dict)
    )


def read_csv(text: str, document_id: str, text_columns: Sequence[str], id_column: str) -> Iterator[Row]:
    """Yield one document for each row of a CSV text. The first row names the columns.

    Args:
        text: The text; columns are separated by a comma, a semicolon, a tab or a bar.
        document_id: Where a row has no id, its id is this and its number, from 1.
        text_columns: The columns that are the text, joined by line feeds; empty to choose them by their names. All
            others become metadata.
        id_column: The column with the ids. It may be missing.

    Raises:
        ValueError: If a column or a row is invalid; the message has the line.
    """
    table = CsvTable(text)
    chosen = _choose_columns(table.columns, text_columns)
    for number, row in enumerate(table.read_rows(), 1):
        if row.problem:
            raise ValueError(f"{row.line}: {row.problem}")
        values = dict(row.values)
        row_text = "\n".join(values.pop(name) for name in chosen if name in values)
        row_id = values.pop(id_column, f"{document_id}#{number}")
        if row_text:
            yield row.line, {"id": row_id, "text": row_text, "metadata": values}


@attrs.frozen
class CsvRow:
    """A row of a table.

    Attributes:
        line: The line at which it ends.
        values: The cells that have a text, by column.
        problem: What is wrong with the row; empty if nothing is.
    """

    line: int
    values: Mapping[str, str]
    problem: str = ""


class CsvTable:
    """A table in CSV. Its first row names the columns.

    Args:
        text: The text; columns are separated by a comma, a semicolon, a tab or a bar.

    Attributes:
        columns: The names of the columns.
        delimiter: What separates them.

    Raises:
        ValueError: If the first row is invalid; the message has the line.
    """

    def __init__(self, text: str) -> None:
        header, _, _ = text.partition("\n")
        self.delimiter = max(_DELIMITERS, key=header.count)
        csv.field_size_limit(_MAX_CELL_CHARS)
        self._rows = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter)
        try:
            self.columns = [name.strip() for name in next(self._rows, [])]
        except csv.Error as error:
            raise ValueError(f"{self._rows.line_num}: invalid CSV: {error}") from None

    def read_rows(self) -> Iterator[CsvRow]:
        """Yield the rows that are not empty, once.

        Raises:
            ValueError: If the rest of the table cannot be read; the message has the line.
        """
        try:
            for cells in self._rows:
                if not any(cell.strip() for cell in cells):
                    continue
                problem = ""
                if len(cells) > len(self.columns):
                    problem = f"{len(cells)} columns; the first row names {len(self.columns)}"
                pairs = zip(self.columns, map(str.strip, cells), strict=False)
                yield CsvRow(self._rows.line_num, {name: cell for name, cell in pairs if name and cell}, problem)
        except csv.Error as error:
            raise ValueError(f"{self._rows.line_num}: invalid CSV: {error}") from None


def _choose_columns(names: Sequence[str], text_columns: Sequence[str]) -> list[str]:
    missing = [name for name in text_columns if name not in names]
    if missing:
        raise ValueError(f"1: no column {missing[0]}; the columns are {', '.join(names)}")
    if text_columns:
        return list(text_columns)
    by_folded_name = {name.casefold(): name for name in reversed(names)}
    for candidates in _TEXT_COLUMNS:
        if all(candidate in by_folded_name for candidate in candidates):
            return [by_folded_name[candidate] for candidate in candidates]
    raise ValueError(f"1: no column is called text; name one with --text-column ({', '.join(names)})")
