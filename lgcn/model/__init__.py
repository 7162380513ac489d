"""LightGCN, its heads and its scores."""
