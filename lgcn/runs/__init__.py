"""The command line, run folders, checkpoints, reports."""
