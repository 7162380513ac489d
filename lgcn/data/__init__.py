"""From a ratings file to split graphs: sources ▸ vocabulary ▸ splits ▸ datamodule."""
