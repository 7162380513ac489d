"""Made-up files, and the readers that they go through. Each ends in a result or an InputError, and writes nothing."""

import copy
import gzip
import io
import resource
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml
from hypothesis import strategies as st

from lgcn import LightGCNModule, RatingsDataModule, Recommender
from lgcn.data.attributes import read_attributes
from lgcn.data.tables import first_rows
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.model.content import Content
from lgcn.model.heads import DotHead
from lgcn.model.sessions import SessionBias
from lgcn.model.tail import RidgeTail
from lgcn.runs import settings
from lgcn.runs.trust import of_checkpoint
from lgcn.training.objectives import Bpr
from tests.runs.running import made_ratings

SECONDS, MEGABYTES = 5, 1000  # that an input may take

File = tuple[str, bytes]


class Target(NamedTuple):
    """A kind of file, and what reads it."""

    files: st.SearchStrategy[File]
    read: Callable[[Path], object]


def changed(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Some bytes with others in their places, cut out, or put in; or all of them."""

    @st.composite
    def change(draw: st.DrawFn) -> bytes:
        content = draw(whole)
        for _ in range(draw(st.integers(0, 3))):
            place = draw(st.integers(0, len(content)))
            new = draw(st.binary(max_size=8) | st.sampled_from([bytes(64), b"\xff" * 4, b"\n", b",", b'"', b"\x00"]))
            content = content[:place] + new + content[place + draw(st.integers(0, 64) | st.just(len(new))) :]
        return content

    return change()


WORDS = ["1", "2", "3", "4.5", "007", "u1", "a b", "", " ", "nan", "1e400", "-0", "99999999999999999999", "2026-01-02"]
WORDS += ["\x1b[31m", '"', "'", "\ufeff", "\u202e", "1_0", "٣", "0x10", "inf", "|", "::"]
FIELDS = st.sampled_from(WORDS) | st.text(max_size=6)
ROWS = st.lists(st.lists(FIELDS, min_size=1, max_size=5), max_size=30)
HEADERS = st.sampled_from(
    ["user,item,rating", "userId,movieId,rating,timestamp", "user\titem\trating", "", "a,b", "1,2,3"]
)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Lines of fields, some of which are as they should be."""
    good = [
        f"u{user},{item},{1 + user * item % 5},{item}" for user in range(8) for item in range(draw(st.integers(0, 6)))
    ]
    separator = draw(st.sampled_from([",", ",", "\t", "::", ";", "|"]))
    lines = [draw(HEADERS), *good, *(separator.join(row) for row in draw(ROWS))]
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines).encode(encoding, errors="replace")


@st.composite
def ratings(draw: st.DrawFn) -> File:
    """A file of ratings of any kind."""
    content = draw(changed(tables()) | st.binary(max_size=200))
    name = draw(st.sampled_from(["r.csv", "r.tsv", "r.txt", "r.csv.gz", "r.dat", "r.parquet"]))
    return name, draw(changed(st.just(gzip.compress(content)))) if name.endswith(".gz") else content


COLUMNS = st.sampled_from(["user", "item", "rating", "timestamp", "title", "\ud7ff", ""])
VALUES: list[st.SearchStrategy[Any]] = [st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=5)]
VALUES += [st.booleans(), st.dates(), st.binary(max_size=4), st.lists(st.integers(0, 9), max_size=2)]


@st.composite
def parquets(draw: st.DrawFn) -> File:
    """A Parquet file, as it should be or damaged."""
    size = draw(st.integers(0, 20))
    table: dict[str, Any] = {"user": [n % 5 for n in range(size)], "item": [n // 5 for n in range(size)]}
    table["rating"] = [float(n % 5) for n in range(size)]
    for name in draw(st.lists(COLUMNS, max_size=3)):
        kind = draw(st.sampled_from(VALUES))
        table[name] = draw(st.lists(kind | st.none(), min_size=size, max_size=size))
    content = io.BytesIO()
    pd.DataFrame(table).to_parquet(content)
    return "r.parquet", draw(changed(st.just(content.getvalue())))


NAMES = ["ml/ratings.csv", "ml/movies.csv", "ratings.dat", "movies.dat", "u.data", "u.item", "train.txt", "test.txt"]
NAMES += ["ml/movies.csv/x", "../x", "//x", "x/" * 40, "ratings.csv/", "a\\b", "\u202e.csv"]


@st.composite
def archives(draw: st.DrawFn) -> File:
    """A zip of members of any name, content and compression."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as members:
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True)):
            how = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
            text = draw(changed(tables()) | st.just(b"1 2 3\n2 1 4\n3 1 2 4\n"))
            members.writestr(name, text, compress_type=how)
    return "r.zip", draw(changed(st.just(content.getvalue())))


TOKENS = [
    "a",
    "b",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&x ",
    "*x",
    "!!",
    "<<: ",
    "|",
    ">",
    "\n",
    "  ",
    "? ",
    "'",
    '"',
    "#",
]
TOKENS += ["data", "model", "trainer", "k", "1", "1e3", "null", "0o7", "1:2", "2026-99-99", "9" * 30, "class_path", "%"]
NESTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda nest: (
        st.lists(nest, max_size=3) | st.dictionaries(st.sampled_from([*settings.SECTIONS, *"abk"]), nest, max_size=3)
    ),
    max_leaves=10,
)
YAMLS = st.lists(st.sampled_from(TOKENS), max_size=60).map("".join) | NESTS.map(yaml.safe_dump) | st.text(max_size=40)


@cache
def made_checkpoint(ranks: bool = False) -> dict[str, Any]:
    """What a checkpoint of a small model holds: one of ratings with sessions and content, or one with a tail."""
    ratings = made_ratings(8, 6).assign(timestamp=lambda table: 1e9 + 500.0 * table.index)
    books = pd.DataFrame({"item": range(0, 60, 10), "genres": "Novel|Crime"})
    data = RatingsDataModule(ratings, timestamp_column="timestamp", items_path=books)
    sizes, head = (data.num_users, data.num_items, 3, 1), DotHead(biases=True)
    if ranks:
        module = LightGCNModule(*sizes, head=head, objective=Bpr(), tail=RidgeTail(neighbours=2))
        module.model.near.copy_(torch.tensor([[1, 2]]))
        module.model.near_weight.fill_(0.5)
    else:
        module = LightGCNModule(*sizes, head=head, sessions=SessionBias(), content=Content())
    module.model.prepare(data.graphs["train"], lambda: data.features)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "global_step": 5}
    content |= {
        "RatingsDataModule": data.state_dict(),
        "config": yaml.safe_dump({"model": {"k": [5]}, "data": {"seed": 1}}),
    }
    return content | {"epoch": 1, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}


def places(nest: Any) -> Iterator[tuple[Any, Any]]:
    """The dictionaries and lists in a nest, each with its keys."""
    for key in nest if isinstance(nest, dict) else range(len(nest)) if isinstance(nest, list) else ():
        yield nest, key
        yield from places(nest[key])


NUMBERS = [0, -1, 1, 2**31, 2**63, 10**30, 10**12, float("nan"), float("inf"), -0.5, True, None]
OTHERS: list[Any] = [*NUMBERS, "", "x", "\x00", "os.system", "[" * 500, [], {}, [None], {"class_path": "os.system"}]
OTHERS += [
    torch.zeros(0),
    torch.zeros(3),
    torch.full((8, 3), torch.nan),
    torch.zeros(1).expand(10**10),
    torch.zeros(2, 2).t(),
]


@st.composite
def checkpoints(draw: st.DrawFn) -> File:
    """A checkpoint with a value changed, or with its bytes changed."""
    content = copy.deepcopy(made_checkpoint(draw(st.booleans())))
    if values := draw(st.integers(0, 2)):
        for _ in range(values):
            there = [*places(content)]
            holder, key = there[draw(st.integers(0, len(there) - 1))]
            old = holder[key]
            if isinstance(old, torch.Tensor) and old.numel() and old.is_contiguous() and draw(st.booleans()):
                with torch.no_grad():
                    old.view(-1)[draw(st.integers(0, old.numel() - 1))] = draw(st.sampled_from([-1, 0, 1, 7, 120]))
            elif isinstance(old, str) and draw(st.booleans()):
                holder[key] = draw(changed(st.just(old.encode()))).decode(errors="replace")
            else:
                holder[key] = draw(st.sampled_from(OTHERS))
    file = io.BytesIO()
    torch.save(content, file)
    return "x.ckpt", file.getvalue() if values else draw(changed(st.just(file.getvalue())))


@cache
def cached() -> tuple[Path, bytes, str]:
    """A cache entry, its bytes, and what is in it."""
    folder = Path(mkdtemp())
    data = of_large_file(folder)
    entry = next(folder.glob("*.pt"))
    return entry, entry.read_bytes(), data.fingerprint


def of_large_file(folder: Path) -> RatingsDataModule:
    """Ratings that are kept in a cache, in a folder with their file."""
    made_ratings(8, 6).to_csv(folder / "large.csv", index=False)
    data = RatingsDataModule(str(folder / "large.csv"), cache=str(folder))
    data.setup()
    return data


def read_source(path: Path) -> None:
    """Ratings, and the same file as a table of items."""
    with suppress(InputError):
        data = RatingsDataModule(str(path), cache=None)
        data.setup()
        _ = data.snapshot.packed()
    with suppress(InputError):
        first_rows(path, None, 5)
    with suppress(InputError):
        read_attributes(path, Vocabulary(["1", "2", "u1"]), "item", "item")


def read_settings(path: Path) -> None:
    """As a configuration, and as that in a checkpoint."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for read in (lambda: settings.load(path), lambda: of_checkpoint({"config": text}, path)):
        with suppress(InputError):
            read()


def read_model(path: Path) -> None:
    """As recommendations and explanations are made from it."""
    content = Recommender.from_checkpoint(path)
    known: dict[str, Any] = {}
    for who in (known, {"ratings": {0: 1.0, 10: 1.0}}):
        scores = content.recommend(**who, k=2, because=2)["score"]
        assert scores.abs().max() < float("inf") or scores.empty
    of_checkpoint(made_checkpoint(), path)


def read_cached(path: Path) -> None:
    """It is rebuilt where it is damaged, and what is read is the same."""
    entry, _, fingerprint = cached()
    entry.write_bytes(path.read_bytes())
    assert of_large_file(entry.parent).fingerprint == fingerprint


TARGETS = {
    "ratings": Target(ratings(), read_source),
    "Parquet files": Target(parquets(), read_source),
    "archives": Target(archives(), read_source),
    "configurations": Target(YAMLS.map(lambda text: ("c.yaml", text.encode(errors="replace"))), read_settings),
    "checkpoints": Target(checkpoints(), read_model),
    "cache entries": Target(
        st.deferred(lambda: changed(st.just(cached()[1])).map(lambda content: ("entry.pt", content))), read_cached
    ),
}


def fed(target: Target, file: File, folder: Path) -> None:
    """Write a file and have it read, within the time and the memory that there are."""
    path = folder / file[0]
    path.write_bytes(file[1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with suppress(InputError):
        target.read(path)
    assert [one.name for one in folder.iterdir()] == [path.name]  # nothing is written
    assert time.monotonic() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
