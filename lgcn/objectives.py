"""What is minimised."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import mse_loss

Objective = Callable[[Tensor, Tensor], Tensor]

#: By name: a function of predictions [E] and ratings [E] to a scalar, the mean over the ratings.
RATING_OBJECTIVES: dict[str, Objective] = {"mse": mse_loss}
