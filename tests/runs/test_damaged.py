"""Checkpoints that are damaged, cut short, foreign, or made to do harm: each ends in one line, whoever reads it."""

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lgcn import Recommender
from lgcn.checkpoints import other_of, read_checkpoint
from lgcn.errors import InputError
from tests.runs.running import checkpoint, path_of, refused


@pytest.fixture
def run(run: Path) -> Path:
    """A run without the other checkpoint, from which it could go on."""
    other_of(Path(path_of(run))).unlink()
    return run


#: Every command that reads a checkpoint, with the checkpoint's path and a folder to write to.
READERS: dict[str, Callable[[str, str], list[str]]] = {
    "fit": lambda path, out: ["fit", "--ckpt_path", path, "--trainer.max_steps=12"],
    "init_from": lambda path, out: ["fit", "--init_from", path, "--runs_dir", out],
    "validate": lambda path, out: ["validate", "--ckpt_path", path],
    "test": lambda path, out: ["test", "--ckpt_path", path],
    "predict": lambda path, out: ["predict", "--ckpt_path", path, "--output", f"{out}/p.csv"],
    "recommend": lambda path, out: ["recommend", "--ckpt_path", path, "--users", "u1"],
    "similar": lambda path, out: ["similar", "--items", "10", "--ckpt_path", path],
    "export": lambda path, out: ["export", "--ckpt_path", path, "--output", f"{out}/export"],
    "serve": lambda path, out: ["serve", "--ckpt_path", path],
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_says_in_one_line_that_a_checkpoint_is_damaged(
    reader: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One changed bit of a parameter, which torch would not notice; and an embedding that is no number."""
    path, whole = Path(path_of(run)), Path(path_of(run)).read_bytes()
    table = checkpoint(run)["state_dict"]["model.embedding.weight"].numpy().tobytes()
    place = whole.index(table) + 5
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert "another checksum" in refused(capsys, READERS[reader](str(path), str(tmp_path)))
    path.write_bytes(whole)
    content = checkpoint(run)
    content["state_dict"]["model.embedding.weight"][3, 1] = torch.nan
    torch.save(content, path)
    assert "model.embedding.weight has values that are no" in refused(capsys, READERS[reader](str(path), str(tmp_path)))


def test_any_changed_byte_is_noticed_or_changes_nothing(run: Path) -> None:
    path, whole, draw = Path(path_of(run)), Path(path_of(run)).read_bytes(), random.Random(0)
    expected, noticed = read_checkpoint(path)["global_step"], 0
    for _ in range(60):
        place, length = draw.randrange(len(whole)), draw.choice([1, 4, 4096])
        path.write_bytes(whole[:place] + draw.randbytes(length) + whole[place + length :])
        try:
            assert read_checkpoint(path)["global_step"] == expected  # between two parts of the archive
        except InputError:
            noticed += 1
    assert noticed > 30


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_file_cut_short(share: float, run: Path) -> None:
    path = Path(path_of(run))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)


def test_an_archive_that_is_compressed_is_none_of_ours(run: Path, tmp_path: Path) -> None:
    """A few bytes of it would be gigabytes."""
    with (
        zipfile.ZipFile(path_of(run)) as parts,
        zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as other,
    ):
        for name in parts.namelist():
            other.writestr(name, parts.read(name))
    with pytest.raises(InputError, match="it is compressed"):
        read_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("depth", [100, 100_000])
def test_what_is_nested_too_deep(depth: int, run: Path) -> None:
    content = checkpoint(run)
    content["loops"] = {"fit_loop": {"state": "NEST"}}
    torch.save(content, path_of(run))
    with zipfile.ZipFile(path_of(run)) as parts:
        whole = {name: parts.read(name) for name in parts.namelist()}
    with zipfile.ZipFile(path_of(run), "w") as other:
        for name, part in whole.items():
            # The pickle of a text becomes that of lists in lists.
            text = b"X\x04\x00\x00\x00NEST"
            other.writestr(name, part.replace(text, b"]" * depth + b"a" * (depth - 1)))
    with pytest.raises(InputError, match="nested too deep"):
        read_checkpoint(Path(path_of(run)))


# -- contents ----------------------------------------------------------------------------------------------------


def put(content: dict[str, Any], name: str, value: Any) -> None:
    """Put a value into a nest by its dotted name; ``...`` deletes what is there."""
    *above, last = (int(key) if key.isdigit() else key for key in name.split("/"))
    holder: Any = content
    for key in above:
        holder = holder[key]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value(holder[last]) if callable(value) else value


SNAPSHOT = "RatingsDataModule/snapshot"
TABLE = "state_dict/model.embedding.weight"

#: What is changed in a checkpoint, and what is said of it.
ALTERED: list[tuple[str, Any, str]] = [
    ("hyper_parameters/num_layers", 2**31, "num_layers must be a whole number from 0 to 100"),
    ("hyper_parameters/num_layers", -1, "num_layers"),
    ("hyper_parameters/num_layers", True, "num_layers"),
    ("hyper_parameters/embedding_dim", 10**12, "embedding_dim"),
    ("hyper_parameters/embedding_dim", 5, "do not fit"),
    ("hyper_parameters/num_users", 31, "do not fit"),
    ("hyper_parameters/num_items", "20", "num_items"),
    ("hyper_parameters/k", [10**18], "k must be"),
    ("hyper_parameters/layer_weights", [float("nan"), 1], "layer_weights"),
    ("hyper_parameters/propagation/degree_exponents", [10**400, 0.5], "too large"),
    ("hyper_parameters/propagation/channels", [{"class_path": "lgcn.graph.channels.Binary"}] * 101, "do not fit"),
    ("hyper_parameters/head", {"class_path": "os.system"}, "is not imported|must be one of"),
    ("hyper_parameters/l2", ..., "l2 is missing"),
    (TABLE, lambda table: torch.full_like(table, 1e30), r"beyond 1e\+15"),
    (TABLE, lambda table: table.to(torch.float8_e4m3fn), "a kind that no model has"),
    ("hyper_parameters/propagation/degree_exponents", [-40.0, -40.0], "its scores overflow"),
    ("hyper_parameters/head/init_args", {"biases": False}, "Unexpected key"),
    (TABLE, ..., "do not fit"),
    (TABLE, lambda table: table[:-1], "do not fit"),
    (TABLE, lambda table: table[:1].expand(10**9, -1), "of a kind that no model has"),
    (TABLE, lambda table: table.to_sparse(), "of a kind that no model has"),
    (TABLE, lambda table: table.fill_(torch.inf), r"beyond 1e\+15"),
    ("state_dict/model.head.item_bias", lambda bias: bias[:-1], "size mismatch"),
    ("state_dict/model.head.item_bias", "0", "must be a tensor"),
    ("global_step", -1, "global_step"),
    ("global_step", "8", "global_step"),
    ("callbacks", [1], "callbacks"),
    ("uncertainty", None, "uncertainty must be a dictionary"),
    ("uncertainty", {"weights": [0.0] * 5}, "quantile is missing"),
    ("uncertainty/quantile", "1.6", "quantile must be a finite number"),
    ("uncertainty/quantile", float("nan"), "quantile must be a finite number"),
    ("uncertainty/quantile", 0.0, "quantile must be a number above 0"),
    ("uncertainty/quantile", 1e300, "quantile must be a number above 0"),
    ("uncertainty/weights", 0.0, "weights must be a list"),
    ("uncertainty/weights", torch.zeros(5), "weights must be a list"),
    ("uncertainty/weights", [0.0] * 4, "weights must be 5 numbers"),
    ("uncertainty/weights", [0.0] * 6, "weights must be 5 numbers"),
    ("uncertainty/weights", [0.0, 0.0, 0.0, 0.0, True], "weights must be a finite number"),
    ("uncertainty/weights", [0.0, 0.0, 0.0, 0.0, float("-inf")], "weights must be a finite number"),
    ("uncertainty/weights", [0.0, 0.0, 0.0, 0.0, -1e300], "weights must be 5 numbers"),
    ("pytorch-lightning_version", '2."6', "version of Lightning"),
    ("pytorch-lightning_version", "none", "version of Lightning"),
    (f"{SNAPSHOT}/items", lambda items: items[:-1], "num_items is 20, and there are 19|out of range"),
    (f"{SNAPSHOT}/items", lambda items: items.flip(0), "not sorted"),
    (f"{SNAPSHOT}/items", lambda items: items.double(), "wrong type"),
    (f"{SNAPSHOT}/users", json.dumps(["a"] * 30), "not sorted"),
    (f"{SNAPSHOT}/users", "[" * 5000, "damaged"),
    (f"{SNAPSHOT}/users", '["\\ud800"]', "surrogates"),
    (f"{SNAPSHOT}/item_attributes", '{"title": ["a"]}', "does not fit their number"),
    (f"{SNAPSHOT}/item_attributes", '{"title": [[1]]}', "damaged"),
    (f"{SNAPSHOT}/graphs/train/item", lambda item: item.index_fill(0, torch.tensor([0]), -1), "out of range"),
    (f"{SNAPSHOT}/graphs/train/item", lambda item: item.index_fill(0, torch.tensor([5]), 2**30), "out of range"),
    (f"{SNAPSHOT}/graphs/train/item", lambda item: item.flip(0), "not sorted"),
    (f"{SNAPSHOT}/graphs/train/rating", lambda rating: rating * torch.nan, "out of range"),
    (f"{SNAPSHOT}/graphs/train/user_starts", lambda starts: starts[:-1], "does not fit"),
    (f"{SNAPSHOT}/graphs/others", ..., "no others ratings"),
    (f"{SNAPSHOT}/kind/threshold", "1", "threshold"),
    (SNAPSHOT, 5, "damaged"),
    ("hyper_parameters/ranks", True, "a model that ranks has no uncertainty"),
]


@pytest.mark.parametrize(("name", "value", "words"), ALTERED)
def test_an_altered_content_is_refused_before_it_is_used(
    name: str, value: Any, words: str, rated: Path, tmp_path: Path
) -> None:

    content = checkpoint(rated)
    put(content, name, value)
    torch.save(content, tmp_path / "altered.ckpt")
    with pytest.raises(InputError, match=words):
        Recommender.from_checkpoint(tmp_path / "altered.ckpt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer_states/0/state/0/exp_avg", lambda moments: moments[:1]),  # a fused step would read on
        ("optimizer_states/0/state/0/exp_avg_sq", lambda moments: moments.double()[:, :2]),
        ("optimizer_states/0/state/0/exp_avg", ...),
        ("optimizer_states/0/param_groups/0/lr", [0.1]),
        ("optimizer_states/0/param_groups/0/betas", ["a", "b"]),
        ("optimizer_states/0/param_groups/0/params", [0]),
        ("optimizer_states", []),
        ("optimizer_states", ...),
        ("loops", ...),
        ("loops/fit_loop/epoch_progress/current", 5),
        ("loops/fit_loop/epoch_progress", ...),
        ("loops/fit_loop/epoch_loop.automatic_optimization.optim_progress", {"optimizer": {"step": 5}}),
        ("loops/fit_loop/state_dict", {"combined_loader": [5]}),
        ("callbacks/Plots/curve", [{"step": "a"}]),
        ("callbacks/RunCheckpoints/best_score", [1]),
        ("pytorch-lightning_version", "1.0.0"),
        ("config", "trainer: [1"),
        ("config", 5),
    ],
)
def test_a_run_does_not_go_on_from_what_does_not_fit(
    name: str, value: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = checkpoint(run)
    put(content, name, value)
    torch.save(content, path_of(run))
    said = refused(capsys, ["fit", "--ckpt_path", path_of(run), "--trainer.max_steps=12"])
    assert "damaged" in said or "is not YAML" in said


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model.embedding_dim", 10**12, "has embedding_dim 4, and its configuration another"),
        ("model.num_layers", 2**31, "has num_layers 1"),
        ("model.l2", 5, "says --model.l2"),
        ("data.add_self_loops", None, "--data.add_self_loops must not be null"),
        ("data.eval_batch_size", -1, "eval_batch_size must be at least 1"),
    ],
)
def test_a_configuration_in_a_checkpoint_is_of_its_model(
    name: str, value: Any, words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = checkpoint(run)
    config = yaml.safe_load(content["config"])
    put(config, name.replace(".", "/"), value)
    content["config"] = yaml.safe_dump(config)
    torch.save(content, path_of(run))
    for command in ("fit", "test"):
        assert words in refused(capsys, [command, "--ckpt_path", path_of(run)])
