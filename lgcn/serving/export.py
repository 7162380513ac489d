"""Export: a trained model as files that other systems read.

    users.parquet  items.parquet   a row each: id, what is known, embedding, bias, number of training ratings
    embeddings.safetensors         the same numbers as tensors, in the order of the rows
    tail.safetensors               the sparse part of the scores (of models that have one)
    items.faiss                    an inner-product index of the items (where faiss is installed, and there is no tail)
    scorer.pt2                     a torch.export program from row numbers to scores
    README.md                      how to use them

Whatever the model, score(u, i) = p(u) · q(i) + b(u) + b(i) + offset (:mod:`lgcn.model.factors`), so these tables are
all of it, but for a tail (:mod:`lgcn.model.neighbours`), which an index of vectors cannot hold. The index holds
(q(i), b(i)), to be asked with (p(u), 1): what is the same for all of a user's items is left out.

Shape letters: U users, I items, F factor columns, B pairs, n neighbours of an item, E ratings.
"""

import io
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from rich.console import Console
from torch import Tensor, nn

from lgcn.data.attributes import arrow_column
from lgcn.files import check_room, replacing
from lgcn.model.factors import Factors
from lgcn.model.neighbours import Neighbours
from lgcn.serving.recommender import Recommender
from lgcn.terminal import say

log = logging.getLogger(__name__)

README = """\
# A LightGCN model, exported by lgcn

Trained on {origin}; from the checkpoint {checkpoint}.

score(user, item) = user embedding · item embedding + user bias + item bias + {offset!r}{tail}{ratings}

| file | what it is |
| --- | --- |
| users.parquet | {num_users:,} users: id, embedding ({columns} numbers), bias, number of training ratings |
| items.parquet | {num_items:,} items: likewise{titled} |
| embeddings.safetensors | user_embeddings, item_embeddings, user_biases, item_biases, offset; rows as in the tables |
| scorer.pt2 | from row numbers to scores |
{files}
```python
import torch
scorer = torch.export.load("scorer.pt2").module()
# Rows of users.parquet and of items.parquet; -1 is one that is not there.
scorer(torch.tensor([0, 0]), torch.tensor([5, 7])){clamp}
```
{search}"""

INDEX = "| items.faiss | an inner-product index of (embedding, bias) of the items; position = row of items.parquet |\n"
TAIL_FILE = "| tail.safetensors | the rest of the score, as above; items are rows of items.parquet |\n"
TAIL = """ + tail(user, item)

The tail is the sum, over the item's neighbours, of the neighbour's weight (row `item` of neighbours and
neighbour_weights; 0 is none) times the weight of the neighbour in the user's history. That is 0 if it is not there.
The history of a user is history_items and history_weights from history_starts[user] to history_starts[user + 1]."""
SEARCH = """
```python
import faiss, numpy as np
from safetensors.numpy import load_file
users = load_file("embeddings.safetensors")["user_embeddings"]
query = np.append(users[:1], [[1]], axis=1).astype("float32")
scores, rows = faiss.read_index("items.faiss").search(query, 10)  # plus user bias and offset: the score
```
"""

RATINGS = """

A predicted rating is the score, not below {lowest:g} nor above {highest:g}. Rank items by the score: at the ends of the
scale ratings are equal."""


class Scorer(nn.Module):
    """Scores of pairs, given as rows [B] and [B] int64 of users and items; -1 is one that is not in the data.

    They are what items are ranked by. Ratings that are kept within the scale would be equal at its ends.

    >>> factors = Factors(torch.ones(2, 1), torch.tensor([[1.0], [2.0], [9.0]]), None, None, torch.zeros(()))
    >>> Scorer(factors)(torch.tensor([0, 0]), torch.tensor([1, -1]))
    tensor([2., 9.])
    """

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.has_tail = factors.tail is not None
        parts = factors.tables
        if factors.tail is not None:
            parts |= {**factors.tail._asdict(), "sent": None}  # which pairs do not need
        for name, part in parts.items():
            if part is None:  # no buffer: torch.export miscounts those that are None
                setattr(self, name, None)
            else:
                self.register_buffer(name, part.clone())

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        factors: Any = Factors(*(getattr(self, name) for name in Factors._fields[:5]))
        if self.has_tail:
            tail: Any = Neighbours(*(getattr(self, name) for name in Neighbours._fields))
            factors = factors._replace(tail=tail)
        scores: Tensor = factors.predict(user, item)
        return scores


def export_to(recommender: Recommender, folder: Path, checkpoint: Path) -> list[Path]:
    """Write a model's files into a folder, and print their names and sizes.

    Args:
        recommender: the model.
        folder: where to write; it is made if it is not there, and its other files stay.
        checkpoint: where the model was read from, for the README.

    Returns:
        The files.

    Raises:
        InputError: the folder cannot be written to.
    """
    check_room(folder, f"--output {folder}")
    model, known, train = recommender.model, recommender.model.factors.without_last(), recommender.snapshot.train
    user_bias, item_bias = (
        torch.zeros(len(rows)) if bias is None else bias
        for rows, bias in ((known.user, known.user_bias), (known.item, known.item_bias))
    )
    known = known._replace(user_bias=user_bias, item_bias=item_bias)
    of_users, of_items = recommender.snapshot.user_attributes, recommender.snapshot.item_attributes
    files: dict[str, Callable[[Path], Any]] = {
        "users.parquet": lambda path: _write_table(
            path, {"id": recommender.user_ids, **of_users.columns}, known.user, user_bias, train.user_degree
        ),
        "items.parquet": lambda path: _write_table(
            path, {"id": recommender.item_ids, **of_items.columns}, known.item, item_bias, train.item_degree
        ),
        "embeddings.safetensors": lambda path: _write_tensors(path, known),
        "tail.safetensors": lambda path: _write_tail(path, known),
        "items.faiss": lambda path: _write_index(path, known),
        "scorer.pt2": lambda path: _write_scorer(path, Scorer(model.factors).eval()),
        "README.md": lambda path: path.write_text(_readme(recommender, checkpoint, [*files]), encoding="utf-8"),
    }
    faiss, has_tail = find_spec("faiss") is not None, known.tail is not None
    for name, written in (("items.faiss", faiss and not has_tail), ("tail.safetensors", has_tail)):
        if not written:
            del files[name]
            (folder / name).unlink(missing_ok=True)  # it would be another model's
    with Console(stderr=True).status("") as status:
        for name, write in files.items():
            status.update(f"writing {name}")
            with replacing(folder / name) as part:
                write(part)
    paths = [folder / name for name in files]
    for path in paths:
        say(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    if has_tail:
        log.info("without items.faiss: an index of vectors would leave the tail out; rank with scorer.pt2")
    elif not faiss:
        log.info("without items.faiss, which needs faiss: pip install 'lgcn[faiss]'")
    return paths


def _readme(recommender: Recommender, checkpoint: Path, names: list[str]) -> str:
    lowest, highest, clamps = recommender.model.scale
    return README.format(
        origin=recommender.snapshot.origin,
        checkpoint=checkpoint.name,
        offset=float(recommender.model.factors.offset),
        ratings=RATINGS.format(lowest=lowest, highest=highest) if clamps else "",
        clamp=f".clamp({lowest:g}, {highest:g})" if clamps else "",
        num_users=len(recommender.user_ids),
        num_items=len(recommender.item_ids),
        columns=recommender.model.factors.user.shape[1],
        titled="".join(f", {name}" for name in recommender.snapshot.item_attributes.columns),
        tail=TAIL if "tail.safetensors" in names else "",
        files="".join(line for line in (TAIL_FILE, INDEX) if line.split("|")[1].strip() in names),
        search=SEARCH if "items.faiss" in names else "",
    )


def _write_table(path: Path, names: dict[str, Any], rows: Tensor, bias: Tensor, degree: Tensor) -> None:
    """One of the Parquet tables; an embedding is a list of F float32."""
    size, columns = rows.shape
    flat = pa.array(rows.contiguous().numpy().reshape(-1))
    embedding = (
        pa.FixedSizeListArray.from_arrays(flat, columns) if columns else pa.array([[]] * size, pa.list_(pa.float32()))
    )
    known = {name: arrow_column(values) for name, values in names.items()}
    numbers = {"bias": pa.array(bias.numpy()), "ratings": pa.array(degree.numpy())}
    parquet.write_table(pa.table({**known, "embedding": embedding, **numbers}), path)


def _write_tensors(path: Path, known: Factors) -> None:
    from safetensors.torch import save_file

    names = ("user_embeddings", "item_embeddings", "user_biases", "item_biases", "offset")
    parts = {name: part for name, part in zip(names, known.tables.values(), strict=True) if part is not None}
    save_file({name: part.contiguous().clone() for name, part in parts.items()}, path)


def _write_tail(path: Path, known: Factors) -> None:
    from safetensors.torch import save_file

    assert known.tail is not None
    users, items = known.tail.histories(len(known.user))
    parts = {"neighbours": known.tail.near, "neighbour_weights": known.tail.weight, "history_starts": users}
    parts |= {"history_items": items, "history_weights": known.tail.value[1:]}
    save_file({name: part.contiguous().clone() for name, part in parts.items()}, path)


def _write_index(path: Path, known: Factors) -> None:
    import faiss

    vectors: NDArray[np.float32] = known.as_rows()[1].numpy()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(path))


def _write_scorer(path: Path, scorer: Scorer) -> None:
    pairs = torch.export.Dim("pairs")
    example = (torch.tensor([0, 1]), torch.tensor([0, 1]))
    program = torch.export.export(scorer, example, dynamic_shapes=({0: pairs}, {0: pairs}))
    content = io.BytesIO()  # torch warns about a file that does not end in .pt2
    torch.export.save(program, content)
    path.write_bytes(content.getvalue())
