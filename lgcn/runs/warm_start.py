"""WarmStart: training on newer data starts from a trained model (:mod:`lgcn.model.fold_in`)."""

import logging
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from lgcn.checkpoints import read_checkpoint
from lgcn.data.datamodule import PARTS, RatingsDataModule
from lgcn.data.newer import warn_of_scale
from lgcn.data.snapshot import Snapshot, snapshot_of
from lgcn.errors import InputError
from lgcn.model.fold_in import fold_in, take_over
from lgcn.model.heads import DotHead
from lgcn.model.lightgcn import LightGCN
from lgcn.training.module import LightGCNModule

log = logging.getLogger(__name__)


class WarmStart(Callback):
    """Puts a checkpoint's parameters into the module before training.

    Args:
        path: the checkpoint, of a model with the same settings. Its data may be other data.

    Raises:
        InputError: the checkpoint is of a model with other settings, or knows none of the users and items.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LightGCNModule)
        module, data = pl_module, trainer.datamodule  # type: ignore[attr-defined]
        if module.model.columns.processes > 1:
            raise InputError("--init_from goes without --trainer.strategy columns: start in one process, then resume")
        if not module.objective.trains:
            log.info("a closed form has no start: it is fitted anew to all these data, with the checkpoint's settings")
            return
        content = read_checkpoint(self.path)
        trained = snapshot_of(content)
        old = LightGCN.of_checkpoint(content, trained.train, lambda: trained.features).to(module.device)
        ids = ((trained.users, data.users), (trained.items, data.items))
        places = [torch.from_numpy(theirs.encode(list(ours))).to(module.device) for theirs, ours in ids]
        if not any((place >= 0).any() for place in places):
            raise InputError(
                f"{self.path} knows none of the users and items: are their ids written in another way? A fit without "
                "--init_from starts anew"
            )
        take_over(module.model, old, places)
        _move(old, module.model)
        for side in (1, 0):  # new items first: known users have rated them
            if not module.objective.ranks:
                fold_in(module.model, module._matrices["train"], module.training_ratings, places[side] < 0, side == 1)
        for what, (theirs, ours), place in zip(("users", "items"), ids, places, strict=True):
            known = int((place >= 0).sum())
            gone = f"; {len(theirs) - known:,} of the checkpoint are not in the data" if known < len(theirs) else ""
            log.info(
                "%s: %s start from the checkpoint, %s are new%s", what, f"{known:,}", f"{len(ours) - known:,}", gone
            )
        module.keep_embeddings()
        _warn_of_known_answers(trained, data)
        warn_of_scale(trained, data.graphs["train"].rating.numpy())


@torch.no_grad()
def _move(old: LightGCN, new: LightGCN) -> None:
    """Move biases and embeddings from the old mean and unit of the ratings to the new ones: predictions stay."""
    was, head = old.head, new.head
    if not (isinstance(was, DotHead) and isinstance(head, DotHead)):
        return
    units = [float(one.unit_of_ratings) for one in (was, head)]
    ratio = units[0] / units[1]
    new.embedding.weight.mul_(ratio**0.5)  # a score is a product of two
    if new.sessions is not None:
        new.sessions.effect.mul_(ratio)
    for table in () if new.content is None else (new.content.user, new.content.item):
        table[:, :-1].mul_(ratio**0.5)
        table[:, -1].mul_(ratio)
    if head.user_bias is not None and head.item_bias is not None:
        head.item_bias.mul_(ratio)
        head.user_bias.mul_(ratio).add_((float(was.offset) - float(head.offset)) / units[1])


def _warn_of_known_answers(trained: Snapshot, data: RatingsDataModule) -> None:
    """Say how many held-out ratings the checkpoint was trained on. Metrics of these are too good."""
    size = len(trained.items)
    known = trained.train.user.long() * size + trained.train.item.long()
    for part in PARTS[1:]:
        graph = data.graphs[part]
        user = torch.from_numpy(trained.users.encode(data.users.decode(graph.user)))
        item = torch.from_numpy(trained.items.encode(data.items.decode(graph.item)))
        seen = int(torch.isin((user * size + item)[(user >= 0) & (item >= 0)], known).sum())
        if seen:
            log.warning(
                "the checkpoint was trained on %s of the %s %s ratings, so their metrics are too good; --data.split "
                "temporal holds out the latest ones",
                *(f"{seen:,}", f"{len(graph):,}", part),
            )
