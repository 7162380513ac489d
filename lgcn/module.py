"""LightGCNModule: loss, metrics and logging around LightGCN, for Lightning's Trainer.

Each training step is full-graph: propagate once, predict every training rating, minimise the objective. With
``edge_masking`` a step sees a random part of the ratings and predicts the others, as it will have to after training:
a denoising autoencoder's task (Vincent et al., ICML 2008, on graphs). A hidden rating reaches its own prediction only
through what earlier steps have learned, and 1 / E of it through the mean of the training ratings (head ``dot`` with
biases). What a step does depends on the parameters, the seed and the step's number alone, so a resumed run is the same
run.
"""

import math
from typing import Any, Literal, Protocol, get_args

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from lgcn.channels import EdgeWeights, channel_matrices
from lgcn.errors import InputError
from lgcn.graph import RatingGraph, require_torch_sparse
from lgcn.metrics import ErrorSums, RatingPrecision, RatingRecall, Sums
from lgcn.model import Factors, LightGCN
from lgcn.objectives import RATING_OBJECTIVES
from lgcn.ops import Multipliable


class Edges(Protocol):
    """A batch of rated pairs: indices [B] and ratings [B]."""

    user: Tensor
    item: Tensor
    rating: Tensor


class LightGCNModule(pl.LightningModule):
    """LightGCN, trained on the graphs of the Trainer's datamodule.

    Args:
        num_users: users in the data; set from --data.
        num_items: items in the data; set from --data.
        embedding_dim: columns of the embedding table.
        num_layers: how many times embeddings travel over an edge. 0 is matrix factorisation.
        layer_weights: of each layer in the final embedding: ``uniform``, ``learned``, or num_layers + 1 numbers,
            the first for the embeddings themselves.
        ego_layer: whether the embeddings themselves, layer 0, are part of the final ones. Without, users and items are
            made of their neighbours alone, which generalises better (README, "What each part is worth").
        edge_weights: what an edge weighs in the propagation, a list of channels that are added up: ``binary`` (1, the
            paper's), ``rating``, ``centered`` (rating - mean) or ``residual`` (what user and item biases leave over).
        channel_embeddings: ``own`` or ``shared``, whether each channel has an embedding table of its own.
        degree_exponents: of the degree of the node that receives, and of the one that sends; the paper's are 0.5, 0.5.
        head: ``linear`` (the notebook's: a linear layer on user and item side by side, the same order of items for
            every user) or ``dot`` (the paper's: their inner product).
        biases: with ``dot``: add the mean rating and a learned bias per user and item.
        init_std: standard deviation of the embeddings' first values.
        edge_dropout: share of the ratings left out of the propagation in each training step; all are predicted.
        edge_masking: share of the ratings hidden from each training step's graph; they alone are predicted.
        l2_embeddings: L2 penalty on the embeddings, λ / 2 |x|² added to the loss.
        l2_biases: likewise, on the biases of users and items (head ``dot``).
        l2_per: ``node`` (every user and item alike) or ``rating`` (each rating penalises its user and its item, and
            the mean over ratings is added to the loss).
        clamp: whether predictions outside training are kept within the training ratings' range.
        objective: what is minimised: ``mse``, the mean squared error of the training ratings.
        engine: what multiplies by the graph: ``csr`` (torch) or ``sparse_tensor`` (torch-sparse, an extra).
        k: how many of a user's ratings recall@k and precision@k look at.
        threshold: from which rating on an item counts as relevant.

    Raises:
        InputError: an argument is out of its range, or the engine is not installed.
    """

    train_graph: RatingGraph

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 3,
        layer_weights: Literal["uniform", "learned"] | list[float] = "uniform",
        ego_layer: bool = True,
        edge_weights: list[EdgeWeights] = ["binary"],  # noqa: B006  # never changed, and what --help shows
        channel_embeddings: Literal["own", "shared"] = "own",
        degree_exponents: tuple[float, float] = (0.5, 0.5),
        head: Literal["linear", "dot"] = "linear",
        biases: bool = False,
        init_std: float = 0.1,
        edge_dropout: float = 0.0,
        edge_masking: float = 0.0,
        l2_embeddings: float = 0.0,
        l2_biases: float = 0.0,
        l2_per: Literal["node", "rating"] = "node",
        clamp: bool = False,
        objective: Literal["mse"] = "mse",
        engine: Literal["csr", "sparse_tensor"] = "csr",
        k: int = 20,
        threshold: float = 3.5,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name in ("edge_dropout", "edge_masking"):
            if not 0 <= (share := self.hparams[name]) < 1:
                raise InputError(f"'{name}' must be at least 0 and below 1 (got {share})")
        for name in ("l2_embeddings", "l2_biases"):
            if not (strength := self.hparams[name]) >= 0:
                raise InputError(f"'{name}' must be 0 or more (got {strength})")
        if not edge_weights or not set(edge_weights) <= set(get_args(EdgeWeights)):
            known = ", ".join(get_args(EdgeWeights))
            raise InputError(f"'edge_weights' must be a list of one or more of {known} (got {edge_weights!r})")
        if len(degree_exponents) != 2 or not all(map(math.isfinite, degree_exponents)):
            raise InputError(f"'degree_exponents' must be two finite numbers (got {degree_exponents!r})")
        if l2_per not in ("node", "rating"):
            raise InputError(f"'l2_per' must be 'node' or 'rating' (got {l2_per!r})")
        if edge_dropout and edge_masking:
            raise InputError(
                f"'edge_dropout' and 'edge_masking' exclude each other (got {edge_dropout} and {edge_masking})"
            )
        if engine == "sparse_tensor":
            require_torch_sparse()
        self.model = LightGCN(
            num_users,
            num_items,
            embedding_dim,
            num_layers,
            layer_weights,
            head,
            biases,
            init_std,
            ego_layer,
            len(edge_weights),
            channel_embeddings,
        )
        self.objective = RATING_OBJECTIVES[objective]
        metrics = MetricCollection(
            {
                "rmse": MeanSquaredError(squared=False),
                "mae": MeanAbsoluteError(),
                f"recall@{k}": RatingRecall(num_users, k, threshold),
                f"precision@{k}": RatingPrecision(num_users, k, threshold),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone(prefix="val/"), metrics.clone(prefix="test/")
        self.test_errors = ErrorSums(num_users, num_items)
        self.test_sums: Sums | None = None  # after a test: of all processes
        # Kept in the checkpoint: a resumed run draws what the first would have drawn.
        self.seed: Tensor
        self.register_buffer("seed", torch.tensor(torch.initial_seed() % 2**63))
        self._factors: Factors | None = None
        self._trained_steps = 0

    # -- graphs --------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the graphs from the datamodule and put them where the model will be."""
        data, device = self.trainer.datamodule, self.trainer.strategy.root_device  # type: ignore[attr-defined]
        self.train_graph = data.graphs["train"].to(device)
        if stage == "fit":
            self.model.head.fit_mean(float(self.train_graph.rating.mean()))
        self._rating_range = (float(self.train_graph.rating.min()), float(self.train_graph.rating.max()))
        matrices = self._matrices(self.train_graph)
        self._propagation = dict.fromkeys(("train", "val", "test"), matrices)
        if data.eval_graph == "split":
            if set(self.hparams["edge_weights"]) != {"binary"}:
                raise InputError(
                    "--data.eval_graph split needs --model.edge_weights [binary]: other weights would show the model "
                    f"the ratings that it is to predict (got {self.hparams['edge_weights']})"
                )
            for part in ("val", "test"):
                self._propagation[part] = self._matrices(data.graphs[part].to(device))
        self._penalised = self._penalties()

    def _matrices(self, graph: RatingGraph, factor: Tensor | None = None) -> list[Multipliable]:
        """The propagation matrix of each channel over a graph, each edge's weight times ``factor`` [E]."""
        given = self.hparams
        return channel_matrices(graph, given["edge_weights"], given["degree_exponents"], given["engine"], factor)

    # -- training ------------------------------------------------------------------------------------------

    def forward(self, *matrices: Multipliable) -> Factors:
        """Factors of all users and items after propagation over ``matrices``, one [N, N] for each channel."""
        return self.model(*matrices)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One full-graph step; the batch is only its number within the epoch."""
        matrices, graph = self._task()
        loss = self.objective(self(*matrices).predict_edges(graph), graph.rating)
        # To log costs as much as a fifth of a small step, so it is done where somebody reads the value.
        if self._loss_is_read():
            self.log("train/loss", loss, prog_bar=True, batch_size=len(graph))
        return loss

    def _task(self) -> tuple[list[Multipliable], RatingGraph]:
        """What this step propagates over, and the ratings it predicts."""
        graph, dropout, masking = self.train_graph, self.hparams["edge_dropout"], self.hparams["edge_masking"]
        if dropout:
            # Expectations are those of the full graph.
            factor = graph.kept(dropout, self.step_generator()) / (1 - dropout)
            return self._matrices(graph, factor), graph
        if masking:
            visible = graph.kept(masking, self.step_generator())
            seen, hidden = graph.part(visible), graph.part(~visible)
            if len(seen) and len(hidden):  # of very few ratings, all may have fallen on one side
                return self._matrices(seen), hidden
        return self._propagation["train"], graph

    def _loss_is_read(self) -> bool:
        """Whether this step is one that loggers write, or the last of its epoch, before validation."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        last = self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        return last or (every > 0 and (self.global_step + 1) % every == 0)

    def step_generator(self) -> torch.Generator:
        """A generator for this step's draws, seeded by (seed, step number)."""
        state = np.random.SeedSequence((int(self.seed), self.global_step)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0] >> np.uint64(1)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with the paper's learning rate (section 4.1.2), unless the command line says otherwise."""
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)

    def _penalties(self) -> list[tuple[Tensor, float | Tensor]]:
        """Each penalised parameter and its λ: a number, or one for each row."""
        head, table, graph = self.model.head, self.model.embedding.weight, self.train_graph
        of_table, of_biases = self.hparams["l2_embeddings"], self.hparams["l2_biases"]
        degree = torch.cat([graph.user_degree, graph.item_degree]) / len(graph)
        users, items = degree[: graph.num_users], degree[graph.num_users :]
        candidates: list[tuple[Tensor | None, float, Tensor]] = [
            (table, of_table, degree.repeat(len(table) // len(degree))[:, None]),
            (getattr(head, "user_bias", None), of_biases, users),
            (getattr(head, "item_bias", None), of_biases, items),
        ]
        per_rating = self.hparams["l2_per"] == "rating"
        return [
            (parameter, strength * ratings if per_rating else strength)
            for parameter, strength, ratings in candidates
            if parameter is not None and strength
        ]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Add the gradient of the L2 penalties, λ x: the loss that is logged is the objective alone."""
        if not self._penalised:
            return
        # With 16-mixed a fused optimiser takes gradients as they are, times the scaler's scale, and undoes it itself.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        scale = scaler.get_scale() if scaler is not None and fused else 1.0
        for parameter, strength in self._penalised:
            assert parameter.grad is not None
            if isinstance(strength, Tensor):
                parameter.grad.addcmul_(parameter.detach(), strength, value=scale)
            else:
                parameter.grad.add_(parameter.detach(), alpha=scale * strength)

    # -- what a small step would otherwise spend on Lightning ------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes here, forty times a step, which hook runs. A string is no parameter, buffer or submodule,
        # which is what torch would look into each time.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """``optimizer.zero_grad()`` without the profiling around it."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    # -- evaluation ----------------------------------------------------------------------------------------

    def _evaluate(self, part: str) -> None:
        self._factors = self.model.completed(self(*self._propagation[part]), self.train_graph)

    def on_validation_epoch_start(self) -> None:
        self._evaluate("val")

    def on_test_epoch_start(self) -> None:
        self._evaluate("test")

    def on_predict_epoch_start(self) -> None:
        self._evaluate("test")

    def validation_step(self, batch: Edges, batch_idx: int) -> None:
        preds = self._update(self.val_metrics, batch)
        loss = self.objective(preds, batch.rating)
        self.log("val/loss", loss, prog_bar=True, batch_size=len(preds), sync_dist=True)

    def test_step(self, batch: Edges, batch_idx: int) -> None:
        preds = self._update(self.test_metrics, batch)
        self.test_errors.update(preds, batch.rating, batch.user, batch.item)
        self.log("test/loss", self.objective(preds, batch.rating), batch_size=len(preds), sync_dist=True)

    def predict_step(self, batch: Edges, batch_idx: int) -> Tensor:
        return self._predict(batch)

    def on_validation_epoch_end(self) -> None:
        self._log(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log(self.test_metrics)
        self.test_sums = self.test_errors.compute()
        self.test_errors.reset()
        # Lightning takes the place on the curves' axis from a value of this name; without, a test is at step 0.
        self.log("step", float(max(self._trained_steps - 1, 0)))

    def _predict(self, batch: Edges) -> Tensor:
        assert self._factors is not None
        preds = self._factors.predict(batch.user, batch.item)
        return preds.clamp(*self._rating_range) if self.hparams["clamp"] else preds

    def _update(self, metrics: MetricCollection, batch: Edges) -> Tensor:
        preds = self._predict(batch)
        metrics.update(preds=preds, target=batch.rating, user=batch.user, item=batch.item)
        return preds

    def _log(self, metrics: MetricCollection) -> None:
        # `compute` has synchronised over processes already; Lightning warns unless it may do so again.
        for name, value in metrics.compute().items():
            self.log(name, value, prog_bar=name.endswith("rmse"), sync_dist=True)
        metrics.reset()
        self._factors = None

    # -- checkpoints ---------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint's parameters fit this model.

        Raises:
            InputError: they do not; the message says where they differ.
        """
        self._trained_steps = checkpoint["global_step"]
        theirs, ours = checkpoint["state_dict"], self.state_dict()
        there, here = checkpoint.get("hyper_parameters", {}), self.hparams
        shapes = {name: (tuple(theirs[name].shape), tuple(ours[name].shape)) for name in theirs.keys() & ours.keys()}
        if theirs.keys() == ours.keys() and all(a == b for a, b in shapes.values()):
            return
        names = (
            *("num_users", "num_items", "embedding_dim", "num_layers", "layer_weights", "ego_layer", "edge_weights"),
            *("channel_embeddings", "head", "biases"),
        )
        settings = [
            f"{name} {there[name]} there and {here[name]} here"
            for name in names
            if name in there and there[name] != here[name]
        ]
        raise InputError(
            f"the checkpoint is of another model or other data: {'; '.join(settings) or 'its parameters differ'}; use "
            "the settings of its run (config.yaml beside it), or train anew"
        )
