"""Tables: some columns of a CSV, TSV or Parquet file, and errors that name the line.

A file may be inside a zip and is read from there. Nothing is extracted, so an archive cannot write anywhere.
"""

import bz2
import codecs
import csv
import difflib
import gzip
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from rich.progress import wrap_file

from lgcn.errors import InputError, MissingFile

SHOW_PROGRESS_FROM = 20_000_000  # bytes; smaller files are read in well under two seconds

#: What reading a member of a broken zip, or a broken .gz, raises. A broken .bz2 raises an OSError.
DAMAGED = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, MemoryError)

#: How Python can read a member of a zip.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

#: Flags of a member that is encrypted, patched, or encrypted strongly.
UNREADABLE = 0x01 | 0x20 | 0x40

#: What is compressed further than a hundred times, and large then, is no table of ratings.
RATIO, SUSPECT = 100, 20_000_000  # and bytes

#: Columns that a table of text may have: each takes far longer than its byte in the file.
WIDEST = 10_000

#: How compressed files begin, and what reads them.
PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
PACKED_NAMES = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

#: How text begins that is not UTF-8, and what it is: by its mark, or by where the zeros of two letters are.
ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    rb"[^\0]\0\0\0": "utf-32-le",
    rb"\0\0\0[^\0]": "utf-32-be",
    rb"[^\0]\0[^\0]\0": "utf-16-le",
    rb"\0[^\0]\0[^\0]": "utf-16-be",
}

#: The way out of another encoding.
CONVERT = "convert the file, for example with `iconv -f latin1 -t utf-8`"

#: What may separate fields.
SEPARATORS = (",", "\t", ";", "|", "::", " ")

#: A file or folder, on disk or inside a zip.
Place = Path | zipfile.Path

Column = int | str  # in this order, so that a 0 on the command line is a position

#: Words in a column of ratings that say that there is none, in lower case.
MISSING = ("", "-", "na", "n/a", "#n/a", "nan", "none", "null")

#: A decimal comma. With three digits behind it, it might separate thousands.
COMMA, POINT = r"^([+-]?\d+),(\d\d?)$", r"\1.\2"

#: Words that pandas writes for yes and no, in lower case.
TRUTHS = {"true": "1", "false": "0"}


def read_columns(
    path: Place, wanted: Sequence[Column], separator: str | None = None, number: Column | None = None
) -> pd.DataFrame:
    """Read some columns of a table, as text except ``number``.

    Args:
        path: a CSV, TSV or Parquet file, possibly inside a zip. What it is shows in how it begins, or in the ending of
            its name, in capitals or not: gzip, bz2, xz and UTF-16 are understood.
        wanted: the columns' names, or their positions (from 0) in a file without a header line.
        separator: between fields, one character or one that is repeated; None is a tab for .tsv and .tab, else a
            comma.
        number: the column to read as numbers.

    Raises:
        InputError: the file is missing, empty or malformed, or lacks a column.
    """
    with readable(path):
        if is_parquet(path):
            return _read_parquet(path, wanted, number)
        return _read_delimited(path, wanted, _separator(path, separator), number)


def read_texts(path: Place) -> pd.DataFrame:
    """All columns of a CSV or TSV file as text, missing where a field is empty; of a Parquet file as they are.

    What separates fields is found from the first rows.

    Raises:
        InputError: the file is missing, empty or malformed.
    """
    with readable(path):
        if is_parquet(path):
            with path.open("rb") as file:
                # What pandas has written beside the columns is not needed.
                source, room = _parquet_file(path, file)
                found: pd.DataFrame = _plain(path, source.read().replace_schema_metadata(None), room).to_pandas()
                return found
        separator = _separator(path, found_separator(path))
        _first_row(path, separator)
        try:
            with byte_stream(path) as stream:
                given: dict[str, Any] = {"dtype": str, "encoding": "utf-8-sig"}
                given |= {"keep_default_na": False, "na_values": [""]}  # an id or a title may be NA
                given |= {"sep": separator, "engine": "python" if len(separator) > 1 else "c"}
                table: pd.DataFrame = pd.read_csv(stream, **given)
                return table
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text; {CONVERT}") from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error


def column_names(path: Place, separator: str | None = None) -> list[str]:
    """The fields of a table's first line, or the names of a Parquet file's columns."""
    with readable(path):
        if is_parquet(path):
            with path.open("rb") as file:
                return list(_parquet_file(path, file)[0].schema_arrow.names)
        return _first_row(path, _separator(path, separator))[1]


def first_rows(path: Place, separator: str | None, most: int) -> list[list[str]]:
    """The fields of a table's first rows as text, ``most`` at most. The names of a Parquet file's columns come first.

    Raises:
        InputError: the file is missing, empty or malformed.
    """
    with readable(path):
        if is_parquet(path):
            with path.open("rb") as file:
                source, room = _parquet_file(path, file)
                table = pa.Table.from_batches(islice(source.iter_batches(most), 1), source.schema_arrow)
                columns = [map(str, column.to_pylist()) for column in _plain(path, table, room).columns]
                return [column_names(path), *map(list, zip(*columns, strict=True))]
        _first_row(path, _separator(path, separator))  # which must be one
        return [row for _, (_, row) in zip(range(most), _rows(path, _separator(path, separator)), strict=False)]


@contextmanager
def readable(path: Place) -> Iterator[None]:
    """Turn every error about a file into an InputError that names it."""
    if not path.exists():
        raise MissingFile(f"there is no file {path}" + nearest_file(path))
    if path.is_dir():
        raise InputError(f"{path} is a folder; a file is needed")
    if not path.is_file():  # a device or a pipe, which may never end
        raise InputError(f"{path} is no file")
    try:
        yield
    except DAMAGED as error:
        raise InputError(f"{path} is damaged ({error}); remove it and get it again") from error
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def byte_stream(path: Place, shown: bool = True) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed and in UTF-8, with a progress bar if there are many and it is to be ``shown``."""
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("rb"))
        size = path.stat().st_size if isinstance(path, Path) else path.root.getinfo(path.at).file_size
        start: bytes = file.read(6)
        file.seek(0)
        if packed := _packed(path, start):
            start = packed(file).read(4)
            file.seek(0)
        encoding = encoding_of(start)
        if shown and size >= SHOW_PROGRESS_FROM:
            file = stack.enter_context(wrap_file(file, total=size, description=f"reading {path.name}"))
        if packed:
            file = io.BufferedReader(_Unpacked(stack.enter_context(packed(file)), size, path), 1 << 20)
        try:
            yield io.BytesIO(file.read().decode(encoding).encode()) if encoding else file
        except UnicodeError as error:
            if encoding is None:
                raise
            raise InputError(f"{path} is not {encoding} text, as it begins: {error}") from error


def encoding_of(start: bytes) -> str | None:
    """What text that begins so is, if it is not UTF-8.

    >>> encoding_of("id".encode("utf-16-le")), encoding_of(b"id, title")
    ('utf-16-le', None)
    """
    return next((name for mark, name in ENCODINGS.items() if re.match(mark, start)), None)


class _Unpacked(io.RawIOBase):
    """A compressed file, which must not become a hundred times as large. How large it becomes stands nowhere."""

    def __init__(self, plain: IO[bytes], size: int, path: Place) -> None:
        self._plain, self._left, self._path = plain, max(SUSPECT, RATIO * size), path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._plain.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise InputError(f"{self._path} grows more than {RATIO} times when it is decompressed, as no ratings do")
        buffer[: len(content)] = content
        return len(content)


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise an InputError if a zip has files that cannot be read, or that nobody wants to read."""
    for member in archive.infolist():
        name, wrong = member.filename, None
        if member.flag_bits & UNREADABLE:
            wrong = "is encrypted; encrypt nothing, or give the file itself"
        elif member.compress_type not in COMPRESSIONS:
            wrong = "is compressed in a way that Python does not know; use the usual one"
        elif member.file_size > max(SUSPECT, RATIO * member.compress_size):
            wrong = f"grows more than {RATIO} times when it is decompressed, as no ratings do"
        elif name.startswith("/") or "//" in name or ".." in name.split("/"):
            wrong = "has no name that a file can have"
        if wrong:
            raise InputError(f"{path}: {name[:100]!r} in it {wrong}")


def _parquet_file(path: Place, file: IO[bytes]) -> tuple[parquet.ParquetFile, int]:
    """A Parquet file, which must not stand for far more values than it has bytes, and how many bytes it may become.

    A few of its bytes may say that a long text is in all rows, so texts are read as numbers of a dictionary's.
    """
    size, source = file.seek(0, io.SEEK_END), parquet.ParquetFile(file)
    room, groups = max(SUSPECT, RATIO * size), map(source.metadata.row_group, range(source.metadata.num_row_groups))
    values = [[group.column(place).num_values for place in range(group.num_columns)] for group in groups]
    if (most := max(map(sum, zip(*values, strict=True)), default=0)) > room:
        raise InputError(f"{path} has {most:,} values in {size:,} bytes, as no ratings have")
    texts = [field.name for field in source.schema_arrow if field.type in (pa.string(), pa.binary())]
    return parquet.ParquetFile(file, read_dictionary=texts), room


def _plain(path: Place, table: pa.Table, room: int) -> pa.Table:
    """A table with its texts in place of their numbers, which must have room."""
    for place, column in enumerate(table.columns):
        if not pa.types.is_dictionary(column.type):
            continue
        if column.type.value_type in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
            for chunk in column.chunks:
                room -= pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
        if room < 0:
            raise InputError(f"{path} grows more than {RATIO} times when it is decompressed, as no ratings do")
        table = table.set_column(place, table.field(place).name, pc.cast(column, column.type.value_type))
    return table


def is_parquet(path: Place) -> bool:
    """Whether a file is Parquet, by its name or how it begins."""
    if path.name.lower().endswith((".parquet", ".pq")):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return bool(file.read(4) == b"PAR1")


def _packed(path: Place, start: bytes) -> Any:
    """What reads a file's compression, by how it begins or its name; None if there is none."""
    found = next((how for mark, how in PACKED.items() if start.startswith(mark)), None)
    return found or PACKED_NAMES.get(Path(path.name.lower()).suffix)


def nearest_file(path: Place) -> str:
    """For the end of a message: the file of nearly this name, if its folder has one."""
    if not isinstance(path, Path) or not path.parent.is_dir():
        return ""
    nearest = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / nearest[0]}?" if nearest else ""


def some(names: Sequence[str], most: int = 12) -> str:
    """The first names, and how many more there are.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(map(str, names[:most])) or "nothing"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def check_columns(table: object, wanted: Sequence[Column], names: Sequence[Any]) -> None:
    """Raise an InputError if a table, called ``table`` in it, does not have each wanted column once."""
    for column in wanted:
        if column not in names:
            # With quotes, so that ' item' shows its space.
            raise InputError(
                f"{table} has no column '{column}'; it has {some([repr(name) for name in names])}. Say which is which "
                "with --data.user_column, --data.item_column, --data.rating_column and --data.timestamp_column "
                "(positions from 0 if there is no header line; null for ratings or times that it does not have)"
                + ("" if len(names) > 1 else ", and how fields are separated with --data.separator")
            )
        if names.count(column) > 1:
            raise InputError(f"{table} has {names.count(column)} columns named '{column}'; rename one")


def _read_parquet(path: Place, wanted: Sequence[Column], number: Column | None) -> pd.DataFrame:
    with path.open("rb") as file:
        source, room = _parquet_file(path, file)
        names = source.schema_arrow.names
        if positions := [column for column in wanted if not isinstance(column, str) and str(column) not in names]:
            raise InputError(f"{path} has column names; give one instead of the position {positions[0]}")
        check_columns(path, [*map(str, wanted)], names)
        table = _plain(path, source.read(columns=[*map(str, wanted)]), room)
    columns = {}
    for name in wanted:
        column = table[str(name)]
        if name == number:
            try:
                column = _as_numbers(column)
            except pa.ArrowInvalid as error:
                raise InputError(f"{path}: the column '{name}' is not numeric ({error})") from error
        columns[name] = column.to_pandas(integer_object_nulls=True)
    return pd.DataFrame(columns)


def found_separator(path: Place) -> str | None:
    """What divides the first rows into the same number of fields, if it is not the usual one."""
    if is_parquet(path):
        return None

    def width(separator: str | None) -> int:
        sizes = {len(row) for row in first_rows(path, separator, 20)}
        return sizes.pop() if len(sizes) == 1 else 1

    if width(None) > 1:
        return None
    best = max(SEPARATORS, key=width)
    return best if width(best) > 1 else None


def _separator(path: Place, given: str | None) -> str:
    if given:
        return given.replace("\\t", "\t")  # as a tab is typed in a shell
    name = Path(path.name.lower())
    return "\t" if (name.with_suffix("") if name.suffix in PACKED_NAMES else name).suffix in (".tsv", ".tab") else ","


def _read_delimited(path: Place, wanted: Sequence[Column], separator: str, number: Column | None) -> pd.DataFrame:
    step = len(separator)
    if separator != separator[0] * step or not separator.isascii() or separator[0] in '\r\n"':
        raise InputError(
            "--data.separator must be one plain character, repeated or not, and no quote or line end "
            f"(got {separator!r})"
        )
    line, first = _first_row(path, separator)
    has_header = _are_names(wanted, first)
    names = first if has_header else [str(position) for position in range(len(first))]
    check_columns(path, [str(column) for column in wanted], names)
    # arrow separates by one character: a separator of two has an empty column in its middle.
    gaps = [[f"\0{place}-{i}" for i in range(step - 1)] for place in range(len(names))]
    gaps[-1] = []
    spread = [name for name, gap in zip(names, gaps, strict=True) for name in (name, *gap)]
    types = {str(column): pa.float64() if column == number else pa.string() for column in wanted}
    types |= {name: pa.null() for gap in gaps for name in gap}

    def read() -> pa.Table:
        with byte_stream(path) as stream:
            return arrow_csv.read_csv(
                stream,
                read_options=arrow_csv.ReadOptions(column_names=spread, skip_rows=line if has_header else 0),
                parse_options=arrow_csv.ParseOptions(delimiter=separator[0], newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=True
                ),
            )

    try:
        try:
            table = read()
        except pa.ArrowInvalid:
            if number is None:
                raise
            types[str(number)] = pa.string()  # it may have spaces, or words for what is missing
            table = read()
        columns = {column: table[str(column)] for column in wanted}
        if number is not None:
            columns[number] = _as_numbers(columns[number])
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise _explained(path, has_header, wanted, names, separator, number, error) from error
    return pd.DataFrame({column: values.to_pandas() for column, values in columns.items()})


def _as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as float64, as :func:`as_number` reads it. An ArrowInvalid if a text is no number."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        lower = pc.utf8_lower(column)
        column = pc.if_else(pc.is_in(lower, pa.array(MISSING, column.type)), None, column)
        column = pc.replace_substring_regex(column, COMMA, POINT)
        for word, number in TRUTHS.items():
            column = pc.if_else(pc.equal(lower, word), pa.scalar(number, column.type), column)
    return pc.cast(column, pa.float64())


def as_number(field: str) -> str | None:
    """A number as Python writes it: with a decimal point, and 1 for true. None where a word says that there is none.

    >>> [as_number(field) for field in ("2,5", "True", "n/a", "1,000")]
    ['2.5', '1', None, '1,000']
    """
    field = field.strip()
    return None if field.lower() in MISSING else TRUTHS.get(field.lower(), re.sub(COMMA, POINT, field, flags=re.A))


def _are_names(wanted: Sequence[Column], first: list[str]) -> bool:
    """Whether columns are names in the first line, and not positions.

    A number is a name if all that are wanted are in the first line, and it is no row of numbers or has not so many.
    """
    if any(isinstance(column, str) and not column.isdigit() for column in wanted):
        return True
    written = [str(column) for column in wanted]
    is_header = max(map(int, written)) >= len(first) or not all(is_number(field.strip()) for field in first)
    return is_header and all(column in first for column in written)


def _first_row(path: Place, separator: str) -> tuple[int, list[str]]:
    for line, row in _rows(path, separator):
        if any(re.search(r"[\0-\x08\x0e-\x1a\x1c-\x1f]", field) for field in row):
            raise InputError(
                f"{path} is no text: its first line is {' '.join(row)[:40]!a}; unpack an archive, and save a workbook "
                "or another format as CSV, TSV or Parquet"
            )
        if re.match(r'\s*([\[{]\s*$|\[?\s*\{\s*"|<(\?xml|!doctype|html))', row[0], re.IGNORECASE):
            raise InputError(f"{path} is no table: it begins with {row[0][:40]!r}; save it as CSV, TSV or Parquet")
        if any(map(_not_utf8, row)):
            raise InputError(f"{path}, line {line}: {_wrong_encoding(row)}")
        return line, row
    raise InputError(f"{path} is empty")


def _rows(path: Place, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row that is not empty. Slow: for first rows and for explaining errors."""
    with byte_stream(path, shown=False) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="backslashreplace", newline="")
        try:
            if len(separator) > 1:
                for line, content in enumerate(text, start=1):
                    if row := content.rstrip("\r\n"):
                        yield line, _narrow(path, row.split(separator))
            else:
                reader = csv.reader(text, delimiter=separator)
                for fields in reader:
                    if fields:
                        yield reader.line_num, _narrow(path, fields)
        except csv.Error as error:
            raise InputError(f"{path} cannot be read: {error}") from error


def _narrow(path: Place, row: list[str]) -> list[str]:
    if len(row) > WIDEST:
        raise InputError(f"{path} has {len(row):,} columns; give {WIDEST:,} at most")
    return row


def _explained(
    path: Place,
    has_header: bool,
    wanted: Sequence[Column],
    names: list[str],
    separator: str,
    number: Column | None,
    error: Exception,
) -> InputError:
    """The error of the line that arrow could not read."""
    place = 0
    positions = [names.index(str(column)) for column in wanted]
    for place, (line, row) in enumerate(_rows(path, separator)):
        if place == 0 and has_header:
            continue
        needed, start = [row[position] for position in positions if position < len(row)], separator.join(row)[:80]
        if len(row) != len(names):
            words = f"{len(row)} fields where the first line has {len(names)}: {start!r}"
        elif len(separator) > 1 and any(separator[0] in field for field in row):
            single = f"a single {separator[0]!r} inside a field, where {separator!r} separates fields"
            words = f"{single}: {start!r}; use another separator"
        elif any(map(_not_utf8, needed)):
            words = _wrong_encoding(needed)
        elif number is not None and not is_number(value := row[names.index(str(number))].strip()):
            words = f"the rating {value!r} is not a number; mend or remove it"
            words += "; thousands have no mark" * ("," in value)
            words += "; is there a header line? Then give the columns by name" if place == 0 else ""
        else:
            continue
        return InputError(f"{path}, line {line}: {words}")
    if has_header and place == 0:
        return InputError(f"{path} has a header line and nothing below it")
    return InputError(f"{path} cannot be read: {error}")


def is_number(field: str) -> bool:
    """Whether it is read as a number or as missing. Python's float also takes 1_0 and other scripts' digits."""
    try:
        float(as_number(field) or "nan")
    except ValueError:
        return False
    return field.isascii() and "_" not in field


def _not_utf8(field: str) -> bool:
    """Whether :func:`_rows` had to write a byte as \\x80 to \\xff."""
    return "\\x" in field and re.search(r"\\x[89a-f][0-9a-f]", field) is not None


def _wrong_encoding(row: list[str]) -> str:
    text = ascii(" ".join(row)[:80]).replace("\\\\", "\\")
    return f"{text} is not UTF-8 text; {CONVERT}"
