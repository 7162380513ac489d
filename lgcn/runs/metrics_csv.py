"""ContinuedCSVLogger: a run's metrics.csv that a resumed run adds to."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from lgcn.files import replacing


class ContinuedCSVLogger(CSVLogger):
    """CSVLogger that adds to the metrics.csv already there, from ``first_step`` on, where Lightning's deletes it."""

    def __init__(self, *args: Any, first_step: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._first_step = first_step

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _ContinuedWriter(self.log_dir, self._first_step)
        return self._experiment


class _ContinuedWriter(ExperimentWriter):
    def __init__(self, log_dir: str, first_step: int) -> None:
        self._first_step = first_step
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        """Keep the rows before the first step; those after it were written by a run that went on and was killed."""
        import pandas as pd

        path = Path(self.metrics_file_path)
        if not path.is_file() or path.stat().st_size == 0:
            return
        rows = pd.read_csv(path)
        self.metrics_keys = list(rows.columns)
        kept = rows[rows["step"] < self._first_step]
        if len(kept) < len(rows):
            with replacing(path) as part:
                kept.to_csv(part, index=False)
