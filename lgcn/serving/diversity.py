"""Diversity: lists of good items that are unlike each other.

Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) takes item after item, each time the one with the most

    (1 - diversity) · relevance(i) - diversity · max over the items j taken so far of similarity(i, j)

- Similarity is the cosine of the items' factors, as in ``lgcn similar``. The first item is the best one.
- Scores are on the model's scale, and a cosine is not. Relevance is therefore the score's place between the user's
  candidates: 1 is the best of them and 0 the last. The candidates are a user's best CANDIDATES · k items, so that no
  list holds what the user would not like at all.

Shape letters: I items, B users of a chunk, P candidates, F factor columns.
"""

import torch
from torch import Tensor

from lgcn.model.top_items import Top

CANDIDATES = 10  # for each item of a list


def diverse(top: Top, directions: Tensor, k: int, diversity: float) -> Top:
    """The k items of each list in the order of their marginal relevance.

    Args:
        top: the candidates of each user, [B, P], the best first.
        directions: [I, F], the items' factors at length 1.
        k: how many items, at most P.
        diversity: 0 to 1; 0 is the order of the scores.

    >>> top = Top(torch.tensor([[0, 1, 2]]), torch.tensor([[5.0, 4.9, 4.0]]))
    >>> directions = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # 0 and 1 are alike
    >>> diverse(top, directions, k=2, diversity=0.5).item
    tensor([[0, 2]])
    """
    item, score = top
    there = score > -torch.inf
    worst = score.where(there, torch.inf).amin(dim=1, keepdim=True)
    relevance = (score - worst) / (score[:, :1] - worst).clamp_min(torch.finfo(score.dtype).tiny)
    vectors = directions[item.where(there, 0)]
    left, nearest = there.clone(), torch.full_like(score, -torch.inf)
    place = torch.zeros_like(item[:, :1])  # of the first item
    places = [place]
    for _ in range(k - 1):
        left.scatter_(1, place, value=False)
        taken = vectors.gather(1, place[:, :, None].expand(-1, -1, vectors.shape[2]))
        nearest = torch.maximum(nearest, (vectors @ taken.mT).squeeze(2))
        worth = (1 - diversity) * relevance - diversity * nearest
        place = worth.masked_fill(~left, -torch.inf).argmax(dim=1, keepdim=True)
        places.append(place)
    order = torch.cat(places, dim=1)
    few = torch.arange(k) >= there.sum(dim=1, keepdim=True)  # lists that end before
    item, score = item.gather(1, order), score.gather(1, order)
    return Top(item.masked_fill(few, len(directions)), score.masked_fill(few, -torch.inf))
