"""Export: a trained model as files that other systems read.

    users.parquet  items.parquet   a row each: id, embedding, bias, number of training ratings, title and genres
    embeddings.safetensors         the same numbers as tensors, in the order of the rows
    items.faiss                    an inner-product index of the items (where faiss is installed)
    scorer.pt2                     a torch.export program from row numbers to predictions
    README.md                      how to use them

Whatever the model, score(u, i) = p(u) · q(i) + b(u) + b(i) + offset (:mod:`lgcn.model.factors`), so these tables are
all of it. The index holds (q(i), b(i)), to be asked with (p(u), 1): what is the same for all of a user's items is left
out.

Shape letters: U users, I items, F factor columns, B pairs.
"""

import io
import logging
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

from lgcn.errors import InputError
from lgcn.files import replacing
from lgcn.graph.scale import RatingScale
from lgcn.model.factors import Factors
from lgcn.serving.recommender import Recommender

log = logging.getLogger(__name__)

README = """\
# A LightGCN model, exported by lgcn

Trained on {origin}; from the checkpoint {checkpoint}.

score(user, item) = user embedding · item embedding + user bias + item bias + {offset!r}{clamped}

| file | what it is |
| --- | --- |
| users.parquet | {num_users:,} users: id, embedding ({columns} numbers), bias, number of training ratings |
| items.parquet | {num_items:,} items: likewise{titled} |
| embeddings.safetensors | user_embeddings, item_embeddings, user_biases, item_biases, offset; rows as in the tables |
| scorer.pt2 | from row numbers to {what} |
{index}
```python
import torch
scorer = torch.export.load("scorer.pt2").module()
scorer(torch.tensor([0, 0]), torch.tensor([5, 7]))  # rows of users.parquet and items.parquet; -1: one that is not there
```
{search}"""

INDEX = "| items.faiss | an inner-product index of (embedding, bias) of the items; position = row of items.parquet |\n"
SEARCH = """
```python
import faiss, numpy as np
from safetensors.numpy import load_file
users = load_file("embeddings.safetensors")["user_embeddings"]
query = np.append(users[:1], [[1]], axis=1).astype("float32")
scores, rows = faiss.read_index("items.faiss").search(query, 10)  # plus user bias and offset: the score
```
"""


class Scorer(nn.Module):
    """Predictions of pairs, given as rows [B] and [B] int64 of users and items; -1 is one that is not in the data."""

    def __init__(self, factors: Factors, scale: RatingScale) -> None:
        super().__init__()
        self.scale = scale
        self.biased = [factors.user_bias is not None, factors.item_bias is not None]
        for name, part in factors._asdict().items():
            self.register_buffer(name, None if part is None else part.clone())

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        factors: Any = Factors(self.user, self.item, self.user_bias, self.item_bias, self.offset)  # type: ignore[arg-type]
        scores: Tensor = factors.predict(user, item)
        return self.scale.clamped(scores)


def export_to(recommender: Recommender, folder: Path, checkpoint: Path) -> list[Path]:
    """Write a model's files into a folder, and say so.

    Args:
        recommender: the model.
        folder: made where it is not there; other files in it stay.
        checkpoint: where the model was read from, for the README.

    Returns:
        The files.

    Raises:
        InputError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be made a folder: {error.strerror}") from error
    factors, snapshot = recommender.model.factors, recommender.snapshot
    known = factors.without_last()
    titles = {} if snapshot.titles is None else {"title": snapshot.titles, "genres": snapshot.genres}
    train, faiss = snapshot.train, find_spec("faiss") is not None
    written = []
    with Console(stderr=True).status("") as status:

        def write(name: str, how: Any) -> None:
            status.update(f"writing {name}")
            path = folder / name
            try:
                with replacing(path) as part:
                    how(part)
            except OSError as error:
                raise InputError(f"--output {folder}: {name} cannot be written: {error.strerror or error}") from error
            written.append(path)

        write(
            "users.parquet",
            lambda path: _table(path, recommender.user_ids, known.user, known.user_bias, train.user_degree, {}),
        )
        write(
            "items.parquet",
            lambda path: _table(path, recommender.item_ids, known.item, known.item_bias, train.item_degree, titles),
        )
        write("embeddings.safetensors", lambda path: _tensors(path, known))
        if not faiss:
            (folder / "items.faiss").unlink(missing_ok=True)  # it would be another model's
        else:
            write("items.faiss", lambda path: _index(path, known))
        write("scorer.pt2", lambda path: _scorer(path, recommender))
        lowest, highest, clamps = recommender.model.scale
        text = README.format(
            origin=snapshot.origin,
            checkpoint=checkpoint.name,
            offset=float(factors.offset),
            clamped=f", not below {lowest:g} nor above {highest:g}" if clamps else "",
            num_users=len(recommender.user_ids),
            num_items=len(recommender.item_ids),
            columns=factors.user.shape[1],
            titled=", title and genres" if titles else "",
            what="scores" if recommender.ranks else "ratings",
            index=INDEX if faiss else "",
            search=SEARCH if faiss else "",
        )
        write("README.md", lambda path: path.write_text(text, encoding="utf-8"))
    console = Console(highlight=False)
    for path in written:
        console.print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}", soft_wrap=True, markup=False)
    if not faiss:
        log.info("without items.faiss, which needs faiss: pip install 'lgcn[faiss]'")
    return written


def _bias(bias: Tensor | None, size: int) -> Tensor:
    return torch.zeros(size) if bias is None else bias


def _table(path: Path, ids: list[Any], rows: Tensor, bias: Tensor | None, degree: Tensor, more: dict[str, Any]) -> None:
    """One of the Parquet tables; an embedding is a list of F float32."""
    size, columns = rows.shape
    flat = pa.array(rows.contiguous().numpy().reshape(-1))
    embedding = (
        pa.FixedSizeListArray.from_arrays(flat, columns) if columns else pa.array([[]] * size, pa.list_(pa.float32()))
    )
    content = {"id": pa.array(ids), **{name: pa.array(texts, pa.string()) for name, texts in more.items()}}
    content |= {
        "embedding": embedding,
        "bias": pa.array(_bias(bias, size).numpy()),
        "ratings": pa.array(degree.numpy()),
    }
    parquet.write_table(pa.table(content), path)


def _tensors(path: Path, known: Factors) -> None:
    from safetensors.torch import save_file

    content = {
        "user_embeddings": known.user,
        "item_embeddings": known.item,
        "user_biases": _bias(known.user_bias, len(known.user)),
        "item_biases": _bias(known.item_bias, len(known.item)),
        "offset": known.offset,
    }
    save_file({name: tensor.contiguous().clone() for name, tensor in content.items()}, path)


def _index(path: Path, known: Factors) -> None:
    import faiss

    biased = known._replace(item_bias=_bias(known.item_bias, len(known.item)))
    vectors: NDArray[np.float32] = biased.as_rows()[1].numpy()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(path))


def _scorer(path: Path, recommender: Recommender) -> None:
    model = recommender.model
    scorer = Scorer(model.factors, model.scale).eval()
    pairs = torch.export.Dim("pairs")
    example = (torch.tensor([0, 1]), torch.tensor([0, 1]))
    program = torch.export.export(scorer, example, dynamic_shapes=({0: pairs}, {0: pairs}))
    content = io.BytesIO()  # torch warns about a file that does not end in .pt2
    torch.export.save(program, content)
    path.write_bytes(content.getvalue())
