"""How long training takes to a given loss: llmkit against nanoGPT's own recipe on its own data.

    python benchmarks/time_to_loss.py --nanogpt PATH [--device cuda [--dtype float16]]

In each round nanoGPT's ``train.py`` runs its recipe for Tiny Shakespeare (on a CPU the settings of
its README, on a GPU ``config/train_shakespeare_char.py`` as it stands), then llmkit trains twice:

1. until that loss: `speed.fast_gpt.sprint` on a CPU, `commands.recipe` on a GPU. How many steps
   that takes was found on the training split; a run that ends above nanoGPT's loss did not reach it
   and is counted as such.
2. as long as nanoGPT trained: the loss at equal time (`commands.recipe`).

Time is training time: evaluation is left out on both sides (with nanoGPT, an iteration that
evaluates counts as the median of the others). Loss is over the whole validation split, 111,540
characters in windows that do not overlap, of nanoGPT's block size (64, on a GPU 256), for both.
"""

from __future__ import annotations

import pickle
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import common
import numpy as np
import torch
from torch import Tensor, nn

import llmkit
from llmkit import GPTConfig, TrainConfig, plots
from llmkit.commands.recipe import recipe
from llmkit.speed import cpu
from llmkit.speed.fast_gpt import FastGPT, sprint

SETTINGS = {  # the recipes of nanoGPT's README, and what makes them print and save what we need
    "cpu": "--device=cpu --compile=False --eval_iters=20 --block_size=64 --batch_size=12"
    " --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
    " --eval_interval=2000 --always_save_checkpoint=True",
    "cuda": "--device=cuda",
}
BLOCK = {"cpu": 64, "cuda": 256}  # nanoGPT's windows there
QUICK = {"cpu": " --max_iters=20 --eval_interval=20", "cuda": " --max_iters=250"}


class Peer(nn.Module):
    """nanoGPT's model behind the interface that `llmkit.evaluate` needs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids, ids)[0]  # given targets, it returns the logits of every position


def main() -> None:
    parser = common.parser(__doc__, "nanogpt")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, with other seeds")
    parser.add_argument("--dtype", help="float16: on any GPU, what a T4 would use")
    options = common.parse(parser)
    if options.nanogpt is None:
        parser.error("nanoGPT's own script is the peer: say where its checkout is, --nanogpt PATH")
    text = llmkit.load_text("tiny_shakespeare")
    tokenizer = llmkit.CharTokenizer.from_text(text)
    train_ids, val_ids = llmkit.split(tokenizer.encode(text))
    data = (train_ids, val_ids, tokenizer.vocab_size)
    peers, sprints, equals = [], [], []
    for seed in range(1, options.rounds + 1):
        peers.append(run_nanogpt(options, *data))
        print(f"nanoGPT: {peers[-1]['loss']:.4f} in {peers[-1]['seconds']:.1f} s", flush=True)
        sprints.append(run_ours(options, "sprint", seed, *data))
        print(f"ours:    {sprints[-1]['loss']:.4f} in {sprints[-1]['seconds']:.2f} s", flush=True)
        equals.append(run_ours(options, peers[-1]["seconds"], seed, *data))
        print(f"ours:    {equals[-1]['loss']:.4f} in {equals[-1]['seconds']:.1f} s", flush=True)
    goal = statistics.median(run["loss"] for run in peers)
    reached = [run for run in sprints if run["loss"] <= goal]
    ours = [run["seconds"] for run in sprints]
    result = common.compare(ours, [run["seconds"] for run in peers]) | {
        "unit": "seconds of training",
        "goal": goal,
        "reached": f"{len(reached)} of {len(sprints)} runs",
        "loss_in_equal_time": statistics.median(run["loss"] for run in equals),
        "runs": {"nanogpt": peers, "ours": sprints, "ours_in_equal_time": equals},
        "versions": common.versions(nanogpt=options.nanogpt),
    }
    print(f"{result['ratio']:.0f} times faster to {goal:.4f}: reached in {result['reached']}")
    print(f"loss in equal time: {result['loss_in_equal_time']:.4f}")
    name = "time_to_loss" + (f"-{options.dtype}" if options.dtype else "")
    common.write_result(name, options.device, result, picture(peers, sprints, equals), options.out)


def run_nanogpt(options, train_ids: Tensor, val_ids: Tensor, vocab_size: int) -> dict:
    """One run of nanoGPT's recipe in a process of its own, and its best checkpoint measured."""
    root = Path(options.nanogpt).expanduser()
    data = root / "data" / "shakespeare_char"
    for name, ids in {"train": train_ids, "val": val_ids}.items():
        if not (data / f"{name}.bin").exists():  # what its prepare.py would download and write
            ids.numpy().astype(np.uint16).tofile(data / f"{name}.bin")
            (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))
    settings = SETTINGS[options.device] + options.quick * QUICK[options.device]
    with tempfile.TemporaryDirectory() as folder:
        words = f"train.py config/train_shakespeare_char.py --log_interval=1 --out_dir={folder}"
        dtype = [f"--dtype={options.dtype}"] if options.dtype else []
        log = subprocess.run(
            [sys.executable, *words.split(), *settings.split(), *dtype],
            cwd=root,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        ).stdout
        saved = torch.load(Path(folder, "ckpt.pt"), map_location=options.device, weights_only=False)
    module = common.import_from(root, "model")
    model = module.GPT(module.GPTConfig(**saved["model_args"])).to(options.device)
    model.load_state_dict(
        {k.removeprefix("_orig_mod."): weight for k, weight in saved["model"].items()}
    )
    times = [float(ms) / 1e3 for ms in re.findall(r"^iter \d+: .* time ([\d.]+)ms", log, re.M)]
    evaluated = range(0, len(times), saved["config"]["eval_interval"])
    usual = statistics.median(times)
    kept = [usual if i in evaluated else t for i, t in enumerate(times)][: saved["iter_num"]]
    return {
        "loss": llmkit.evaluate(Peer(model), val_ids).loss,
        "seconds": sum(kept),
        "steps": saved["iter_num"],
        "milliseconds_per_step": 1e3 * usual,
    }


def run_ours(
    options, goal: str | float, seed: int, train_ids: Tensor, val_ids: Tensor, vocab_size: int
) -> dict:
    """One run of ours: "sprint", or as many seconds as ``goal`` says."""
    device, tokens = torch.device(options.device), len(train_ids)
    if goal == "sprint" and device.type == "cpu":
        shape, config = sprint(vocab_size, seed=seed)
    elif goal == "sprint":
        shape, config = recipe(tokens, vocab_size, device, seed=seed)
    else:
        shape, config = recipe(tokens, vocab_size, device, 10 if options.quick else 60, seed)
        shape, config = in_windows(BLOCK[device.type], shape, config)
        trial = trained(shape, config, train_ids, device)[1]
        pace = trial.seconds / config.steps
        shape, config = recipe(tokens, vocab_size, device, int(goal / pace), seed)
    config = replace(config, dtype=options.dtype or config.dtype)
    if options.quick:  # whatever the machine's speed asks for
        config = replace(config, steps=5, warmup=0)
    shape, config = in_windows(BLOCK[device.type], shape, config)
    torch.manual_seed(seed)
    model, history = trained(shape, config, train_ids, device)
    return {
        "loss": llmkit.evaluate(model, val_ids).loss,
        "seconds": history.seconds,
        "steps": config.steps,
        "milliseconds_per_step": 1e3 * history.seconds / config.steps,
        "parameters": model.num_parameters(),
        "seed": seed,
    }


def trained(shape, config: TrainConfig, train_ids: Tensor, device: torch.device) -> tuple:
    """A model of this shape, the sprinter's or the recipe's, and the history of its training: the
    last weights, as no held-out text is there to choose the best by."""
    config = replace(config, keep_best=False)
    kind = llmkit.GPT if isinstance(shape, GPTConfig) else FastGPT
    model = kind(shape).to(device)
    with cpu.tuned(model):
        return model, llmkit.train(model, train_ids, config=config)


def in_windows(block_size: int, shape: GPTConfig, config: TrainConfig) -> tuple:
    """The same recipe in windows of nanoGPT's size, as many tokens in a batch as before."""
    tokens = shape.block_size * config.batch_size
    return (
        replace(shape, block_size=block_size),
        replace(config, batch_size=tokens // block_size),
    )


def picture(peers: list[dict], sprints: list[dict], equals: list[dict]) -> plots.Picture:
    """The three runs as bars: seconds, with the loss in the name."""
    rows = {"nanoGPT's recipe": peers, "llmkit, the same loss": sprints, "llmkit": equals}
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("loss", "seconds")}
        for name, runs in rows.items()
    }
    names = [f"{name}: loss {m['loss']:.3f}" for name, m in middle.items()]
    ratio = middle["nanoGPT's recipe"]["seconds"] / middle["llmkit, the same loss"]["seconds"]
    return plots.bars(
        names,
        [m["seconds"] for m in middle.values()],
        f"nanoGPT's loss {ratio:.0f} times as soon, or a lower one as late",
        xlabel="seconds of training (Tiny Shakespeare)",
        highlight=names[1],
        fmt="{:.1f}",
    )


if __name__ == "__main__":
    main()
