"""Small made-up data that the examples in docstrings are about: three users, three items."""

import pandas as pd
import torch

from lgcn.graph.ratings import RatingGraph

#: Ana rated a book and a film, Ben the film, Eve a song.
ratings = pd.DataFrame(
    {"user": ["Ana", "Ana", "Ben", "Eve"], "item": ["book", "film", "film", "song"], "rating": [5.0, 3.0, 4.0, 1.0]}
)

#: The same as a graph: users and items are numbered in the order of the alphabet.
graph = RatingGraph.from_edges(
    torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2]), torch.tensor([5.0, 3.0, 4.0, 1.0]), num_users=3, num_items=3
)
