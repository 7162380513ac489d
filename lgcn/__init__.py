"""LightGCN on ratings, trained with PyTorch Lightning.

    from lgcn import LightGCNModule, RatingsDataModule, Recommender

The names are imported when they are asked for, so that ``import lgcn`` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lgcn.data.datamodule import RatingsDataModule
    from lgcn.runs.fit import Fitted, fit
    from lgcn.serving.recommender import Recommender
    from lgcn.training.module import LightGCNModule

__version__ = "0.1.0"
__all__ = ["Fitted", "LightGCNModule", "RatingsDataModule", "Recommender", "fit"]

_HOMES = {
    "Fitted": "lgcn.runs.fit",
    "LightGCNModule": "lgcn.training.module",
    "RatingsDataModule": "lgcn.data.datamodule",
    "Recommender": "lgcn.serving.recommender",
    "fit": "lgcn.runs.fit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lgcn' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
