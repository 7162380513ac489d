"""Session biases: a user rates higher on some days, and in some hours, than on others.

Koren, "Collaborative filtering with temporal dynamics", KDD 2009, section 3.1, adds a bias for each user and day.
Departures: there may be several windows, from a day to minutes, and the biases of a user's ratings have the mean 0, so
that the user's own bias keeps what all days share. A session that training does not know, such as now, has the bias 0.

Shape letters: U users, E ratings (edges), W windows, n sessions, B pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.sessions import Sessions
from lgcn.model.content import with_rows
from lgcn.model.factors import Factors, Moments

MOST_WINDOWS = 16  # each is 4 bytes a rating


@dataclass(frozen=True)
class SessionBias:
    """What a session is, and how strongly its bias is damped. Data without times have no sessions.

    Args:
        windows: lengths in seconds. A user's ratings in the same window are a session.
        damping: ratings of bias 0 that are added to each session.

    Raises:
        InputError: an argument is out of its range.

    >>> SessionBias().windows
    (86400.0, 3600.0, 600.0, 120.0)
    """

    windows: Sequence[float] = (86400.0, 3600.0, 600.0, 120.0)
    damping: float = 20.0

    def __post_init__(self) -> None:
        lengths = [window for window in self.windows if isinstance(window, int | float) and window > 0]
        if not 1 <= len(self.windows) == len(lengths) <= MOST_WINDOWS:
            raise InputError(
                f"'windows' must be 1 to {MOST_WINDOWS} lengths in seconds, above 0 (got {str(self.windows)[:80]})"
            )
        if not self.damping > 0:
            raise InputError(f"'damping' must be above 0 (got {self.damping})")
        object.__setattr__(self, "windows", tuple(map(float, self.windows)))


class SessionBiases(nn.Module):
    """The biases of the training ratings' sessions. :meth:`prepare` finds out how many there are.

    >>> from dataclasses import replace
    >>> from lgcn.examples import graph
    >>> biases = SessionBiases(SessionBias([60]))
    >>> biases.prepare(replace(graph, time=torch.tensor([0.0, 50.0, 70.0, 70.0]))).session.shape
    torch.Size([4, 1])
    """

    def __init__(self, settings: SessionBias) -> None:
        super().__init__()
        self.settings, self.sessions = settings, None
        self.effect = nn.Parameter(torch.zeros(0))

    sessions: Sessions | None

    def prepare(self, graph: RatingGraph) -> RatingGraph:
        """Number the sessions of the training ratings. Returns these ratings with their sessions."""
        self.sessions = sessions = Sessions.of(graph, self.settings.windows)
        with_rows(self.effect, len(sessions))
        if graph.time is None or not len(sessions):
            return graph
        return graph.having(session=sessions.find(graph.user, graph.time))

    def mean(self) -> Tensor:
        """[U] the mean over each user's training ratings, all windows together."""
        sessions = self.numbered
        mean = self.effect.new_zeros(sessions.num_users)
        return mean.index_add(0, sessions.owner, self.effect * sessions.share.to(self.effect.dtype))

    def forward(self, factors: Factors, unit: Tensor | float) -> Factors:
        """Factors whose users' biases are of a session that training does not know; ``moments`` holds the others."""
        if not len(self.effect):
            return factors
        mean, effect = -unit * self.mean(), unit * self.effect
        bias = mean if factors.user_bias is None else factors.user_bias + mean
        moments = Moments(torch.cat([effect, effect.new_zeros(1)]), self.numbered)
        return factors._replace(user_bias=bias, moments=moments)

    def strength(self, num_ratings: int) -> float:
        """λ of the L2 penalty λ / 2 |x|², beside the mean of the squared errors."""
        return 2 * self.settings.damping / num_ratings

    @property
    def numbered(self) -> Sessions:
        """The sessions, once :meth:`prepare` has found them."""
        if self.sessions is None:
            raise RuntimeError("prepare() tells the model its training ratings first")
        return self.sessions
