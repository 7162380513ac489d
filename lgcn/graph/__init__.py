"""The ratings as a graph: sparse kernels, normalisation, channels. Knows tensors only."""
