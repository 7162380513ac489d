"""LightGCN on ratings, trained with PyTorch Lightning."""

__version__ = "0.1.0"
