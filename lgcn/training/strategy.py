"""ColumnsStrategy: several processes train one model, each a part of the embedding columns (docs/scale.md).

It is registered with Lightning as ``columns`` when this file is imported, as the command line does.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor, distributed, optim

from lgcn.errors import InputError
from lgcn.graph.columns import Columns
from lgcn.training import objectives
from lgcn.training.module import LightGCNModule

#: Optimisers that treat each number by itself.
BY_ELEMENT = (
    *(optim.Adadelta, optim.Adagrad, optim.Adam, optim.Adamax, optim.AdamW, optim.ASGD, optim.NAdam, optim.RAdam),
    *(optim.RMSprop, optim.Rprop, optim.SGD),
)


class ColumnsStrategy(DDPStrategy):
    """Divides the embedding columns over processes, which Lightning, torchrun or SLURM start.

    Embeddings, their gradients and the optimiser's state are divided by the number of processes, everything else is in
    each of them. A checkpoint is that of one process, so a run goes on with any number of processes.

    >>> ColumnsStrategy().columns  # one process, before others are started
    Columns(rank=0, processes=1)
    """

    @property
    def columns(self) -> Columns:
        """Which of the columns this process has."""
        return Columns(self.global_rank, self.world_size)

    def check(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Raise an InputError if a module or a part of its Trainer is none that processes can divide."""
        if not isinstance(module, LightGCNModule):
            raise InputError(f"the strategy columns is for a LightGCNModule (got {type(module).__name__})")
        module.model.check_divides(self.num_nodes * self.num_processes)
        kind, ours = type(module.objective), objectives.__name__
        if any(getattr(getattr(kind, name, None), "__module__", ours) != ours for name in ("step", "rank")):
            raise InputError(f"the strategy columns knows no objective with its own step or rank (got {kind.__name__})")
        if trainer.precision == "16-mixed":
            raise InputError("the strategy columns needs --trainer.precision bf16-mixed or 32-true (got 16-mixed)")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StochasticWeightAveraging | WeightAveraging):
                raise InputError(f"the strategy columns goes without the callback {type(callback).__name__}")

    def setup(self, trainer: pl.Trainer) -> None:
        """As DDPStrategy does, without its wrapper, which would sum gradients, and send parameters to all."""
        assert self.accelerator is not None
        self.check(trainer, self._module)
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self._module)
        self.model_to_device()
        for name, value in self._module.state_dict().items():
            if name not in self._places:
                self.columns.first(value)
        if trainer.state.fn == "fit":
            self.setup_optimizers(trainer)
            self.check_optimizers()
        self.setup_precision_plugin()

    def check_optimizers(self) -> None:
        """Raise an InputError if an optimiser needs more than the columns of one process."""
        for one in self.optimizers:
            parameters = [parameter for group in one.param_groups for parameter in group["params"]]
            if type(one) not in BY_ELEMENT:
                raise InputError(f"the strategy columns knows no optimiser {type(one).__name__}; try Adam")
            if [*map(id, parameters)] != [*map(id, self._module.parameters())]:
                raise InputError("the strategy columns needs an optimiser of all parameters, in their order")

    @property
    def _module(self) -> LightGCNModule:
        assert isinstance(self.lightning_module, LightGCNModule)
        return self.lightning_module

    @property
    def _places(self) -> dict[str, Tensor]:
        """Where each process's columns are, [P, w], of the module's parameters that are divided."""
        return {f"model.{name}": places for name, places in self._module.model.places.items()}

    # -- checkpoints ---------------------------------------------------------------------------------------

    def _divided(self, checkpoint: Mapping[str, Any]) -> Iterator[tuple[dict[Any, Any], Any, Tensor]]:
        """The tensors of a checkpoint that are divided: where each is, by which key, and the places of its columns.

        An optimiser's state has a tensor of a parameter's shape, or a number.
        """
        state, names = checkpoint["state_dict"], [name for name, _ in self._module.named_parameters()]
        for name, places in self._places.items():
            shape = getattr(state.get(name), "shape", None)
            for one in checkpoint.get("optimizer_states", []):
                moments = one["state"].get(names.index(name), {})
                yield from ((moments, key, places) for key, value in moments.items() if _shape(value) == shape)
            if shape is not None:
                yield state, name, places

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write the checkpoint of one process: the first one puts the columns of all together, in its host's memory."""
        if self.columns.processes > 1:
            if "optimizer_states" in checkpoint:  # which are the optimiser's own, and not copies
                checkpoint["optimizer_states"] = [
                    one | {"state": {place: {**values} for place, values in one["state"].items()}}
                    for one in checkpoint["optimizer_states"]
                ]
            for holder, key, places in [*self._divided(checkpoint)]:
                holder[key] = self._whole(holder[key], places)
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def _whole(self, part: Tensor, places: Tensor) -> Tensor:
        """All columns, on the CPU of the first process; in others the part."""
        mine, received = part.detach().to(self.root_device).contiguous(), None
        if not self.is_global_zero:
            distributed.send(mine, 0)
            return part
        whole = torch.empty(len(part), int(places.max()) + 1, dtype=part.dtype)
        for rank, theirs in enumerate(places):
            if rank:
                received = torch.empty_like(mine) if received is None else received
                distributed.recv(received, rank)
            whole[:, theirs] = (mine if received is None else received).cpu()
        return whole

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint of one process, with the columns of this one."""
        if self.columns.processes == 1 or not Path(checkpoint_path).is_file():
            return super().load_checkpoint(checkpoint_path, weights_only)
        # mmap: what belongs to other processes is not held in memory.
        checkpoint: dict[str, Any] = torch.load(
            checkpoint_path, map_location="cpu", weights_only=weights_only is not False, mmap=True
        )
        for holder, key, places in [*self._divided(checkpoint)]:
            fits = holder[key].dim() == 2 and holder[key].shape[1] == int(places.max()) + 1
            # Of another width nothing is kept, so that the module says what differs.
            holder[key] = holder[key][:, places[self.global_rank] if fits else slice(0)]
        return checkpoint


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) and value.dim() == 2 else None


StrategyRegistry.register("columns", ColumnsStrategy, description="Embedding columns divided over processes")
