"""LightGCNModule: LightGCN, trained and judged by Lightning's Trainer.

Each training step propagates once over the whole graph and minimises the objective (:mod:`lgcn.training.objectives`)
on all training ratings, or on some that it draws. What a step does depends only on the parameters, the seed and the
step's number, so a resumed run is the same run.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lgcn.choices import check_returned, made, plain, settings_object
from lgcn.errors import Diverged, InputError
from lgcn.evaluation.judges import Judge, Part, RatingJudge
from lgcn.evaluation.weights import WEIGHTS, best_weight, spread_of_vectors
from lgcn.graph.budget import check_memory
from lgcn.graph.columns import Columns
from lgcn.graph.ops import BipartiteMatrix, Multipliable
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.content import Content
from lgcn.model.correction import Correction, corrected
from lgcn.model.factors import Factors
from lgcn.model.heads import Head, LinearHead
from lgcn.model.initialisation import Initialisation, Normal
from lgcn.model.lightgcn import LightGCN
from lgcn.model.sessions import SessionBias
from lgcn.model.tail import Tail
from lgcn.model.uncertainty import Interval, Spread, Uncertainty, prediction_errors
from lgcn.training.masking import Masking
from lgcn.training.objectives import Objective, SquaredError
from lgcn.training.penalty import L2, with_penalties

log = logging.getLogger(__name__)

#: The settings that decide which parameters there are.
SHAPE = ("num_users", "num_items", "embedding_dim", "num_layers", "layer_weights", "ego_layer", "channel_embeddings")


class LightGCNModule(pl.LightningModule):
    """LightGCN, trained on the graphs of the Trainer's datamodule, a :class:`lgcn.data.datamodule.RatingsDataModule`.

    Args:
        num_users: users in the data; set from --data.
        num_items: items in the data; set from --data.
        embedding_dim: columns of the embedding table.
        num_layers: how many times embeddings travel over an edge. 0 is matrix factorisation.
        layer_weights: of each layer in the final embedding: ``uniform``, ``learned``, or num_layers + 1 numbers,
            the first for the embeddings themselves.
        ego_layer: whether the embeddings themselves, layer 0, are part of the final ones. Without, users and items are
            made of their neighbours only, which generalises better (docs/results.md).
        channel_embeddings: ``own`` or ``shared``, whether each channel has an embedding table of its own.
        init: the embeddings' first values: Normal or Spectral. Null is Normal.
        tail: what is added to the scores from item to item, for objectives that rank: RidgeTail or CooccurrenceTail.
            Null is nothing. Training does not see it.
        propagation: what travels over the graph.
        head: from embeddings to scores: LinearHead (the notebook's), DotHead (the paper's) or CosineHead. Null is
            LinearHead.
        objective: what is minimised: SquaredError, to predict ratings; Bpr, Softmax or ClosedForm, to rank items.
            Null is SquaredError.
        masking: what a training step hides: EdgeMasking or EdgeDropout. Null hides nothing.
        l2: L2 penalties.
        k: how many of a user's held-out ratings recall@k and precision@k look at; for objectives that rank, how many
            recommendations the metrics look at. Of several numbers the first tells the best checkpoint.
        clamp: whether predicted ratings outside training are kept within the training ratings' scale.
        metrics: torchmetrics' Metrics of your own, beside ours (docs/extending.md).
        sessions: biases of a user's days and hours, where the data have times. Null is without.
        content: what is known of users and items has a part in their factors, where the data have attributes. Null is
            without.
        correction: a ridge regression corrects factors by what is left of errors, for objectives that predict ratings,
            as strongly as is best on the validation part. Null is without. Training does not see it.

    Raises:
        InputError: an argument is out of its range, or two exclude each other.

    >>> module = LightGCNModule(num_users=3, num_items=3, head="DotHead", objective="Softmax")
    >>> module.objective.ranks
    True
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 3,
        layer_weights: Literal["uniform", "learned"] | list[float] = "uniform",
        ego_layer: bool = True,
        channel_embeddings: Literal["own", "shared"] = "own",
        init: Initialisation | None = None,
        propagation: Propagation = Propagation(),  # noqa: B008  # frozen
        head: Head | None = None,
        objective: Objective | None = None,
        masking: Masking | None = None,
        l2: L2 = L2(),  # noqa: B008  # frozen
        k: int | list[int] = [20, 10, 50],  # noqa: B006  # never changed, and what --help shows
        clamp: bool = False,
        metrics: list[Metric] | None = None,
        sessions: SessionBias | None = None,
        content: Content | None = None,
        tail: Tail | None = None,
        correction: Correction | None = None,
    ) -> None:
        super().__init__()
        self.objective: Objective = made(Objective, SquaredError() if objective is None else objective, "objective")
        ranks = self.objective.ranks
        self.propagation = settings_object(Propagation, propagation).decided(ranks)
        self.l2, self.masking = settings_object(L2, l2), None if masking is None else made(Masking, masking, "masking")
        self.ks, self.clamp = [k] if isinstance(k, int | np.integer) else list(k), clamp
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"'k' must be at least 1, or several such numbers (got {k})")
        self.own_metrics = [made(Metric, one, "metrics") for one in metrics or []]
        init = made(Initialisation, Normal() if init is None else init, "init")
        head = made(Head, LinearHead() if head is None else head, "head")
        tail = None if tail is None else made(Tail, tail, "tail")
        self.correction = settings_object(Correction, correction)
        self._check(init, head, tail)
        shape = (num_users, num_items, embedding_dim, num_layers, layer_weights, ego_layer, channel_embeddings)
        settings: dict[str, Any] = dict(zip(SHAPE, shape, strict=True))
        settings |= {"init": init, "head": head, "propagation": vars(self.propagation), "objective": self.objective}
        settings |= {"masking": self.masking, "l2": vars(self.l2), "k": self.ks, "clamp": clamp}
        self.sessions, self.content = settings_object(SessionBias, sessions), settings_object(Content, content)
        settings |= {"metrics": self.own_metrics, "ranks": ranks, "tail": tail}
        parts = {"sessions": self.sessions, "content": self.content, "correction": self.correction}
        settings |= {name: part and vars(part) for name, part in parts.items()}
        # Plain values: a checkpoint holds numbers and names of classes, whoever made this module.
        self.save_hyperparameters(plain(settings))
        self.model = LightGCN.of_settings(settings)
        if ranks and isinstance(bias := getattr(self.model.head, "user_bias", None), Tensor):
            bias.requires_grad_(False)  # it changes no ranking
        self.automatic_optimization = self.objective.trains
        self.judges = nn.ModuleDict()
        # Kept in the checkpoint: a resumed run draws what the first would have drawn.
        self.seed: Tensor
        self.register_buffer("seed", torch.tensor(torch.initial_seed() % 2**63))
        #: How large errors are, after a validation; of a model that ranks, None.
        self.uncertainty: Uncertainty | None = None
        self._spread: Spread | None = None
        self._factors: Factors | None = None
        self._loss: Tensor | None = None  # of a step whose loss is read
        self._tail_weight: Tensor | None = None  # before anything is said of its size
        self._trained_steps, self._restored = 0, False

    def _check(self, init: Initialisation, head: Head, tail: Tail | None) -> None:
        """Raise an InputError if the choices do not fit together."""
        name = type(self.objective).__name__
        if tail is not None and not self.objective.ranks:
            raise InputError(f"'tail' {type(tail).__name__} is for objectives that rank (got {name})")
        if self.correction is not None and self.objective.ranks:
            raise InputError(f"'correction' is for objectives that predict ratings (got {name})")
        if self.objective.ranks and not head.personal:
            raise InputError(
                f"'objective' {name} needs a 'head' such as DotHead or CosineHead: {type(head).__name__} ranks items "
                "alike for all users"
            )
        if self.l2.per == "batch" and not self.objective.draws:
            raise InputError(
                f"'l2.per' must be 'node', 'total' or 'rating' for {name}, which draws no batch (got 'batch')"
            )
        if not (self.objective.trains or (init.fits and self.masking is None and self.l2 == L2(per=self.l2.per))):
            raise InputError(
                f"'objective' {name} trains nothing: it needs an 'init' that is fitted, such as Spectral, and no "
                f"'masking' or 'l2' (got {type(init).__name__}, {self.masking} and {self.l2})"
            )

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """The logged value that tells the best checkpoint, and which is better."""
        return (f"val/ranking_ndcg@{self.ks[0]}", "max") if self.objective.ranks else ("val/rmse", "min")

    def judge(self, part: Part) -> Judge:
        """The judge of a held-out part of the current stage."""
        return cast(Judge, self.judges[part])

    # -- graphs --------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the graphs from the datamodule to the model's device. An InputError says that they do not fit."""
        data = getattr(self.trainer, "datamodule", None)
        if data is None or not hasattr(data, "graphs"):
            raise InputError("LightGCNModule needs its graphs: give the Trainer datamodule=RatingsDataModule(...)")
        times = self.propagation.uses_times or self.sessions is not None
        data.ask(by_users=self.objective.ranks, times=times, features=self.content is not None)
        if (found := (data.num_users, data.num_items)) != (self.model.num_users, self.model.num_items):
            raise InputError(
                f"the data has {found[0]:,} users and {found[1]:,} items, and the model was made for "
                f"{self.model.num_users:,} and {self.model.num_items:,}; give it data.num_users and data.num_items"
            )
        device, columns = self.trainer.strategy.root_device, getattr(self.trainer.strategy, "columns", Columns())
        if stage == "fit" and self.objective.trains and device.type == "cpu":
            # With a gradient and Adam's two moments, which the model alone does not count.
            table, machines = self.model.embedding.weight, self.trainer.num_nodes if columns.processes > 1 else 1
            check_memory(5 * table.numel() // machines, f"training with 'embedding_dim' {table.shape[1]:,}")
        judged: list[Part] = [] if stage == "predict" else ["test"] if stage == "test" else ["val"]
        graphs: dict[str, RatingGraph] = {part: data.graphs[part].to(device) for part in ("train", "val", *judged)}
        self.training_ratings = train = self.model.prepare(graphs["train"], lambda: data.features)
        self.propagation.check(train)
        self.train_graph = self.propagation.ratings(train)  # those that embeddings travel over
        self.objective.prepare(train, self.train_graph)
        self.scale = RatingScale.of(train, self.clamp and not self.objective.ranks)
        self.judges = nn.ModuleDict(
            {part: self.objective.judge(part, graphs, self.ks, self.scale, self.own_metrics) for part in judged}
        )
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        several = f"{self.trainer.world_size} processes, the first " if self.trainer.world_size > 1 else ""
        log.info("%s parameters, on %s%s", f"{sum(map(Tensor.numel, self.parameters())):,}", several, name)
        if stage == "fit":
            self.model.head.fit_ratings(self.train_graph)
        self._restored = False
        self._matrices = dict.fromkeys(("train", "val", "test"), self.propagation.matrices(self.train_graph))
        if data.eval_graph == "split":
            if self.propagation.uses_ratings or self.objective.ranks:
                raise InputError(
                    "--data.eval_graph split needs --model.propagation.channels [Binary] and an objective that "
                    "predicts ratings: otherwise it shows the model what it is asked for; use train"
                )
            for part in ("val", "test"):
                self._matrices[part] = self.propagation.matrices(data.graphs[part].to(device))
        self.model.divide(columns)
        self._penalised = [] if self.l2.per == "batch" else self.l2.of(self.model, self.train_graph)

    def keep_embeddings(self) -> None:
        """Say that the embeddings have their values: a fit does not start them anew."""
        self._restored = True

    @torch.no_grad()
    def on_fit_start(self) -> None:
        """Fit what is fitted before training: the embeddings, unless they have their values, and the tail."""
        self._fit_embeddings()
        if self.model.tail is not None and (self.objective.trains or not self._restored):
            graph = self.train_graph
            fitted = graph, self.propagation.sent_to_users(graph), self.propagation.item_ratio(graph), int(self.seed)
            near, self._tail_weight = self.model.tail.fit(*fitted)
            self.model.columns.first(self.model.near.copy_(near))
        if not self.objective.trains:
            self._weigh_tail(self._propagated("val"))

    def _fit_embeddings(self) -> None:
        """Fit each table of embeddings to its channel's matrix, or a shared one to that of all channels' sum."""
        if not self.model.init.fits or self._restored:
            return
        graph, one = self.train_graph, torch.ones_like(self.train_graph.rating)
        part, columns = self.model.embedding.weight.detach(), self.model.columns
        # All processes fit the whole, and keep their columns of the first one's: signs of vectors are arbitrary.
        whole = part if columns.processes == 1 else part.new_empty(len(part), self.model.embedding.embedding_dim)
        tables = torch.split(whole, graph.num_nodes)
        values = torch.stack([one if value is None else value for value in self.propagation.values(graph)])
        for table, value in zip(tables, values if len(tables) == len(values) else [values.sum(dim=0)], strict=True):
            matrix = graph.propagation_matrix(value=value, normalisation=self.propagation.normalisation)
            assert isinstance(matrix, BipartiteMatrix)
            self.model.init.fit(table, matrix, int(self.seed))
        if whole is not part:
            part.copy_(columns.first(whole)[:, self.model.places["embedding.weight"][columns.rank]])

    def _weigh_tail(self, bare: Factors) -> None:
        """Say how much the tail counts beside these vectors."""
        tail, weight = self.model.tail, self._tail_weight
        if tail is None or weight is None:
            return
        self.model.near_weight.copy_(weight)
        factors, judge = self._finished(bare), self.judge("val")
        if factors.tail is None:
            return
        unit = spread_of_vectors(factors, self.train_graph.user_degree)
        self.model.near_weight.mul_(unit)
        counts = tail.weight
        if counts is None:
            factors = factors._replace(tail=factors.tail.times(unit))
            counts, values = best_weight(judge, factors, self.ks[0])
            log.info(
                "the tail has weight %g, which is nearly best on the validation part: %s %.4f, without it %.4f",
                *(counts, self.monitor[0], values[WEIGHTS.index(counts)], values[0]),
            )
        self.model.columns.first(self.model.near_weight.mul_(counts))

    def _correct(self, bare: Factors) -> None:
        """Say how strongly these factors are corrected."""
        if self.model.correction is None:
            return
        judge, train = cast(RatingJudge, self.judge("val")), self.training_ratings

        def error(strength: float) -> float:
            return judge.rmse(self.model.completed(corrected(bare, train, strength), self.train_graph))

        self.model.columns.first(self.model.strength.fill_(self.model.correction.best(error)))

    # -- training ------------------------------------------------------------------------------------------

    def forward(self, *matrices: Multipliable) -> Factors:
        """Factors of all users and items after propagation over a matrix for each channel, [nodes, nodes]."""
        return cast(Factors, self.model(*matrices))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step; the batch is only its number within the epoch."""
        if not self.objective.trains:
            self.trainer.should_stop = True  # after the validation that comes now
            return None
        matrices, predicted, generator = self._matrices["train"], self.train_graph, None
        if self.objective.draws or self.masking is not None:
            generator = self.step_generator()
        if self.masking is not None and generator is not None:
            hidden = self.masking.hide(self.train_graph, generator)
            wanted = "lgcn.training.masking.Visible"
            check_returned(self.masking, "hide", isinstance(hidden, tuple) and len(hidden) == 3, wanted, hidden)
            graph, factor, predicted = hidden
            if graph is not self.train_graph or factor is not None:
                matrices = self.propagation.matrices(graph, factor)
        step = self.objective.step(self(*matrices), predicted, generator)
        # To log costs as much as a fifth of a small step, so it is done where somebody reads the value.
        if self._loss_is_read():
            self._loss = step.loss.detach()
            self.log("train/loss", step.loss, prog_bar=True, batch_size=len(self.train_graph))
        penalised = self.l2.of(self.model, self.train_graph, step) if self.l2.per == "batch" else self._penalised
        return with_penalties(step.loss, penalised)

    def _loss_is_read(self) -> bool:
        """Whether this step is one that loggers write, or the last of its epoch, before validation."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        last = self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        return last or (every > 0 and (self.global_step + 1) % every == 0)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (loss := self._loss) is None:
            return
        self._loss = None
        if not math.isfinite(loss):  # loggers wait for it now, too: a GPU loses no time
            raise self._diverged("train/loss", loss)

    def check_finite(self) -> None:
        """Raise Diverged, in all processes, if a parameter is not finite."""
        sums = [value.detach().sum() for value in self.parameters()]
        suspect = bool(sums) and not torch.isfinite(torch.stack(sums)).all()  # a sum may also be too large itself
        lost = [(name, value) for name, value in self.named_parameters() if suspect and not value.isfinite().all()]
        if self.trainer.strategy.reduce_boolean_decision(bool(lost), all=False):
            name, value = lost[0] if lost else ("a parameter of another process", torch.tensor([torch.nan]))
            raise self._diverged(name, value[~value.isfinite()][0])

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning does, with the norm of all columns, of which a process may have a part."""
        columns, norm = self.model.columns, gradient_clip_algorithm != "value"
        if columns.processes == 1 or not gradient_clip_val or not norm:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        square = torch.zeros((), device=self.device)
        for name, parameter in self.model.named_parameters():
            if (grad := parameter.grad) is None:
                continue
            if columns.rank:  # what all processes have counts in the first
                places = self.model.places.get(name)
                grad = grad[:0] if places is None else grad[:, places[columns.rank] != places[0]]
            square = square + grad.float().square().sum()
        total = columns.sum(square).sqrt()
        torch.nn.utils.clip_grads_with_norm_(self.parameters(), float(gradient_clip_val), total)

    def _diverged(self, name: str, value: Tensor) -> Diverged:
        """The error that names what is not finite, and the likely cause."""
        cause, rate = "", [group["lr"] for one in self.trainer.optimizers for group in one.param_groups]
        if str(self.trainer.precision).startswith("16"):
            cause = f": --trainer.precision {self.trainer.precision} holds no large numbers; try bf16-mixed or 32-true"
        elif rate:
            cause = (
                f": the learning rate, {float(rate[0]):g}, is probably too high; try --optimizer.lr {rate[0] / 10:g}"
            )
        return Diverged(f"{name} is {float(value.detach())} at step {self.global_step:,}{cause}")

    def step_generator(self) -> torch.Generator:
        """A generator for this step's draws, seeded by (seed, step number)."""
        state = np.random.SeedSequence((int(self.seed), self.global_step)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0] >> np.uint64(1)))

    def configure_optimizers(self) -> Any:
        """Adam with the paper's learning rate (section 4.1.2), unless the command line says otherwise."""
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True) if self.objective.trains else []

    # -- evaluation ----------------------------------------------------------------------------------------

    def _propagated(self, part: str) -> Factors:
        """The factors that a part is judged by, of all columns if they are to be finished."""
        factors: Factors = self(*self._matrices[part])
        return factors if self.model.tail is None and self.model.correction is None else factors.gathered()

    def _finished(self, bare: Factors) -> Factors:
        """Propagated factors, corrected or with the tail."""
        if self.model.tail is None:
            return self.model.corrected(bare, self.training_ratings)
        return self.model.with_tail(bare, self.train_graph, self.propagation.sent_to_users(self.train_graph))

    def _judge_by(self, bare: Factors) -> None:
        # In a ranking, an item without a training pair is scored from where it is.
        replaces = not self.objective.ranks
        finished = self._finished(bare)
        self._factors = self.model.completed(finished, self.train_graph, replace_items=replaces).gathered()

    def on_validation_epoch_start(self) -> None:
        bare = self._propagated("val")
        if self.trainer.state.fn == "fit":
            self.check_finite()
            if self.objective.trains:
                self._weigh_tail(bare)
                self._correct(bare)
        self._judge_by(bare)

    def on_test_epoch_start(self) -> None:
        self._judge_by(self._propagated("test"))
        if self.uncertainty is not None and self._factors is not None:
            train = self.training_ratings
            self._spread = self.uncertainty.spread(train, prediction_errors(train, self._factors, self.scale))

    on_predict_epoch_start = on_test_epoch_start

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._judge_batch("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._judge_batch("test", batch)
        if self._spread is not None:
            interval = self.interval(self.predict_step(batch, batch_idx), batch)
            assert interval is not None
            within = ((interval.low <= batch.rating) & (batch.rating <= interval.high)).float().mean()
            self._log_mean("test/within_90", within, len(batch.user))

    def _judge_batch(self, part: Part, batch: Any) -> None:
        assert self._factors is not None
        loss = self.judge(part).update(self._factors, batch)
        if loss is not None:
            self._log_mean(f"{part}/loss", loss, len(batch.user), prog_bar=part == "val")

    def _log_mean(self, name: str, value: Tensor, count: int, prog_bar: bool = False) -> None:
        """Log the mean over all ratings, of which a value is that of ``count``."""
        # Lightning averages counts over processes, and those that are whole numbers are rounded down.
        size: Any = float(count)
        self.log(name, value, prog_bar=prog_bar, batch_size=size, sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Predicted ratings of pairs, or the scores that items are ranked by; [B]."""
        assert self._factors is not None
        return self.scale.clamped(self._factors.predict(batch.user, batch.item, batch.time))

    def interval(self, prediction: Tensor, batch: Any) -> Interval | None:
        """Of the predictions of a batch in a test or in `predict`; None where the checkpoint knows of no errors."""
        spread = self._spread
        return None if spread is None else spread.interval(prediction, batch.user, batch.item, self.scale)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.state.fn == "fit" and not self.objective.ranks and self._factors is not None:
            train, held_out = self.training_ratings, self.judge("val").graph
            errors = (prediction_errors(graph, self._factors, self.scale) for graph in (train, held_out))
            self.uncertainty = Uncertainty.fit(train, next(errors), held_out, next(errors))
        self._log("val")

    def on_test_epoch_end(self) -> None:
        self._log("test")
        # Lightning takes the place on the curves' axis from a value of this name; without, a test is at step 0.
        self.log("step", float(max(self._trained_steps - 1, 0)), sync_dist=True)

    def _log(self, part: Part) -> None:
        # The judge has synchronised over processes already; Lightning warns unless it may do so again.
        for name, value in self.judge(part).results().items():
            self.log(name, value, prog_bar=name == self.monitor[0], sync_dist=True)
        self._factors = None

    # -- checkpoints ---------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how large errors are."""
        if self.uncertainty is not None:
            checkpoint["uncertainty"] = self.uncertainty._asdict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint's parameters fit this model. An InputError says which settings differ."""
        self._trained_steps, self._restored = checkpoint["global_step"], True
        if not hasattr(self, "training_ratings"):  # load_from_checkpoint: the data come later
            self.model.make_room(checkpoint["state_dict"])
        self.uncertainty = Uncertainty.of_checkpoint(checkpoint)
        states = checkpoint["state_dict"], self.state_dict()
        theirs, ours = ({name: value.shape for name, value in state.items()} for state in states)
        if theirs == ours:
            return
        was, now = (_deciding(settings) for settings in (checkpoint.get("hyper_parameters", {}), self.hparams))
        differences = [f"{name} {was[name]} there and {now[name]} here" for name in now if was[name] != now[name]]
        raise InputError(
            f"the checkpoint is of another model or other data: {'; '.join(differences) or 'its parameters differ'}; "
            "use the settings of its run (config.yaml beside it), or train anew"
        )


def _deciding(settings: Mapping[str, Any]) -> dict[str, str]:
    """The hyper-parameters that decide which parameters there are, in words."""
    channels = [_short(one) for one in settings.get("propagation", {}).get("channels", [])]
    deciding = {name: str(settings.get(name)) for name in (*SHAPE, "sessions", "content", "correction")}
    chosen = {name: _short(settings.get(name)) for name in ("head", "tail")}
    return deciding | chosen | {"channels": str(channels)}


def _short(choice: Any) -> str:
    """A choice by its class and arguments, without the module."""
    if not isinstance(choice, Mapping):
        return str(choice)
    arguments = ", ".join(f"{name}={value}" for name, value in choice["init_args"].items())
    return f"{choice['class_path'].rpartition('.')[2]}({arguments})"
