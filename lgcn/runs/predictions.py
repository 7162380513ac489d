"""PredictionWriter: what ``lgcn predict`` writes."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lgcn.files import check_output, replacing
from lgcn.model.uncertainty import UNKNOWN, Interval
from lgcn.terminal import counted, say
from lgcn.training.module import LightGCNModule

log = logging.getLogger(__name__)


class PredictionWriter(Callback):
    """Writes predicted ratings with raw ids to a file; where the model knows its errors, with sd, low and high.

    Args:
        output: the file; its ending, .csv or .parquet, says what to write.

    Raises:
        InputError: it has another ending, or cannot be written.
    """

    ENDINGS = (".csv", ".parquet")

    def __init__(self, output: str) -> None:
        self.output = Path(output)
        self.chunks: list[Tensor] = []
        self.intervals: list[Tensor] = []  # each [3, B]
        check_output(self.output, self.ENDINGS)

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *more: Any, **named: Any
    ) -> None:
        self.chunks.append(outputs.cpu())
        interval = pl_module.interval(outputs, batch) if isinstance(pl_module, LightGCNModule) else None
        if interval is not None:
            self.intervals.append(torch.stack([*interval]).cpu())

    @rank_zero_only
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        table: pd.DataFrame = data.predict_pairs
        for name, index in zip(("user", "item"), data.predict_indices, strict=True):
            unknown = table[name][index < 0].fillna("no id")
            if len(unknown):
                shown = ", ".join(map(str, unknown.unique()[:5])) + (", ..." if unknown.nunique() > 5 else "")
                log.warning(
                    "%s with a%s %s that is not in the data (%s): predicted from the other side and the mean",
                    *(counted(len(unknown), "pair"), "n" if name == "item" else "", name, shown),
                )
        table["prediction"] = torch.cat(self.chunks).double().numpy()
        if self.intervals:
            table[[*Interval._fields]] = torch.cat(self.intervals, dim=1).double().t().numpy()
        elif isinstance(pl_module, LightGCNModule) and not pl_module.objective.ranks:
            log.info("without sd, low and high: %s", UNKNOWN)
        with replacing(self.output) as part:
            if self.output.suffix == ".csv":
                table.to_csv(part, index=False, float_format="%.6g")
            else:
                table.to_parquet(part, index=False)
        say(f"{counted(len(table), 'prediction')} written to {self.output}")
