"""RatingsDataModule: from a source to the graphs of its three parts."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from torch import Tensor

from lgcn.data import sources
from lgcn.data.cache import LARGE, Cache, default_folder
from lgcn.data.snapshot import Snapshot, titles_of
from lgcn.data.sources import Column, Columns, RatingTable
from lgcn.data.splits import Rows, Split, divide, leave_last_out_split, random_split, temporal_split
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.budget import users_at_a_time
from lgcn.graph.ratings import RatingGraph

log = logging.getLogger(__name__)

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


#: The settings that decide what becomes of a source.
DECISIVE = (
    *("source", "root", "user_column", "item_column", "rating_column", "timestamp_column", "separator", "format"),
    *("min_rating", "split", "val_fraction", "test_fraction", "train_path", "val_path", "test_path", "seed"),
    "add_self_loops",
)


#: What stands for a frame among the settings.
FRAME = "DataFrame"

if TYPE_CHECKING:
    Source = str | PathLike[str] | pd.DataFrame | None
else:  # what the command line can give
    Source = str | None


class Edges(NamedTuple):
    """A batch of pairs, with their ratings where they are known."""

    user: Tensor  # [B] int64
    item: Tensor  # [B] int64
    rating: Tensor | None  # [B] float32


class EdgeChunks:
    """Edges in chunks of bounded size, as an iterable with a length."""

    def __init__(self, edges: Edges, size: int, first: int = 0, last: int | None = None) -> None:
        self.edges, self.size = edges, size
        self.first, self.last = first, len(edges.user) if last is None else last

    def __len__(self) -> int:
        return -(-(self.last - self.first) // self.size)

    def __iter__(self) -> Iterator[Edges]:
        for start in range(self.first, self.last, self.size):
            chunk = slice(start, min(start + self.size, self.last))
            user, item, rating = self.edges
            yield Edges(user[chunk].long(), item[chunk].long(), None if rating is None else rating[chunk])


class UserChunks:
    """Users in chunks of bounded size, as an iterable of index tensors [B] with a length."""

    def __init__(self, users: Tensor, size: int) -> None:
        self.users, self.size = users, size

    def __len__(self) -> int:
        return -(-len(self.users) // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.split(self.users, self.size) if len(self.users) else ())


class TrainingSteps:
    """The numbers of an epoch's steps; what to train on, a step draws or knows itself.

    What a step does depends on its number and the seed alone, so there is nothing to remember; the two methods say
    so to Lightning, which asks before it goes on within an epoch.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class RatingsDataModule(pl.LightningDataModule):
    """Ratings from a named dataset, a file or a DataFrame, split into training, validation and test graphs.

    Args:
        source: ``sample``, a MovieLens edition (``ml-100k``, ``ml-1m``, ``ml-10m``, ``ml-20m``, ``ml-25m``,
            ``ml-32m``, ``ml-latest``, ``ml-latest-small``), a data set of the paper (``gowalla``, ``yelp2018``,
            ``amazon-book``), or a path to a CSV, TSV or Parquet file, or to a folder or zip laid out as these are.
            From Python also a DataFrame, which does not change.
            Null if the parts are files of their own.
        root: where archives are kept and downloaded to. Null is the environment variable LGCN_DATA, else ``data``.
        mirror: where named datasets are downloaded from.
        user_column: name of the column of user ids, or its position from 0 if the file has no header line.
        item_column: likewise, of item ids.
        rating_column: likewise, of ratings. Null if there are none: implicit data, for the ranking objectives.
        timestamp_column: likewise, of times (seconds since 1970, or dates). Null if there are none.
        separator: between fields. Null is a tab for .tsv and .tab, else a comma.
        format: of files of one's own: ``table``, or ``adjacency`` for lines of ``user item item ...``, implicit data.
        min_rating: leave ratings below it out; users and items keep their index. The notebook's threshold is 1.
        split: ``random`` (as the notebook's), ``temporal`` (validation and test are the latest ratings),
            ``leave_last_out`` (each user's last rating is for test, the one before for validation), or ``files``.
        val_fraction: share of the ratings for validation, for ``random`` and ``temporal``; with ``files`` and no
            val_path, the share of the training file.
        test_fraction: share for test, for ``random`` and ``temporal``.
        train_path: for ``files``: the training ratings, a file or a name inside ``source`` such as ``u1.base``.
        val_path: likewise, for validation. Null draws them from the training file.
        test_path: likewise, for test.
        predict_path: for ``lgcn predict``: a file of pairs, with the same user and item columns. Null predicts
            the test part.
        eval_graph: what validation and test propagate over: ``train``, or ``split`` for the part's own pairs, which
            shows the model what it will be asked. ``split`` is the notebook's way and there to compare with it.
        add_self_loops: whether each node is its own neighbour in the propagation.
        seed: of the random split. The notebook's is 1.
        steps_per_epoch: training steps between validations. Each step is over the whole training graph, unless
            there is a --model.batch_size.
        threshold: from which rating on a pair is positive: relevant, and for objectives that rank, to be found. Of
            data without ratings every pair is.
        eval_batch_size: how many rated pairs are predicted at a time outside training.
        cache: folder that keeps the split ratings of large sources (20 MB and more), named by their content and the
            settings above. ``auto`` is lgcn in the user's cache folder; null keeps nothing.

    >>> data = RatingsDataModule("sample")
    >>> data.num_users, data.num_items
    (671, 9066)
    """

    def __init__(
        self,
        source: Source = sources.SAMPLE,
        root: str | None = None,
        mirror: str = sources.GROUPLENS,
        user_column: Column = "user",
        item_column: Column = "item",
        rating_column: Column | None = "rating",
        timestamp_column: Column | None = None,
        separator: str | None = None,
        format: Literal["table", "adjacency"] = "table",
        min_rating: float | None = None,
        split: Literal["random", "temporal", "leave_last_out", "files"] = "random",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        train_path: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        predict_path: str | None = None,
        eval_graph: Literal["train", "split"] = "train",
        add_self_loops: bool = False,
        seed: int = 1,
        steps_per_epoch: int = 100,
        threshold: float = 3.5,
        eval_batch_size: int = 1 << 18,
        cache: str | None = "auto",
    ) -> None:
        super().__init__()
        # A frame is no setting: a checkpoint keeps its ratings, but not the frame.
        self._frame = source if isinstance(source, pd.DataFrame) else None
        source = FRAME if self._frame is not None else None if source is None else str(source)
        self.save_hyperparameters()
        self.columns = Columns(user_column, item_column, rating_column, timestamp_column)
        given = [column for column in self.columns if column is not None]
        if len({isinstance(column, str) for column in given}) > 1:
            raise InputError(f"give all columns by name or all by position (got {', '.join(map(repr, given))})")
        if len(set(given)) < len(given):
            raise InputError(f"each column can be one thing only (got {', '.join(map(repr, given))})")
        if (split == "files") != (train_path is not None and test_path is not None):
            raise InputError("--data.split files goes together with --data.train_path and --data.test_path")
        if split != "files" and source is None:
            raise InputError("--data.source is needed unless --data.split is files")
        for name, value in (("steps_per_epoch", steps_per_epoch), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise InputError(f"--data.{name} must be at least 1 (got {value})")
        self.eval_graph = eval_graph
        self.ask()
        self._graphs: dict[Part, RatingGraph] | None = None

    def ask(self, by_users: bool = False, times: bool = False) -> None:
        """What a model needs; the module says so before it is trained or judged.

        Args:
            by_users: whether held-out batches are users, for rankings, or rated pairs.
            times: whether a checkpoint keeps when the training ratings were given.
        """
        self._by_users, self._keeps_times = by_users, times
        for made_before in ("snapshot", "_packed"):
            vars(self).pop(made_before, None)

    # -- what others read ----------------------------------------------------------------------------------

    @property
    def graphs(self) -> dict[Part, RatingGraph]:
        """The training, validation and test graph. The first use reads the source."""
        self._ready()
        assert self._graphs is not None
        return self._graphs

    @property
    def users(self) -> Vocabulary:
        """The raw ids of all parts' users."""
        self._ready()
        return self._users

    @property
    def items(self) -> Vocabulary:
        """The raw ids of all parts' items."""
        self._ready()
        return self._items

    @property
    def item_titles(self) -> pd.DataFrame | None:
        """Columns item, title and genres, where the source has titles."""
        self._ready()
        return self._item_titles

    @property
    def implicit(self) -> bool:
        """Whether the data says who chose what, but not how it was liked; every rating is 1 then."""
        self._ready()
        return bool(self._implicit)

    @property
    def num_users(self) -> int:
        """U, over all parts."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        """I, over all parts."""
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        """Equal where users, items and training ratings are equal."""
        return ":".join((self.users.fingerprint, self.items.fingerprint, self.graphs["train"].fingerprint))

    # -- from the source to graphs -------------------------------------------------------------------------

    def _ready(self) -> None:
        if self._graphs is None:
            self.prepare_data()
            self.setup()

    def prepare_data(self) -> None:
        """Download a named dataset that is not there yet."""
        if self._frame is None:
            sources.fetch(self.hparams["source"], self._root, self.hparams["mirror"])

    def setup(self, stage: str | None = None) -> None:
        """Read the source, number users and items, split, and build the graphs; once, whatever the stage.

        Raises:
            InputError: the source cannot be used; the message says why.
        """
        if self._graphs is not None:
            return
        cache = self._cache()
        content = cache.load() if cache else None
        if content is None or not self._take(content):
            content = self._build()
            self._take(content)
            if cache:
                cache.save(content)
        for line in self.summary():
            log.info(line)

    def _take(self, content: dict[str, Any]) -> bool:
        """Use what was built or kept; False where it is not what it was when it was built."""
        self._users, self._items = Vocabulary(content["users"]), Vocabulary(content["items"])
        titles, self.origin, self._implicit = content["titles"], content["origin"], content["implicit"]
        self._item_titles = None if titles is None else pd.DataFrame(titles)
        sizes = len(self._users), len(self._items)
        graphs: dict[Any, RatingGraph] = {
            part: RatingGraph(user, item, rating, *sizes, time=time, **self._kind(self._implicit))
            for part, (user, item, rating, time) in content["edges"].items()
        }
        if [graph.fingerprint for graph in graphs.values()] != content["fingerprints"]:
            log.warning("what the cache kept is damaged; the source is read instead")
            return False
        self._dropped = graphs.pop("dropped")
        self._graphs = graphs
        return True

    def _kind(self, implicit: bool) -> dict[str, Any]:
        """What every graph of the data is told."""
        given = self.hparams
        return {"add_self_loops": given["add_self_loops"], "threshold": given["threshold"], "implicit": implicit}

    def _cache(self) -> Cache | None:
        given = self.hparams
        if given["cache"] is None or given["source"] == FRAME:
            return None
        files = sources.files_of(given["source"], self._root, list(self._paths().values()))
        # Of a file that is not there, reading speaks.
        if not all(path.is_file() for path in files) or sum(path.stat().st_size for path in files) < LARGE:
            return None
        folder = default_folder() if given["cache"] == "auto" else Path(given["cache"]).expanduser()
        return Cache(folder, files, [(name, given[name]) for name in DECISIVE])

    def _build(self) -> dict[str, Any]:
        """Everything that the cache keeps: ids, titles, and the edges of each part in a graph's order."""
        table = self._read()
        with Console(stderr=True).status(f"numbering and splitting {len(table.ratings):,} ratings"):
            return self._numbered(table)

    def _numbered(self, table: RatingTable) -> dict[str, Any]:
        ratings, titles, origin, implicit = table
        ratings = drop_duplicates(ratings)
        # Users and items are numbered before ratings are filtered: a threshold changes no index.
        users, items = Vocabulary(ratings["user"]), Vocabulary(ratings["item"])
        for what, vocabulary in (("user", users), ("item", items)):
            if len(vocabulary) < 2:
                raise InputError(
                    f"{origin} has ratings of one {what} only ({next(iter(vocabulary))}); "
                    "there is nothing to learn from others with"
                )
        user, item = users.encode(ratings["user"]), items.encode(ratings["item"])
        columns = [user, item, ratings["rating"].to_numpy(dtype=np.float32)]
        time = ratings["timestamp"].to_numpy() if "timestamp" in ratings else None
        kept = self._kept(ratings["rating"].to_numpy())
        split = self._split(ratings if kept.all() else ratings[kept].reset_index(drop=True), origin)
        rows = np.flatnonzero(kept)
        edges, fingerprints = {}, []
        parts: dict[str, Rows] = {"train": rows[split.train], "val": rows[split.val], "test": rows[split.test]}
        for part, chosen in (parts | {"dropped": np.flatnonzero(~kept)}).items():
            of_part = [torch.from_numpy(column[chosen]) for column in columns]
            times = None if time is None else torch.from_numpy(time[chosen])
            sizes = len(users), len(items)
            graph = RatingGraph.from_edges(
                of_part[0], of_part[1], of_part[2], *sizes, time=times, **self._kind(implicit)
            )
            edges[part] = [graph.user, graph.item, graph.rating, graph.time]
            fingerprints.append(graph.fingerprint)
        return {
            "users": list(users),
            "items": list(items),
            "titles": None if titles is None else titles.to_dict("list"),
            "origin": origin,
            "implicit": implicit,
            "edges": edges,
            "fingerprints": fingerprints,
        }

    def summary(self) -> list[str]:
        """Counts of what was read, a line each."""
        train, val, test = (self.graphs[part] for part in PARTS)
        entries = " / ".join(f"{2 * len(graph) + loops:,}" for graph, loops in self._with_loops(train, val, test))
        return [
            f"data: {self.origin}",
            f"{len(self.users):,} users, {len(self.items):,} items, {sum(map(len, (train, val, test))):,} ratings",
            f"train / val / test ({self.hparams['split']} split): {len(train):,} / {len(val):,} / {len(test):,}",
            f"adjacency entries: {entries}",
            f"training covers {int((train.user_degree > 0).sum()):,} users and "
            f"{int((train.item_degree > 0).sum()):,} items",
        ]

    @staticmethod
    def _with_loops(*graphs: RatingGraph) -> list[tuple[RatingGraph, int]]:
        return [(graph, graph.num_nodes if graph.add_self_loops else 0) for graph in graphs]

    @property
    def _root(self) -> Path:
        root = self.hparams["root"]
        return sources.default_root() if root is None else Path(root).expanduser()

    def _paths(self) -> dict[Part, str]:
        """The files of the parts, with --data.split files."""
        if self.hparams["split"] != "files":
            return {}
        return {part: path for part in PARTS if (path := self.hparams[f"{part}_path"]) is not None}

    def _read(self) -> RatingTable:
        given = self.hparams
        columns = None if given["format"] == "adjacency" else self.columns
        if given["source"] == FRAME:
            if self._frame is None:
                raise InputError(
                    "the model was trained on a DataFrame, which is not kept; give its ratings as a file with "
                    "--data.source, or call test() on what lgcn.fit gave"
                )
            return RatingTable(sources.read_frame(self._frame, self.columns), None, FRAME, self.columns.rating is None)
        if given["split"] != "files":
            return sources.load(given["source"], self._root, columns, given["separator"])
        paths = self._paths()
        parts = sources.load_parts(given["source"], self._root, list(paths.values()), columns, given["separator"])
        for part, table in zip(paths, parts.ratings, strict=True):
            table["part"] = part
        ratings = pd.concat(parts.ratings, ignore_index=True)
        for name in ("user", "item"):
            if ratings[name].dtype == object:  # integers in one file, text in another
                ratings[name] = ratings[name].astype(str)
        return RatingTable(ratings, parts.items, parts.origin, parts.implicit)

    def _kept(self, rating: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Which ratings --data.min_rating keeps, [rows] bool."""
        threshold = self.hparams["min_rating"]
        if threshold is None:
            return np.ones(len(rating), dtype=bool)
        kept: np.ndarray[Any, Any] = rating >= threshold
        log.info("%s of %s ratings are below %g", f"{int((~kept).sum()):,}", f"{len(rating):,}", threshold)
        return kept

    def _split(self, ratings: pd.DataFrame, origin: str) -> Split:
        given = self.hparams
        how, fractions = f"--data.split {given['split']}", (given["val_fraction"], given["test_fraction"])
        timestamp = ratings.get("timestamp")
        if given["split"] == "random":
            split = random_split(len(ratings), *fractions, seed=given["seed"])
        elif given["split"] == "files":
            split = self._split_files(ratings["part"].to_numpy())
        elif given["split"] == "leave_last_out":
            split = leave_last_out_split(ratings["user"], timestamp)
        elif timestamp is None:
            raise InputError(f"{how} needs times, and {origin} has none; name them with --data.timestamp_column")
        else:
            split = temporal_split(timestamp, *fractions)
        return split.checked(how)

    def _split_files(self, part: "np.ndarray[Any, Any]") -> Split:
        train, val, test = (np.flatnonzero(part == name) for name in PARTS)
        if self.hparams["val_path"] is None:
            train, val = self._draw_val(train)
        return Split(train, val, test)

    def _draw_val(self, train: Rows) -> tuple[Rows, Rows]:
        fraction = self.hparams["val_fraction"]
        if not 0 < fraction < 1:
            raise InputError(f"--data.val_fraction must be between 0 and 1 (got {fraction}), or give --data.val_path")
        return divide(train, fraction, self.hparams["seed"])

    # -- loaders -------------------------------------------------------------------------------------------

    def train_dataloader(self) -> "TrainingSteps":
        return TrainingSteps(self.hparams["steps_per_epoch"])

    def val_dataloader(self) -> EdgeChunks | UserChunks:
        return self._chunks("val")

    def test_dataloader(self) -> EdgeChunks | UserChunks:
        return self._chunks("test")

    def predict_dataloader(self) -> EdgeChunks:
        user, item = self.predict_indices
        edges = Edges(torch.from_numpy(user), torch.from_numpy(item), None)
        return EdgeChunks(edges, self.hparams["eval_batch_size"])

    def _chunks(self, part: Part) -> EdgeChunks | UserChunks:
        """This process's share of a part's ratings, or of the users who have some."""
        graph = self.graphs[part]
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self._by_users:
            users = graph.user_degree.nonzero()[:, 0]
            return UserChunks(users[rank::processes], users_at_a_time(self.num_items))
        first, last = (len(graph) * process // processes for process in (rank, rank + 1))
        edges = Edges(graph.user, graph.item, graph.rating)
        return EdgeChunks(edges, self.hparams["eval_batch_size"], first, last)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Pairs go to where the model is; a training step's number stays, and nothing is searched for tensors."""
        return batch if isinstance(batch, int) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    # -- predictions ---------------------------------------------------------------------------------------

    @property
    def predict_indices(self) -> tuple[Rows, Rows]:
        """User and item index of each pair to predict; -1 where the id is not known."""
        if self.hparams["predict_path"] is None:
            test = self.graphs["test"]
            return test.user.numpy().astype(np.int64), test.item.numpy().astype(np.int64)
        pairs = self.predict_pairs
        return self.users.encode(pairs["user"]), self.items.encode(pairs["item"])

    @property
    def predict_pairs(self) -> pd.DataFrame:
        """The pairs to predict, by raw ids (columns user and item), and their ratings if they are the test part."""
        path = self.hparams["predict_path"]
        if path is None:
            test = self.graphs["test"]
            user, item = self.predict_indices
            return pd.DataFrame(
                {
                    "user": self.users.decode(user),
                    "item": self.items.decode(item),
                    "rating": test.rating.numpy(),
                }
            )
        return sources.read_pairs(Path(path).expanduser(), self.columns, self.hparams["separator"])

    # -- checkpoints ---------------------------------------------------------------------------------------

    @cached_property
    def snapshot(self) -> Snapshot:
        """What a checkpoint keeps of the data."""
        self._ready()
        train, others = self.graphs["train"], [self.graphs["val"], self.graphs["test"], self._dropped]
        user, item, rating = (
            torch.cat([getattr(graph, name) for graph in others]) for name in ("user", "item", "rating")
        )
        return Snapshot(
            self.users,
            self.items,
            *titles_of(self.item_titles, self.items),
            train if self._keeps_times else replace(train, time=None),
            RatingGraph.from_edges(user, item, rating, train.num_users, train.num_items, **self._kind(self.implicit)),
            self.hparams["min_rating"],
            self.origin,
            list(self.columns),
        )

    @cached_property
    def _packed(self) -> dict[str, Any]:
        return self.snapshot.packed()

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "snapshot": self._packed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a checkpoint was trained on these training ratings.

        Raises:
            InputError: it was not.
        """
        if state_dict["fingerprint"] != self.fingerprint:
            raise InputError(
                f"the checkpoint was trained on other data than {self.origin} with these settings: users, items or "
                "training ratings differ; use the --data settings of its run (config.yaml beside it), or train anew"
            )


def drop_duplicates(ratings: pd.DataFrame) -> pd.DataFrame:
    """Keep one rating of each (user, item) pair: the last by timestamp where there are times, else the last row.

    Of equal times, the last row is kept. The order of rows stays.
    """
    ordered = ratings.sort_values("timestamp", kind="stable") if "timestamp" in ratings else ratings
    superseded = ordered.duplicated(["user", "item"], keep="last")
    if not superseded.any():
        return ratings
    log.warning(
        "%s ratings are of a (user, item) pair that was rated again later; only each pair's last one is kept",
        f"{int(superseded.sum()):,}",
    )
    return ratings[~superseded.sort_index()].reset_index(drop=True)
