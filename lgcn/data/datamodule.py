"""RatingsDataModule: from a source to the graphs of its three parts."""

import inspect
import logging
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from rich.console import Console

from lgcn.choices import plain
from lgcn.data import canonical, kinds, sources, splits
from lgcn.data.attributes import Attributes, read_attributes
from lgcn.data.batches import EdgeChunks, Edges, TrainingSteps, UserChunks
from lgcn.data.cache import LARGE, Cache, default_folder
from lgcn.data.canonical import Columns, Duplicates
from lgcn.data.kinds import Kind
from lgcn.data.layouts import LAYOUTS, layout_of_file
from lgcn.data.newer import held_out
from lgcn.data.snapshot import KIND, Packed, Snapshot
from lgcn.data.sources import RatingTable
from lgcn.data.splits import Rows, Split
from lgcn.data.tables import Column, readable
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError, did_you_mean
from lgcn.files import expanded
from lgcn.graph.budget import users_at_a_time
from lgcn.graph.features import Features
from lgcn.graph.ratings import RatingGraph

log = logging.getLogger(__name__)

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
SplitKind = Literal["random", "temporal", "leave_last_out", "files"]
Over = Literal["train", "split"]

#: The settings that decide which edges are in which part.
DECISIVE = (
    *("source", "root", "user_column", "item_column", "rating_column", "timestamp_column", "separator", "format"),
    *("kind", "duplicates", "min_rating", "split", "val_fraction", "test_fraction", "train_path", "val_path"),
    *("test_path", "seed", "add_self_loops"),
)

#: Settings that decide what else is read.
OF_READING = ("threshold", "items_path", "users_path", "cache")

#: Held-out ratings of which a smaller share is positive, or not positive, say little.
FEW = 0.05

#: Ratings this many scales away from the scale of the others are said to be slips of the pen.
FAR = 3

#: What a model can do without the file that it was trained on.
NEED_NOTHING = "recommend, similar, export, serve and predict --data.predict_path FILE do not read the source"

#: The source, among the settings, where it is a frame.
FRAME = "DataFrame"

if TYPE_CHECKING:
    Source = str | PathLike[str] | pd.DataFrame | None
else:  # what the command line can give
    Source = str | None


class RatingsDataModule(pl.LightningDataModule):
    """Ratings from a named data set, a file or a DataFrame, split into training, validation and test graphs.

    Args:
        source: ``sample``, a MovieLens edition (``ml-100k``, ``ml-1m``, ``ml-10m``, ``ml-20m``, ``ml-25m``,
            ``ml-32m``, ``ml-latest``, ``ml-latest-small``), a data set of the paper (``gowalla``, ``yelp2018``,
            ``amazon-book``), or a path to a CSV, TSV or Parquet file, or to a folder or zip laid out as these are.
            From Python also a DataFrame, which does not change. Null if the parts are files of their own.
        root: where archives are kept and downloaded to. Null is the environment variable LGCN_DATA, else ``data``.
        mirror: where named data sets are downloaded from.
        user_column: name of the column of user ids, or its position from 0 if the file has no header line.
        item_column: likewise, of item ids.
        rating_column: likewise, of ratings. Null if there are none: implicit data, for the ranking objectives.
        timestamp_column: likewise, of times (seconds since 1970, or dates). Null if there are none.
        separator: between fields. Null is a tab for .tsv and .tab, else a comma.
        format: of files of one's own: ``table``, ``adjacency`` for lines of ``user item item ...`` (implicit data), or
            the name of a :class:`lgcn.data.layouts.Layout`.
        kind: what the ratings are: ``ratings`` (how much somebody liked something), ``counts`` (how often somebody
            chose it) or ``pairs`` (only that; the numbers do not matter). Null finds out (:mod:`lgcn.data.kinds`).
        duplicates: what becomes of several rows of one user and item: the ``last`` or ``first`` rating by time, or in
            the file's order if there are no times, the ``mean``, ``max`` or ``sum`` of the ratings, or the ``count`` of
            the rows. Null is last, or for a table without ratings count.
        min_rating: leave ratings below it out; users and items keep their index. The notebook's threshold is 1.
        split: ``random`` (as the notebook's), ``temporal`` (validation and test are the latest ratings),
            ``leave_last_out`` (each user's last rating is for test, the one before for validation), or ``files``.
        val_fraction: share of the ratings for validation, for ``random`` and ``temporal``; with ``files`` and no
            val_path, the share of the training file.
        test_fraction: share for test, for ``random`` and ``temporal``.
        train_path: for ``files``: the training ratings, a file or a name inside ``source`` such as ``u1.base``.
        val_path: likewise, for validation. Null draws them from the training file.
        test_path: likewise, for test.
        items_path: a table with what is known of the items, CSV, TSV or Parquet, or from Python a DataFrame: raw ids,
            perhaps titles, and any other columns. They are kept with the model and shown with recommendations.
        users_path: likewise, of the users.
        predict_path: for ``lgcn predict``: a file of pairs, with the same user and item columns. Null predicts
            the test part.
        eval_graph: what validation and test propagate over: ``train``, or ``split`` for the part's own pairs, which
            shows the model what it will be asked. ``split`` is the notebook's way and there to compare with it.
        add_self_loops: whether each node is its own neighbour in the propagation.
        seed: of the random split. The notebook's is 1.
        steps_per_epoch: training steps between validations.
        threshold: from which rating on a pair is positive: relevant, and for objectives that rank, to be found. Null
            is 60 % of the training ratings' scale, and of counts the smallest above 0. Of pairs every one is positive.
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
        format: str = "table",
        kind: Kind | None = None,
        duplicates: Duplicates | None = None,
        min_rating: float | None = None,
        split: SplitKind = "random",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        train_path: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        items_path: Source = None,
        users_path: Source = None,
        predict_path: str | None = None,
        eval_graph: Over = "train",
        add_self_loops: bool = False,
        seed: int = 1,
        steps_per_epoch: int = 100,
        threshold: float | None = None,
        eval_batch_size: int = 1 << 18,
        cache: str | None = "auto",
    ) -> None:
        super().__init__()
        tables = {"source": source, "items_path": items_path, "users_path": users_path}
        for name, table in tables.items():
            if not isinstance(table, pd.DataFrame | str | PathLike | None):
                raise InputError(f"--data.{name} must be a DataFrame, a path or a name (got {type(table).__name__})")
            if isinstance(table, str) and not table:  # it would be the current folder
                raise InputError(f"--data.{name} must not be empty")
        texts = {"root": root, "mirror": mirror, "separator": separator, "format": format, "predict_path": predict_path}
        texts |= {"train_path": train_path, "val_path": val_path, "test_path": test_path, "cache": cache}
        for name, text in texts.items():
            if not isinstance(text, str | PathLike | None):
                raise InputError(f"--data.{name} must be text (got {text!r})")
        # A frame is no setting: a checkpoint keeps its content, but not the frame.
        self._frames = {name: table for name, table in tables.items() if isinstance(table, pd.DataFrame)}
        source, items_path, users_path = (
            FRAME if name in self._frames else None if table is None else str(table) for name, table in tables.items()
        )
        self.save_hyperparameters()
        # A checkpoint holds no numbers of numpy and no paths.
        self.hparams.update({name: plain(value, f"data.{name}") for name, value in self.hparams.items()})
        for name, parameter in inspect.signature(RatingsDataModule).parameters.items():
            if self.hparams[name] is None and type(None) not in get_args(parameter.annotation):
                raise InputError(f"--data.{name} must not be null")
        self.columns = Columns(user_column, item_column, rating_column, timestamp_column)
        given = self.columns.given
        if len(set(map(str, given))) < len(given):
            raise InputError(f"each column can be one thing only (got {', '.join(map(repr, given))})")
        if (split == "files") != (train_path is not None and test_path is not None):
            raise InputError("--data.split files goes together with --data.train_path and --data.test_path")
        if split != "files" and source is None:
            raise InputError("--data.source is needed unless --data.split is files")
        for name, value in (("steps_per_epoch", steps_per_epoch), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise InputError(f"--data.{name} must be at least 1 (got {value})")
        choices: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
            ("split", split, get_args(SplitKind)),
            ("eval_graph", eval_graph, get_args(Over)),
            ("kind", kind, (None, *get_args(Kind))),
            ("duplicates", duplicates, (None, *get_args(Duplicates))),
        )
        for name, word, words in choices:
            if word not in words:
                raise InputError(
                    f"--data.{name} must be one of {', '.join(map(str, filter(None, words)))} (got {word!r})"
                    f"{did_you_mean(str(word), map(str, words))}"
                )
        if "source" in self._frames and (split == "files" or format != "table"):
            raise InputError("a DataFrame has no files: it goes with --data.format table and any other --data.split")
        self._layout = layout_of_file(format, self.columns, separator)
        self.eval_graph = eval_graph
        self.ask()

    def ask(self, by_users: bool = False, times: bool = False, features: bool = False) -> None:
        """Say what a model needs: held-out batches of users instead of pairs, times in its checkpoints, features."""
        self._by_users, self._keeps_times, self._needs_features = by_users, times, features
        for made_earlier in ("snapshot", "_packed"):
            vars(self).pop(made_earlier, None)

    # -- what others read ----------------------------------------------------------------------------------

    @property
    def graphs(self) -> dict[Part, RatingGraph]:
        """The training, validation and test graph. The first use reads the source."""
        return {part: self._data.graphs[part] for part in PARTS}

    @property
    def users(self) -> Vocabulary:
        """The raw ids of all parts' users."""
        return self._data.users

    @property
    def items(self) -> Vocabulary:
        """The raw ids of all parts' items."""
        return self._data.items

    @property
    def item_attributes(self) -> Attributes:
        """Titles and genres by index, where the source has them."""
        return self._data.item_attributes

    @property
    def features(self) -> list[Features | None]:
        """Of users, and of items, from their attributes (:mod:`lgcn.data.features`); None where nothing is known."""
        return self._data.features

    @property
    def implicit(self) -> bool:
        """Whether the data says who chose what, but not how it was liked; every rating is 1 then."""
        return self.graphs["train"].implicit

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
        return self._data.fingerprint

    def summary(self) -> list[str]:
        """Counts of what was read, a line each."""
        return _summary(self._data, self.hparams["split"], self.hparams["threshold"])

    @property
    def kind(self) -> Kind:
        """What the ratings are."""
        return self._data.kind

    def in_words(self) -> str:
        """What the data hold, in a few words."""
        ratings = torch.cat([graph.rating for graph in self.graphs.values()])
        return kinds.in_words(ratings.numpy(), self.kind)

    def take(self, other: "RatingsDataModule") -> None:
        """Take what another one has read, if it is the same."""
        same = all(self.hparams[name] == other.hparams[name] for name in (*DECISIVE, *OF_READING))
        if same and all(table is other._frames.get(name) for name, table in self._frames.items()):
            self._data = other._data

    # -- from the source to graphs -------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download a MovieLens edition that is not there yet."""
        sources.fetch(self.hparams["source"], self._root, self.hparams["mirror"])

    def setup(self, stage: str | None = None) -> None:
        """Read and split the source, once, whatever the stage. An InputError says why it cannot be used."""
        _ = self._data

    @cached_property
    def _data(self) -> Snapshot:
        """With graphs train, val, test, and left_out, which are the ratings below --data.min_rating."""
        self._check_options()
        self.prepare_data()
        cache = self._cache()
        data = self._cached(cache)
        if data is None:
            data = self._build(self._merged(self._read()))
            if cache:
                cache.save({"data": data.packed(), "digest": data.digest})
            data = self._with_threshold(data)
        for line in _summary(data, self.hparams["split"], self.hparams["threshold"]):
            log.info(line)
        _check_share(data)
        _check_slips(data)
        _check_known(data)
        return self._described(data)

    def _check_options(self) -> None:
        """Refuse what the source or the split does not look at."""
        given, parameters = self.hparams, inspect.signature(type(self).__init__).parameters
        unread, reason = sources.unread(given["source"], given["format"])
        split = given["split"]
        of_split = {"leave_last_out": ["val_fraction", "test_fraction"], "files": ["test_fraction"]}.get(split, [])
        if given["val_path"] is not None:
            of_split = [*of_split, "val_fraction"] if split == "files" else ["val_path"]
        reasons = dict.fromkeys(unread, reason) | dict.fromkeys(of_split, f"--data.split {split}")
        for name, reason in reasons.items():
            if name in parameters and given[name] != parameters[name].default:
                raise InputError(f"--data.{name} {given[name]} has no effect for {reason}; leave it out")
        for name in ("items_path", "users_path"):  # which are read last
            if given[name] not in (None, FRAME):
                with readable(expanded(given[name])):
                    pass

    def _cached(self, cache: Cache | None) -> Snapshot | None:
        content = cache.load() if cache else None
        if content is None:
            return None
        try:
            data = Snapshot.unpacked(content["data"])
            if data.digest == content["digest"] and data.graphs.keys() == {*PARTS, "left_out"}:
                return self._with_threshold(data)  # which is no part of an entry's name
        except (LookupError, TypeError, ValueError):
            pass
        log.warning("the cache entry is damaged; the source is read instead")
        return None

    def _with_threshold(self, data: Snapshot) -> Snapshot:
        """The data, with the threshold that was given, or that follows from the training ratings."""
        given = self.hparams["threshold"]
        threshold = kinds.threshold_of(data.train.rating.numpy(), data.kind) if given is None else given
        return replace(data, graphs={name: replace(graph, threshold=threshold) for name, graph in data.graphs.items()})

    def know(self, trained: Snapshot) -> None:
        """Take a model's own data instead of reading the source. Without it there is nothing to judge the model on."""
        kind: dict[str, Any] = {name: getattr(trained.train, name) for name in ("num_users", "num_items", *KIND)}
        nothing = torch.empty(0, dtype=torch.int64)
        empty = RatingGraph.from_edges(nothing, nothing, nothing.float(), **kind)
        graphs = {"train": trained.train, "val": empty, "test": empty, "left_out": trained.others}
        self._data = replace(trained, graphs=graphs)

    def hold_out(self, trained: Snapshot, part: Literal["val", "test"]) -> bool:
        """Judge a model that was trained on other data: all ratings of this source are a held-out part.

        Returns:
            False where the training ratings are the same, and nothing changes.

        Raises:
            InputError: no rating is left (:func:`lgcn.data.newer.held_out`).
        """
        self._check_options()
        table = self._merged(self._read())
        with suppress(InputError):  # what cannot be split can still be judged
            own = self._build(table)
            if own.fingerprint == trained.fingerprint:
                self._data = self._described(self._with_threshold(own))
                return False
        self._data = held_out(trained, table, part, self.hparams["min_rating"], self.hparams["threshold"])
        return True

    @property
    def _root(self) -> Path:
        root = self.hparams["root"]
        return sources.default_root() if root is None else expanded(root)

    @property
    def _paths(self) -> dict[Part, str]:
        """The files of the parts, with --data.split files."""
        paths = {part: self.hparams[f"{part}_path"] for part in PARTS if self.hparams["split"] == "files"}
        return {part: path for part, path in paths.items() if path is not None}

    def _cache(self) -> Cache | None:
        given = self.hparams
        if given["cache"] is None or given["source"] == FRAME:
            return None
        files = sources.files_of(given["source"], self._root, list(self._paths.values()))
        # Missing files are reported when they are read.
        if not all(path.is_file() for path in files) or sum(path.stat().st_size for path in files) < LARGE:
            return None
        folder = default_folder() if given["cache"] == "auto" else expanded(given["cache"])
        if folder is None:
            log.warning("nothing is kept in the cache: you have no home folder; give --data.cache FOLDER, or null")
            return None
        return Cache(folder, files, [[layout.name for layout in LAYOUTS], *(given[name] for name in DECISIVE)])

    def _read(self) -> RatingTable:
        given = self.hparams
        if given["source"] != FRAME:
            return sources.load(given["source"], self._root, self._layout, list(self._paths.values()))
        ratings = canonical.read_frame(self._frame("source"), self.columns)
        return RatingTable([ratings], None, "a DataFrame", self.columns.rating is None)

    def _frame(self, name: str) -> pd.DataFrame:
        """The DataFrame that was given for a setting."""
        if name not in self._frames:
            raise InputError(
                "the model was trained on a DataFrame, which is not kept; give its content as a file with "
                f"--data.{name}, or call test() on what lgcn.fit gave"
            )
        return self._frames[name]

    def _described(self, data: Snapshot) -> Snapshot:
        """The data with what the tables of items and users say."""
        of_items = self._attributes("item", data.items, self.columns.item, data.titles is not None)
        of_users = self._attributes("user", data.users, self.columns.user)
        # Those of the source itself, such as MovieLens's titles, come first.
        return replace(data, item_attributes=data.item_attributes.updated(of_items), user_attributes=of_users)

    def _attributes(
        self, what: Literal["user", "item"], ids: Vocabulary, column: Column, titled: bool = False
    ) -> Attributes:
        given = self.hparams[name := f"{what}s_path"]
        if given is None:
            return Attributes()
        source = self._frame(name) if given == FRAME else expanded(given)
        return read_attributes(source, ids, what, column, titled=titled)

    def _merged(self, table: RatingTable) -> RatingTable:
        """The table with one row for each pair of a part, and with predefined parts, one row for each pair."""
        how: Duplicates = self.hparams["duplicates"] or ("count" if table.implicit else "last")
        parts = [canonical.one_row_a_pair(part, how) for part in table.parts]
        if self._paths:
            named = [part.assign(part=name) for part, name in zip(parts, self._paths, strict=True)]
            whole = table._replace(parts=named).ratings
            # A rating that is to be predicted must not be trained on.
            earlier = whole.duplicated(["user", "item"], keep="last")
            if count := int(earlier.sum()):
                log.warning("repeated (user, item) pairs: %s rows; the part that comes last has them", f"{count:,}")
            parts = [whole[~earlier].reset_index(drop=True)]
        return table._replace(parts=parts, counted=how == "count")

    def _build(self, table: RatingTable) -> Snapshot:
        ratings, origin = table.ratings, table.origin
        with Console(stderr=True).status(f"numbering and splitting {len(ratings):,} ratings"):
            # Users and items are numbered before ratings are filtered, so --data.min_rating changes no index.
            users, items = Vocabulary(ratings["user"]), Vocabulary(ratings["item"])
            for what, vocabulary in (("user", users), ("item", items)):
                if len(vocabulary) < 2:
                    raise InputError(
                        f"{origin} has ratings of one {what} only ({next(iter(vocabulary))}); "
                        "there is nothing to learn from others with"
                    )
            parts = self._parts(ratings, origin)
            columns: dict[str, Any] = {"user": users.encode(ratings["user"]), "item": items.encode(ratings["item"])}
            columns["rating"] = ratings["rating"].to_numpy(dtype=np.float32)
            found = kinds.kind_of(columns["rating"])
            holds: Kind = self.hparams["kind"] or ("counts" if table.counted and found != "pairs" else found)
            if holds == "pairs":
                columns["rating"] = np.ones_like(columns["rating"])
            if "timestamp" in ratings:
                columns["time"] = ratings["timestamp"].to_numpy()
            kind: dict[str, Any] = {"add_self_loops": self.hparams["add_self_loops"], "implicit": holds == "pairs"}
            kind |= {"num_users": len(users), "num_items": len(items)}
            graphs: dict[str, RatingGraph] = {}
            for part, rows in parts.items():
                edges: dict[str, Any] = {name: torch.from_numpy(column[rows]) for name, column in columns.items()}
                graphs[part] = RatingGraph.from_edges(**edges, **kind)
            attributes = Attributes.of(table.items, items)
        given = self.hparams["min_rating"], origin, list(self.columns)
        return Snapshot(users, items, attributes, graphs, *given, kind=holds)

    def _parts(self, ratings: pd.DataFrame, origin: str) -> dict[str, Rows]:
        """The rows of each part, and of ``left_out``, what is below --data.min_rating."""
        lowest, rating = self.hparams["min_rating"], ratings["rating"].to_numpy()
        kept = np.ones(len(rating), dtype=bool) if lowest is None else rating >= lowest
        if lowest is not None:
            log.info("%s of %s ratings are below %g", f"{int((~kept).sum()):,}", f"{len(rating):,}", lowest)
        split = self._split(ratings if kept.all() else ratings[kept].reset_index(drop=True), origin)
        rows = np.flatnonzero(kept)
        return {part: rows[getattr(split, part)] for part in PARTS} | {"left_out": np.flatnonzero(~kept)}

    def _split(self, ratings: pd.DataFrame, origin: str) -> Split:
        given = self.hparams
        how, fractions = f"--data.split {given['split']}", (given["val_fraction"], given["test_fraction"])
        timestamp = ratings.get("timestamp")
        if given["split"] == "random":
            split = splits.random_split(len(ratings), *fractions, seed=given["seed"])
        elif given["split"] == "files":
            split = self._split_files(ratings["part"].to_numpy())
        elif given["split"] == "leave_last_out":
            split = splits.leave_last_out_split(ratings["user"], timestamp)
        elif timestamp is None:
            raise InputError(f"{how} needs times, and {origin} has none; name them with --data.timestamp_column")
        else:
            split = splits.temporal_split(timestamp, *fractions)
        return split.checked(how)

    def _split_files(self, part: "np.ndarray[Any, Any]") -> Split:
        train, val, test = (np.flatnonzero(part == name) for name in PARTS)
        if "val" not in self._paths:
            fraction = self.hparams["val_fraction"]
            if not 0 < fraction < 1:
                way_out = "or give --data.val_path"
                raise InputError(f"--data.val_fraction must be between 0 and 1 (got {fraction}), {way_out}")
            train, val = splits.divide(train, fraction, self.hparams["seed"])
        return Split(train, val, test)

    # -- loaders -------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainingSteps:
        return TrainingSteps(self.hparams["steps_per_epoch"])

    def val_dataloader(self) -> EdgeChunks | UserChunks:
        return self._chunks("val")

    def test_dataloader(self) -> EdgeChunks | UserChunks:
        return self._chunks("test")

    def predict_dataloader(self) -> EdgeChunks:
        user, item = map(torch.from_numpy, self.predict_indices)
        time = self.graphs["test"].time if self.hparams["predict_path"] is None else None
        return EdgeChunks(Edges(user, item, None, time), self.hparams["eval_batch_size"])

    def _chunks(self, part: Part) -> EdgeChunks | UserChunks:
        """This process's share of a part's ratings, or of the users who have some."""
        graph = self.graphs[part]
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self._by_users:
            users = graph.user_degree.nonzero()[:, 0]
            return UserChunks(users[rank::processes], users_at_a_time(self.num_items))
        first, last = (len(graph) * process // processes for process in (rank, rank + 1))
        time = None if graph.time is None else graph.time[first:last]
        edges = Edges(graph.user[first:last], graph.item[first:last], graph.rating[first:last], time)
        return EdgeChunks(edges, self.hparams["eval_batch_size"])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move pairs to the device of the model. The number of a training step is not searched for tensors."""
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
        if path is not None:
            return canonical.read_pairs(expanded(path), self.columns, self.hparams["separator"])
        user, item = self.predict_indices
        pairs = {"user": self.users.decode(user), "item": self.items.decode(item)}
        return pd.DataFrame({**pairs, "rating": self.graphs["test"].rating.numpy()})

    # -- checkpoints ---------------------------------------------------------------------------------------

    @cached_property
    def snapshot(self) -> Snapshot:
        """What a checkpoint keeps of the data."""
        data, train = self._data, self._data.train
        if not self._keeps_times:
            train = train.having(time=None)
        parts = [data.graphs[name] for name in ("val", "test", "left_out")]
        user, item, rating = (torch.cat([getattr(part, name) for part in parts]) for name in ("user", "item", "rating"))
        kind = {name: getattr(train, name) for name in ("num_users", "num_items", *KIND)}
        return replace(data, graphs={"train": train, "others": RatingGraph.from_edges(user, item, rating, **kind)})

    @cached_property
    def _packed(self) -> Packed:
        return self.snapshot.packed()

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "snapshot": self._packed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise an InputError if a checkpoint was trained on other users, items or training ratings.

        For a model that needs features, what is known of users and items must be the same, too.
        """
        if state_dict["fingerprint"] != self.fingerprint:
            raise InputError(
                f"the checkpoint was trained on other data than {self._data.origin} with these settings: users, items "
                "or training ratings differ; use the --data settings of its run (config.yaml beside it), or train "
                f"anew; {NEED_NOTHING}"
            )
        for what in ("item", "user") if self._needs_features else ():
            if state_dict["snapshot"][name := f"{what}_attributes"] != getattr(self._data, name).packed():
                raise InputError(
                    f"what is known of {what}s is not what the checkpoint was trained with, and its model uses that "
                    f"(--model.content); give the --data.{what}s_path of its run, or train on with --init_from"
                )


def _summary(data: Snapshot, split: str, given: float | None) -> list[str]:
    """What was read, where ``given`` is the threshold, if somebody gave one."""
    parts = [data.graphs[part] for part in PARTS]
    entries = [2 * len(graph) + graph.num_nodes * graph.add_self_loops for graph in parts]
    positives = [int(graph.positive.sum()) for graph in parts]
    counts = (map(len, parts), positives, entries)
    sizes, positive, shown = (" / ".join(f"{count:,}" for count in counted) for counted in counts)
    covered = [int((degree > 0).sum()) for degree in (data.train.user_degree, data.train.item_degree)]
    lines = [
        f"data: {data.origin}",
        f"{len(data.users):,} users, {len(data.items):,} items, {sum(map(len, parts)):,} {data.kind}",
        f"train / val / test ({split} split): {sizes}",
        f"adjacency entries: {shown}",
        f"training covers {covered[0]:,} users and {covered[1]:,} items",
    ]
    if not data.implicit:
        source = "from the data" if given is None else "--data.threshold"
        lines.append(f"positive are {data.kind} from {data.train.threshold:g} on ({source}): {positive}")
    return lines


def _check_known(data: Snapshot) -> None:
    """Warn where nearly all of a held-out part are of users, or of items, without training ratings."""
    for part in PARTS[1:]:
        graph = data.graphs[part]
        sides = {"users": (graph.user, data.train.user_degree), "items": (graph.item, data.train.item_degree)}
        for what, (place, degree) in sides.items():
            share = float((degree[place.long()] == 0).float().mean())
            if share > 1 - FEW:
                log.warning(
                    "%.0f %% of the %s part are of %s without training ratings: are they written in another way there, "
                    "or is --data.split another one?",
                    *(100 * share, part, what),
                )


def _check_slips(data: Snapshot) -> None:
    """Warn of ratings that are far from the others: one 500 among stars makes a scale of 500."""
    lowest, highest = kinds.usual_scale(data.train.rating.numpy())
    away = FAR * (highest - lowest)
    for graph in [data.graphs[part] for part in PARTS] if data.kind == "ratings" and away else []:
        far = ((graph.rating < lowest - away) | (graph.rating > highest + away)).nonzero()[:, 0]
        if len(far):
            first = far[:1]
            log.warning(
                "far from all other ratings (%g to %g): %s, such as %g of item %s by user %s; mend or remove what is "
                "no rating",
                *(lowest, highest, f"{len(far):,}", graph.rating[first].item()),
                *(data.items.decode(graph.item[first])[0], data.users.decode(graph.user[first])[0]),
            )


def _check_share(data: Snapshot) -> None:
    """Warn where nearly all or nearly none of the held-out ratings are positive."""
    held_out = [data.graphs[part] for part in PARTS[1:]]
    share = sum(int(graph.positive.sum()) for graph in held_out) / sum(map(len, held_out))
    if data.kind == "ratings" and not FEW <= share <= 1 - FEW:
        log.warning(
            "%.0f %% of the held-out ratings reach the threshold %g, so recall and precision say little; give another "
            "--data.threshold",
            *(100 * share, data.train.threshold),
        )
