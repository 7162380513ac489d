"""configs/notebook.yaml against the notebook's model and training loop, written with gathers and scatters."""

from pathlib import Path

import torch
from torch.nn.functional import mse_loss

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule


def test_the_notebook_configuration_learns_what_the_notebook_would(real_data: Path, tmp_path: Path) -> None:
    """20 of its 10,000 steps; the schedule moves after 10 of them instead of 200."""
    args = ["--config", "configs/notebook.yaml", "--data.root", str(real_data), "--runs_dir", str(tmp_path)]
    short = ["--trainer.max_steps=20", "--data.steps_per_epoch=10", "--lr_frequency=10"]
    quiet = ["--trainer.enable_model_summary=false", "--trainer.log_every_n_steps=10"]
    main(["fit", *args, *short, *quiet])
    path = tmp_path / "notebook" / "version_0" / "checkpoints" / "last.ckpt"
    ours = torch.load(path, weights_only=True)["state_dict"]

    data = RatingsDataModule("ml-latest-small", root=str(real_data), min_rating=1)
    train = data.graphs["train"]
    user, item = train.user.long(), train.item.long() + data.num_users
    row, column = torch.cat([user, item]), torch.cat([item, user])
    degree = torch.bincount(row, minlength=train.num_nodes).float()
    weight = (degree[row] * degree[column]).rsqrt()[:, None]
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(train.num_nodes, 64)
    torch.nn.init.normal_(embedding.weight, std=0.1)
    out = torch.nn.Linear(128, 1)
    optimizer = torch.optim.Adam([*embedding.parameters(), *out.parameters()], lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)
    for step in range(1, 21):
        ego = embedding.weight
        neighbours = torch.zeros_like(ego).index_add(0, row, weight * ego[column])
        final = (ego + neighbours) / 2
        preds = out(torch.cat([final[user], final[item]], dim=1))
        loss = mse_loss(preds, train.rating[:, None])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step == 10:
            schedule.step()

    # 20 steps move a parameter by up to 2e-2.
    theirs = {"embedding.weight": embedding.weight, "head.out.weight": out.weight, "head.out.bias": out.bias}
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[f"model.{name}"], expected.detach(), rtol=0, atol=1e-5)
