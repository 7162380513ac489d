"""Metrics, baselines and what they say of a model."""
