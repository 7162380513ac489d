"""LightGCNModule: training and logging around LightGCN, for Lightning's Trainer.

Each training step propagates once over the whole graph and minimises the objective of its task (:mod:`lgcn.training.tasks`): on
every training rating, or on a batch of pairs or users drawn from them. With ``edge_masking`` a step sees a random part
of the ratings and predicts the others, as it will have to after training: a denoising autoencoder's task (Vincent et
al., ICML 2008, on graphs). A hidden rating reaches its own prediction only through what earlier steps have learned, and
1 / E of it through the mean of the training ratings (head ``dot`` with biases). What a step does depends on the
parameters, the seed and the step's number alone, so a resumed run is the same run.
"""

import math
from typing import Any, Literal, get_args

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.channels import EdgeWeights, channel_matrices, edge_value
from lgcn.graph.ops import BipartiteMatrix, Multipliable
from lgcn.graph.ratings import Normalisation, RatingGraph, require_torch_sparse
from lgcn.model.heads import DotHead
from lgcn.model.lightgcn import Factors, LightGCN
from lgcn.model.spectral import spectral_table
from lgcn.training.objectives import RANKING_OBJECTIVES, RATING_OBJECTIVES
from lgcn.training.tasks import Edges, RankingTask, RatingTask, Task


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
            paper's), ``rating``, ``liked`` (the rating from the threshold on, 0 below), ``centered`` (rating - mean)
            or ``residual`` (what user and item biases leave over).
        channel_embeddings: ``own`` or ``shared``, whether each channel has an embedding table of its own.
        degree_exponents: of the degree of the node that receives, and of the one that sends; the paper's are 0.5, 0.5.
        item_degree_exponents: likewise, where an item receives. Null: as where a user does.
        degree_damping: added to the degrees of users, and of items.
        head: ``linear`` (the notebook's: a linear layer on user and item side by side, the same order of items for
            every user), ``dot`` (the paper's: their inner product) or ``cosine`` (that of both at length 1).
        biases: with ``dot`` and ``cosine``: add the mean rating and a learned bias per user and item. In rankings
            the item's is all that counts.
        embedding_init: ``normal`` draws the embeddings' first values; ``spectral`` takes the leading singular vectors
            of the half of the propagation matrix that sends to users, of which there are no more than users or items.
        init_std: for ``normal``: their standard deviation.
        spectral_power: for ``spectral``: of the singular value σ that each vector is multiplied by.
        spectral_ridge: for ``spectral``: λ, as a share of the largest σ²; each vector is multiplied by
            (σ² / (σ² + λ))^(1/2), too. With spectral_power -0.5, one layer and no ego layer, this is the ridge
            regression of items on items, but for a factor an item if item_degree_exponents differ.
        edge_dropout: share of the ratings left out of the propagation in each training step; all are predicted.
        edge_masking: share of the ratings hidden from each training step's graph; they alone are predicted.
        l2_embeddings: L2 penalty on the embeddings, λ / 2 |x|² added to the loss.
        l2_biases: likewise, on the biases of users and items (head ``dot``).
        l2_per: ``node`` (every user and item alike), ``rating`` (each rating penalises its user and its item, and the
            mean over ratings is added to the loss) or ``batch`` (the paper's: so does each positive and negative of a
            step, for the ranking objectives).
        clamp: whether predicted ratings outside training are kept within the training ratings' range.
        objective: what is minimised: ``mse``, the mean squared error of the training ratings; or, to rank items,
            ``bpr``, positives against drawn negatives, or ``softmax``, positives against all items.
        batch_size: for ``bpr`` the positives, for ``softmax`` the users of a step. Null is all.
        num_negatives: for ``bpr`` the negatives drawn for each positive, null is 1; for ``softmax`` the items drawn to
            stand for all in a step, null takes all.
        temperature: what ``softmax`` divides scores by.
        engine: what multiplies by the graph: ``csr`` (torch) or ``sparse_tensor`` (torch-sparse, an extra).
        k: how many of a user's held-out ratings recall@k and precision@k look at; for the ranking objectives, of how
            many recommendations NDCG tells the best checkpoint.
        more_k: other numbers of recommendations to give the ranking metrics for.
        threshold: from which rating on an item counts as relevant; for the ranking objectives, as positive.
        propagate: for the ranking objectives, what embeddings travel over: ``positives``, or all ``ratings``, of which
            --model.edge_weights can tell a good one from a bad one. Positives are what is looked for either way.
        mask_validation: for the ranking objectives: whether a test, which recommends nothing from the training
            ratings, recommends nothing from the validation part either.

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
        item_degree_exponents: tuple[float, float] | None = None,
        degree_damping: tuple[float, float] = (0.0, 0.0),
        head: Literal["linear", "dot", "cosine"] = "linear",
        biases: bool = False,
        embedding_init: Literal["normal", "spectral"] = "normal",
        init_std: float = 0.1,
        spectral_power: float = 0.0,
        spectral_ridge: float = 0.0,
        edge_dropout: float = 0.0,
        edge_masking: float = 0.0,
        l2_embeddings: float = 0.0,
        l2_biases: float = 0.0,
        l2_per: Literal["node", "rating", "batch"] = "node",
        clamp: bool = False,
        objective: Literal["mse", "bpr", "softmax"] = "mse",
        batch_size: int | None = None,
        num_negatives: int | None = None,
        temperature: float = 1.0,
        engine: Literal["csr", "sparse_tensor"] = "csr",
        k: int = 20,
        more_k: list[int] = [10, 50],  # noqa: B006
        threshold: float = 3.5,
        propagate: Literal["positives", "ratings"] = "positives",
        mask_validation: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name in ("edge_dropout", "edge_masking"):
            if not 0 <= (share := self.hparams[name]) < 1:
                raise InputError(f"'{name}' must be at least 0 and below 1 (got {share})")
        for name in ("l2_embeddings", "l2_biases", "spectral_ridge"):
            if not (strength := self.hparams[name]) >= 0:
                raise InputError(f"'{name}' must be 0 or more (got {strength})")
        if not edge_weights or not set(edge_weights) <= set(get_args(EdgeWeights)):
            known = ", ".join(get_args(EdgeWeights))
            raise InputError(f"'edge_weights' must be a list of one or more of {known} (got {edge_weights!r})")
        for name in ("degree_exponents", "item_degree_exponents", "degree_damping"):
            pair = self.hparams[name]
            if pair is not None and (len(pair) != 2 or not all(map(math.isfinite, pair))):
                raise InputError(f"'{name}' must be two finite numbers (got {pair!r})")
        if min(degree_damping) < 0:
            raise InputError(f"'degree_damping' must be 0 or more (got {degree_damping!r})")
        self.normalisation = Normalisation(degree_exponents, item_degree_exponents, degree_damping)
        if objective not in (*RATING_OBJECTIVES, *RANKING_OBJECTIVES):
            objectives = ", ".join((*RATING_OBJECTIVES, *RANKING_OBJECTIVES))
            raise InputError(f"'objective' must be one of {objectives} (got {objective!r})")
        ranks = objective in RANKING_OBJECTIVES
        if not ranks and (batch_size is not None or num_negatives is not None):
            raise InputError(
                "'batch_size' and 'num_negatives' are for 'objective' bpr and softmax; mse is over all ratings "
                f"(got {batch_size} and {num_negatives})"
            )
        for name, one, other in (("propagate", "positives", "ratings"), ("embedding_init", "normal", "spectral")):
            if self.hparams[name] not in (one, other):
                raise InputError(f"'{name}' must be {one!r} or {other!r} (got {self.hparams[name]!r})")
        if l2_per not in ("node", "rating", "batch") or (l2_per == "batch" and not ranks):
            raise InputError(f"'l2_per' must be 'node' or 'rating', or 'batch' to rank items (got {l2_per!r})")
        if ranks and head == "linear":
            raise InputError(
                f"'objective' {objective} needs 'head' dot or cosine: the linear head ranks items alike for all users"
            )
        if edge_dropout and edge_masking:
            raise InputError(
                f"'edge_dropout' and 'edge_masking' exclude each other (got {edge_dropout} and {edge_masking})"
            )
        if engine == "sparse_tensor":
            require_torch_sparse()
        self.model = LightGCN.of_settings(self.hparams)
        self.task: Task
        if ranks:
            drawn, judged = (batch_size, num_negatives, temperature), (mask_validation, propagate)
            self.task = RankingTask(objective, num_users, num_items, [k, *more_k], threshold, *drawn, *judged)
            if isinstance(self.model.head, DotHead) and self.model.head.user_bias is not None:
                self.model.head.user_bias.requires_grad_(False)  # it changes no ranking
        else:
            self.task = RatingTask(objective, num_users, num_items, k, threshold, clamp)
        # Kept in the checkpoint: a resumed run draws what the first would have drawn.
        self.seed: Tensor
        self.register_buffer("seed", torch.tensor(torch.initial_seed() % 2**63))
        self._factors: Factors | None = None
        self._trained_steps = 0

    # -- graphs --------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the graphs from the datamodule and put them where the model will be."""
        data, device = self.trainer.datamodule, self.trainer.strategy.root_device  # type: ignore[attr-defined]
        implicit, given = getattr(data, "implicit", False), self.hparams
        ranks = "ranking" if isinstance(self.task, RankingTask) else "rating"
        if (task := data.hparams.get("task", ranks)) != ranks:
            raise InputError(f"'objective' {given['objective']} needs a datamodule with task={ranks!r} (got {task!r})")
        if implicit and not set(given["edge_weights"]) <= {"binary", "rating"}:
            raise InputError(
                "--model.edge_weights must be [binary] for data without ratings: other weights are made of them "
                f"(got {given['edge_weights']})"
            )
        judged = {"fit": ["val"], "validate": ["val"], "test": ["test"]}.get(stage, [])
        self.train_graph = self.task.prepare(data.graphs, implicit, device, judged)
        if stage == "fit":
            self.model.head.fit_mean(float(self.train_graph.rating.mean()))
            if self.hparams["embedding_init"] == "spectral" and self.trainer.ckpt_path is None:
                self._start_spectral()
        matrices = self._matrices(self.train_graph)
        self._propagation = dict.fromkeys(("train", "val", "test"), matrices)
        if data.eval_graph == "split":
            if set(self.hparams["edge_weights"]) != {"binary"}:
                raise InputError(
                    "--data.eval_graph split needs --model.edge_weights [binary]: other weights would show the model "
                    f"the ratings that it is to predict (got {self.hparams['edge_weights']})"
                )
            if isinstance(self.task, RankingTask):
                raise InputError("--data.eval_graph split shows the pairs that a ranking is to find; use train")
            for part in ("val", "test"):
                self._propagation[part] = self._matrices(data.graphs[part].to(device))
        self._penalised = [] if self.hparams["l2_per"] == "batch" else self._penalties()

    def _matrices(self, graph: RatingGraph, factor: Tensor | None = None) -> list[Multipliable]:
        """The propagation matrix of each channel over a graph, each edge's weight times ``factor`` [E]."""
        given = self.hparams
        return channel_matrices(
            graph, given["edge_weights"], self.normalisation, given["engine"], factor, given["threshold"]
        )

    def _start_spectral(self) -> None:
        """Fill the embeddings: a table with the singular vectors of its channel's matrix, or of all channels' sum."""
        given, graph = self.hparams, self.train_graph
        tables = torch.split(self.model.embedding.weight.detach(), graph.num_nodes)
        one = torch.ones_like(graph.rating)
        of_kinds = (edge_value(graph, kind, given["threshold"]) for kind in given["edge_weights"])
        values = torch.stack([one if value is None else value for value in of_kinds])
        for table, value in zip(tables, values if len(tables) == len(values) else [values.sum(dim=0)], strict=True):
            matrix = graph.propagation_matrix(value=value, normalisation=self.normalisation)
            assert isinstance(matrix, BipartiteMatrix)
            halves = matrix.by_user, matrix.t().by_item
            power, ridge = given["spectral_power"], given["spectral_ridge"]
            table.copy_(spectral_table(*halves, given["embedding_dim"], power, int(self.seed), ridge))

    # -- training ------------------------------------------------------------------------------------------

    def forward(self, *matrices: Multipliable) -> Factors:
        """Factors of all users and items after propagation over ``matrices``, one [N, N] for each channel."""
        return self.model(*matrices)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step; the batch is only its number within the epoch."""
        drawn = self.task.draws or self.hparams["edge_dropout"] or self.hparams["edge_masking"]
        generator = self.step_generator() if drawn else None
        matrices, predicted = self._visible(generator)
        loss = self.task.loss(self(*matrices), predicted, generator)
        # To log costs as much as a fifth of a small step, so it is done where somebody reads the value.
        if self._loss_is_read():
            self.log("train/loss", loss, prog_bar=True, batch_size=len(predicted))
        return loss

    def _visible(self, generator: torch.Generator | None) -> tuple[list[Multipliable], RatingGraph]:
        """What this step propagates over, and the ratings it may predict."""
        graph, dropout, masking = self.train_graph, self.hparams["edge_dropout"], self.hparams["edge_masking"]
        if generator is None or not (dropout or masking):
            return self._propagation["train"], graph
        if dropout:
            # Expectations are those of the full graph.
            factor = graph.kept(dropout, generator) / (1 - dropout)
            return self._matrices(graph, factor), graph
        visible = graph.kept(masking, generator)
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
        """Each penalised parameter and its λ: a number, or one for each row, by its share of the ratings."""
        head, table, graph = self.model.head, self.model.embedding.weight, self.train_graph
        of_table, of_biases = self.hparams["l2_embeddings"], self.hparams["l2_biases"]
        if self.hparams["l2_per"] == "batch":
            assert isinstance(self.task, RankingTask)
            users, items = self.task.node_share(graph.num_users)
        else:
            users, items = graph.user_degree / len(graph), graph.item_degree / len(graph)
        nodes = torch.cat([users, items])
        candidates: list[tuple[Tensor | None, float, Tensor]] = [
            (table, of_table, nodes.repeat(len(table) // len(nodes))[:, None]),
            (getattr(head, "user_bias", None), of_biases, users),
            (getattr(head, "item_bias", None), of_biases, items),
        ]
        per_node = self.hparams["l2_per"] == "node"
        return [
            (parameter, strength if per_node else strength * share)
            for parameter, strength, share in candidates
            if parameter is not None and strength
        ]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Add the gradient of the L2 penalties, λ x: the loss that is logged is the objective alone."""
        penalised = self._penalties() if self.hparams["l2_per"] == "batch" else self._penalised
        if not penalised:
            return
        # With 16-mixed a fused optimiser takes gradients as they are, times the scaler's scale, and undoes it itself.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        scale = scaler.get_scale() if scaler is not None and fused else 1.0
        for parameter, strength in penalised:
            if parameter.grad is None:  # a user's bias, in a ranking
                continue
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
        factors = self(*self._propagation[part])
        self._factors = self.model.completed(factors, self.train_graph, self.task.replaces_items)

    def on_validation_epoch_start(self) -> None:
        self._evaluate("val")

    def on_test_epoch_start(self) -> None:
        self._evaluate("test")

    def on_predict_epoch_start(self) -> None:
        self._evaluate("test")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._judge("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._judge("test", batch)

    def _judge(self, part: str, batch: Any) -> None:
        assert self._factors is not None
        loss = self.task.judge(part, self._factors, batch)
        if loss is not None:
            self.log(f"{part}/loss", loss, prog_bar=part == "val", batch_size=len(batch.user), sync_dist=True)

    def predict_step(self, batch: Edges, batch_idx: int) -> Tensor:
        """Predicted ratings of pairs, or the scores that items are ranked by; [B]."""
        assert self._factors is not None
        if isinstance(self.task, RatingTask):
            return self.task.predict(self._factors, batch)
        return self._factors.predict(batch.user, batch.item)

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_end(self) -> None:
        self._log("test")
        # Lightning takes the place on the curves' axis from a value of this name; without, a test is at step 0.
        self.log("step", float(max(self._trained_steps - 1, 0)))

    def _log(self, part: str) -> None:
        # The task has synchronised over processes already; Lightning warns unless it may do so again.
        for name, value in self.task.results(part).items():
            self.log(name, value, prog_bar=name == self.task.monitor[0], sync_dist=True)
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
