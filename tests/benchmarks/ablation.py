"""What each part of a recipe is worth: it is taken away, and the validation RMSE compared. Test ratings are not read.

Run it with `python tests/benchmarks/ablation.py`; options it does not know go to every training. One seed takes
about as long as 19 trainings. The table is Markdown.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe

from lgcn.runs import settings

CONFIGS = Path(__file__).parents[2] / "configs"
FULL = "the full recipe"
DEFAULT_COLUMNS = 64  # LightGCNModule's

# After the paper: no weights but 1, layer 0 included, every edge in every step, three layers.
PLAIN = ["--model.propagation.channels=[Binary]", "--model.ego_layer=true", "--model.masking=null"]
PAPERS = "--model.propagation.degree_exponents=[0.5, 0.5]"


def variants(config: Path) -> dict[str, list[str]]:
    """The options that take each part of a recipe away."""
    model: dict[str, Any] = {}
    for content in settings.load(str(config)):
        model |= content.get("model", {})
    share, columns = model["masking"]["init_args"]["share"], model.get("embedding_dim", DEFAULT_COLUMNS)
    return {
        FULL: [],
        "with the ego layer": ["--model.ego_layer=true"],
        "binary weights only": ["--model.propagation.channels=[Binary]"],
        "centered weights only": ["--model.propagation.channels=[Centered]"],
        "residual instead of centered": ["--model.propagation.channels=[Binary, Residual]"],
        "channels share embeddings": ["--model.channel_embeddings=shared"],
        "the paper's degree exponents": [PAPERS],
        "no masking": ["--model.masking=null"],
        f"edge dropout {share} instead of masking": ["--model.masking=EdgeDropout", f"--model.masking.share={share}"],
        "no L2 on embeddings": ["--model.l2.embeddings=0"],
        "no L2 on biases": ["--model.l2.biases=0"],
        "no biases": ["--model.head.biases=false", "--model.l2.biases=0"],
        "no clamping": ["--model.clamp=false"],
        "constant learning rate": ["--lr_scheduler=null", "--lr_interval=null"],
        **{f"{few} columns": [f"--model.embedding_dim={few}"] for few in (16, 32, 64) if few != columns},
        "three layers": ["--model.num_layers=3"],
        "plain LightGCN, K = 3": [*PLAIN, PAPERS, "--model.num_layers=3"],
        "no graph: matrix factorisation": [*PLAIN, "--model.num_layers=0"],
    }


def train(config: Path, seeds: list[str], options: list[str]) -> dict[str, Any]:
    """What `lgcn seeds` wrote, with val/rmse as the score; its runs are not kept.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        args = [f"--config={config}", *options, "--runs_dir", folder, "--run_name=ablation", "--seeds", *seeds]
        args += ["--checkpoint.monitor=val/rmse", "--checkpoint.mode=min", "--trainer.enable_progress_bar=false"]
        args += ["--report=false"]
        # A process of its own, as every training has it.
        ran = subprocess.run([sys.executable, "-m", "lgcn", "seeds", *args], capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError((ran.stderr.strip() or f"status {ran.returncode}").splitlines()[-1])
        content: dict[str, Any] = json.loads((Path(folder) / "ablation" / "seeds.json").read_text())
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=CONFIGS / "ml-latest-small.yaml")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2", "3", "4"], metavar="N")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants beside the full recipe (default: all)")
    given, common = parser.parse_known_args()
    chosen = variants(given.config)
    if given.only:
        unknown = set(given.only) - chosen.keys()
        if unknown:
            parser.error(f"--only {sorted(unknown)}: there are {list(chosen)}")
        chosen = {name: options for name, options in chosen.items() if name == FULL or name in given.only}

    lines, full = [], float("nan")
    for number, (name, options) in enumerate(chosen.items(), 1):
        start = time.perf_counter()
        try:
            result = train(given.config, given.seeds, [*common, *options])
        except RuntimeError as error:  # the other variants are still wanted
            cells = [f"failed: {error}", ""]
        else:
            mean, std = (result[what]["val/rmse"] for what in ("mean", "sample_std"))
            full = mean if name == FULL else full
            cells = [f"{mean:.4f}" + ("" if std is None else f" ± {std:.4f}")]
            cells += ["" if name == FULL else f"{mean - full:+.4f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        seconds = time.perf_counter() - start
        print(f"{number} of {len(chosen)}: {name}: {cells[0]} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    print(f"\n| variant | val RMSE | against {FULL} |\n|---|---|---|", *lines, sep="\n")
    print(f"\n± is the sample standard deviation over seeds {', '.join(given.seeds)} of {given.config.name}.")
    print(describe())


if __name__ == "__main__":
    main()
