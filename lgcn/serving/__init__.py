"""A trained model at work. Imports nothing of training."""
