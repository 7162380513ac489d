"""Reading what a test has just written."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from lgcn.data.canonical import Columns, read_table

Files = Callable[[str], dict[str, bytes]]

NAMED = Columns("user", "item", "rating")


TIMED = Columns("user", "item", "rating", "time")


PLACED = Columns(0, 1, 2)


def write_folder(files: dict[str, bytes], root: Path) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def write_zip(files: dict[str, bytes], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def read(tmp_path: Path, content: str | bytes, columns: Columns = NAMED, name: str = "r.csv", **kwargs: Any) -> Any:
    """The columns of a file with this content, as lists."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, columns, **kwargs).to_dict("list")


def read_parquet(tmp_path: Path, columns: Columns = NAMED, **data: Any) -> Any:
    parquet.write_table(pa.table(data), tmp_path / "r.parquet")
    return read_table(tmp_path / "r.parquet", columns).to_dict("list")
