"""Heads: from propagated embeddings to a rating.

Whatever the head, a rating is an inner product of two rows, a bias on either side and a constant,
r̂(u, i) = p(u) · q(i) + b(u) + b(i) + offset. Training can therefore use one sampled product over the rated pairs,
ranking one matrix product, and export two tables.

Shape letters: U users, I items, N = U + I nodes, D embedding columns, C propagated columns, F factor columns.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lgcn.graph.ops import full_precision, own_precision

Terms = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]


class Head(nn.Module):
    """What a head must do: say what travels over the graph, then what to make of it."""

    def project(self, embedding: Tensor) -> Tensor:
        """From the embedding table [N, D] to what is propagated, [N, C].

        Propagation is linear, so any linear map may be applied before it instead of after.
        """
        raise NotImplementedError

    def forward(self, user: Tensor, item: Tensor) -> Terms:
        """From propagated users [U, C] and items [I, C] to p [U, F], q [I, F], biases [U] and [I], and the offset."""
        raise NotImplementedError

    def reads(self, user: Tensor, item: Tensor) -> Tensor:
        """What a user's propagated columns [C] are multiplied by in the score of each item [k, F]; [k, C].

        A user's columns are a sum over what the user rated, so this tells what each rating did to a score.
        """
        raise NotImplementedError

    def fit_mean(self, mean: float) -> None:
        """Take note of the mean training rating, before training starts."""

    def completed(self, rows: Tensor, known: Tensor) -> Tensor:
        """Rows [n, ...] of users or items, factors or biases, and one more at the end, [n + 1, ...], for any user or
        item that is not in the data: the mean of the rows that are ``known`` from training ratings, [n] bool.

        The other rows stay as they are, which is what the notebook has there.
        """
        return torch.cat([rows, rows[known].mean(dim=0, keepdim=True)])


class LinearHead(Head):
    """The notebook's head: a linear layer on the user's and the item's embedding side by side.

    It is additive, r̂ = w_u · e_u + w_i · e_i + b, so it ranks items alike for every user. Only the two columns
    E w_u and E w_i are sent over the graph, not all D, the first to be read at users and the second at items, and they
    are all that is left: F is 0.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.out = nn.Linear(2 * embedding_dim, 1)

    @property
    def readout(self) -> Tensor:
        """w_u and w_i, [2, D]."""
        return self.out.weight.view(2, self.embedding_dim)

    def project(self, embedding: Tensor) -> Tensor:
        # Two long rows instead of two columns in the table's own orientation.
        embedding = full_precision(embedding)
        with own_precision(embedding):
            return (self.readout.to(embedding.dtype) @ embedding.t()).t()

    def forward(self, user: Tensor, item: Tensor) -> Terms:
        return self.terms(user[:, 0], item[:, 1])

    def terms(self, user: Tensor, item: Tensor) -> Terms:
        """What :meth:`forward` gives, from all that it reads: users' first column [U] and items' second [I]."""
        return user.new_empty(len(user), 0), item.new_empty(len(item), 0), user, item, self.out.bias.view(())

    def reads(self, user: Tensor, item: Tensor) -> Tensor:
        return user.new_tensor([1.0, 0.0]).expand(len(item), 2)


class DotHead(Head):
    """The paper's head (LightGCN, equation 5): the inner product r̂ = e_u · e_i.

    With ``biases``, r̂ = mean + b_u + b_i + e_u · e_i (Koren et al., "Matrix factorization techniques for
    recommender systems", 2009, equation 4); mean is that of the training ratings and is not learned.
    """

    offset: Tensor
    user_bias: nn.Parameter | None
    item_bias: nn.Parameter | None

    def __init__(self, num_users: int, num_items: int, biases: bool = False) -> None:
        super().__init__()
        self.user_bias = nn.Parameter(torch.zeros(num_users)) if biases else None
        self.item_bias = nn.Parameter(torch.zeros(num_items)) if biases else None
        self.register_buffer("offset", torch.zeros(()))

    def project(self, embedding: Tensor) -> Tensor:
        return embedding

    def forward(self, user: Tensor, item: Tensor) -> Terms:
        return user, item, self.user_bias, self.item_bias, self.offset

    def reads(self, user: Tensor, item: Tensor) -> Tensor:
        return item

    def completed(self, rows: Tensor, known: Tensor) -> Tensor:
        """As for every head; and rows that are not known are that last row, too.

        With biases it is 0, so that a prediction falls back on the other side's bias and the mean. (The mean row is
        worse: on the items without training ratings of ml-latest-small's validation part RMSE .907 instead of .853.)
        """
        rows = rows.where(known.view(-1, *[1] * (rows.dim() - 1)), 0.0)
        if self.user_bias is not None:
            return torch.cat([rows, torch.zeros_like(rows[:1])])
        whole = super().completed(rows, known)
        return torch.cat([whole[:-1].where(known[:, None], whole[-1:]), whole[-1:]])

    def fit_mean(self, mean: float) -> None:
        if self.user_bias is not None:
            self.offset.fill_(mean)


class CosineHead(DotHead):
    """The cosine of user and item, cos(e_u, e_i), with the biases of :class:`DotHead`: how far an embedding is from
    the origin, which grows with the number of ratings, plays no part. An embedding of 0 has cosine 0 with all."""

    def forward(self, user: Tensor, item: Tensor) -> Terms:
        return super().forward(normalize(user, dim=1), normalize(item, dim=1))

    def reads(self, user: Tensor, item: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(user).clamp_min(1e-12)  # as `normalize` has it
        return item / length
