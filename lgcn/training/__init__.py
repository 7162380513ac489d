"""Objectives, and the LightningModule that minimises them."""
