"""Fold-in: a trained model takes in users and items that it has never seen.

Known ones keep their parameters. The propagated columns of new ones come from their ratings, as for everybody. Their
own embeddings are 0, so they send nothing yet; where layer 0 counts, they are the mean of the known ones. In models of
ratings a bias, and where layer 0 counts a ridge regression, correct what is still wrong about their ratings. What the
regression adds is no longer than the longest known embedding. Where L2 has made all of them nearly 0 they explain
nothing, and it would explain errors by embeddings without bounds, which others then receive.

Shape letters: U users, I items, N = U + I nodes, D embedding columns, E ratings (edges).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.ops import Multipliable
from lgcn.graph.ratings import RatingGraph
from lgcn.model.lightgcn import LightGCN

RIDGE = 5.0  # strength of the ridge on a new embedding: so many ratings of a mean user or item
DAMPING = (BiasBaseline.user_reg, 2.0)  # ratings of bias 0 that are added to a new user, and to a new item


@torch.no_grad()
def take_over(new: LightGCN, old: LightGCN, places: Sequence[Tensor]) -> None:
    """Copy a trained model's parameters into one with other users and items.

    Args:
        new, old: models of the same settings, prepared for their data. Of the head, parameters whose names begin with
            user_ or item_ have a row for each user or item.
        places: of each of the new model's users [U], and items [I], the row in the old one; -1 for new ones.

    Raises:
        InputError: the models have other settings.

    >>> old, new = LightGCN(2, 2, embedding_dim=1), LightGCN(3, 2, embedding_dim=1)
    >>> take_over(new, old, [torch.tensor([1, -1, 0]), torch.tensor([0, 1])])
    >>> bool(new.embedding.weight[0] == old.embedding.weight[1])
    True
    """
    tables = old.embedding.weight.view(-1, old.num_users + old.num_items, old.embedding.embedding_dim)
    sides, ego = (tables[:, : old.num_users], tables[:, old.num_users :]), _ego(old) != 0
    started = []
    for side, place in zip(sides, places, strict=True):
        fresh = side.mean(dim=1, keepdim=True) if ego else torch.zeros_like(side[:, :1])
        started.append(torch.where((place < 0)[:, None], fresh, side[:, place.clamp(min=0)]))
    values = {name: value.detach() for name, value in old.named_parameters()}
    values["embedding.weight"] = torch.cat(started, dim=1).flatten(0, 1)
    values |= _of_data(new, old, places[0])
    for place, what in zip(places, ("user", "item"), strict=True):
        for name in [name for name in values if name.startswith(f"head.{what}_")]:
            kept = values[name][place.clamp(min=0)]
            values[name] = kept.where((place >= 0).view(-1, *[1] * (kept.dim() - 1)), 0.0)
    parameters = dict(new.named_parameters())
    shapes, found = ({name: one.shape for name, one in them.items()} for them in (parameters, values))
    if shapes != found:
        wrong = sorted(name for name in {**shapes, **found} if shapes.get(name) != found.get(name))
        raise InputError(f"the trained model has other settings: {', '.join(wrong)} differ")
    for name, value in values.items():
        parameters[name].copy_(value)


def _of_data(new: LightGCN, old: LightGCN, users: Tensor) -> dict[str, Tensor]:
    """The parameters that depend on what the data hold: sessions and features keep theirs."""
    values = {}
    if old.sessions is not None and new.sessions is not None:
        was, now = old.sessions.settings.windows, new.sessions.settings.windows
        if was != now:
            raise InputError(f"the trained model has other settings: 'windows' {[*was]} there and {[*now]} here")
        place = new.sessions.numbered.numbers_in(old.sessions.numbered, users)
        known = torch.cat([old.sessions.effect.detach(), old.sessions.effect.new_zeros(1)])
        values["sessions.effect"] = known[place]  # -1 is the last
    if old.content is not None and new.content is not None:
        for name, theirs, ours in zip(("user", "item"), old.content.sides, new.content.sides, strict=True):
            kept = getattr(new.content, name).detach().clone()
            places = {} if theirs is None else {word: place for place, word in enumerate(theirs.names)}
            for row, word in enumerate(() if ours is None else ours.names):
                if word in places:
                    kept[row] = getattr(old.content, name)[places[word]]
            values[f"content.{name}"] = kept
    return values


@torch.no_grad()
def fold_in(
    model: LightGCN, matrices: Sequence[Multipliable], graph: RatingGraph, is_new: Tensor, of_items: bool
) -> None:
    """Fit biases and embeddings of new users or items to what a model of ratings gets wrong about their ratings.

    Args:
        model: whose head may have biases. Without, nothing changes.
        matrices: of the channels, [N, N] each.
        graph: the ratings, those of new users and items among them.
        is_new: which users [U], or items [I], are new.
        of_items: whether items are folded in, or users.
    """
    bias = getattr(model.head, "item_bias" if of_items else "user_bias", None)
    if bias is None or not bool(is_new.any()):
        return
    ends = (graph.user.long(), graph.item.long())
    node, other = (ends[1], ends[0]) if of_items else ends
    chosen = is_new[node].nonzero()[:, 0]
    chosen = chosen[node[chosen].argsort(stable=True)]
    factors, unit = model(*matrices), float(model.head.unit_of_ratings)
    left, node, other = (graph.rating - factors.predict(*ends))[chosen] / unit, node[chosen], other[chosen]
    count = torch.bincount(node, minlength=len(is_new))
    # Parameters may be of half precision. What is solved for is not.
    shift = torch.zeros_like(bias, dtype=left.dtype).index_add_(0, node, left) / (count + DAMPING[of_items])
    bias.add_(shift)
    theirs = factors.user / unit if of_items else factors.item  # users' factors hold the unit
    ego = _ego(model)
    if not ego or theirs.shape[1] != model.embedding.embedding_dim:
        return
    left, inputs = left - shift[node], theirs[other].to(left.dtype)
    known = model.embedding.weight[of_items * model.num_users :][: len(is_new)][~is_new]
    longest = float(known.norm(dim=1).max()) if len(known) else 0.0
    penalty = RIDGE * theirs.square().sum(dim=1).mean() * torch.eye(inputs.shape[1]).to(inputs)
    bounds = pairwise([0, *count[is_new].cumsum(0).tolist()])
    for row, (first, last) in zip(is_new.nonzero()[:, 0].tolist(), bounds, strict=True):
        given = inputs[first:last]
        solved = torch.linalg.solve(given.t() @ given + penalty, given.t() @ left[first:last]) / ego
        model.embedding.weight[row + of_items * model.num_users] += torch.renorm(solved[None], 2, 0, longest)[0]


def _ego(model: LightGCN) -> float:
    """The weight of layer 0."""
    return float(model.layer_weights[0])
