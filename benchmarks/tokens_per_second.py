"""Training throughput at the same shapes and number format: llmkit against what people learn from.

    python benchmarks/tokens_per_second.py --nanogpt PATH --mingpt PATH [--device cuda]

Peers: nanoGPT, minGPT, the package llms-from-scratch (`pip install --no-deps llms-from-scratch`)
and transformers' GPT-2; one that is not there is left out with a sentence. An update is a batch,
forward, backward, clipping where the peer's own loop clips, and the peer's own optimizer. Ours is
`llmkit.GPT` through `llmkit.train`'s own update: without biases against nanoGPT, which by default
has none, and with them against the others. Dropout is 0 for all. For information: ours in
bfloat16, `FastGPT`, and (--compile) torch.compile, with the time that its first update took.

Share of peak: `cost.flops_per_token` times tokens a second over `cost.matmul_peak`, the higher of
one measurement before and one after.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import time
from collections.abc import Callable
from types import SimpleNamespace

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import llmkit
from llmkit import plots
from llmkit.scale import cost
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig
from llmkit.training import Trainer

CHARACTERS, GPT2 = 65, 50_257  # vocabularies
SHAPES = {  # n_layer, n_head, n_embd, block_size, batch: on a CPU, on a GPU; updates in a turn
    "0.8 M": (4, 4, 128, 64, 12, 12, 30),
    "10.65 M": (6, 6, 384, 256, 8, 64, 3),
}
ON_A_GPU = {"124 M": (12, 12, 768, 1024, 1, 8, 3)}  # GPT-2, with its own vocabulary
QUICK = {"tiny": (1, 2, 16, 8, 2, 2, 1)}
RATE, DECAY, BETAS, CLIP = 1e-3, 0.1, (0.9, 0.95), 1.0


class Race:
    """One shape: builds the contenders, each a function that makes one update."""

    def __init__(
        self, shape: tuple[int, ...], vocab_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        L, H, C, T, cpu_batch, gpu_batch, self.updates = shape
        self.T, self.B = T, cpu_batch if device.type == "cpu" else gpu_batch
        self.device, self.dtype = device, dtype
        self.sizes = dict(vocab_size=vocab_size, block_size=T, n_layer=L, n_head=H, n_embd=C)
        self.ids = torch.randint(vocab_size, (200_000,), generator=torch.Generator().manual_seed(0))
        self.text = self.ids.numpy().astype(np.uint16)  # as nanoGPT keeps it on disk
        self.tokens = self.updates * self.B * T  # in a turn

    def ours(self, model: nn.Module, dtype: torch.dtype | None = None) -> Callable[[], None]:
        name = str(dtype or self.dtype).removeprefix("torch.")
        config = llmkit.TrainConfig(steps=10**6, batch_size=self.B, dtype=name)
        return Trainer(model.to(self.device).train(), self.ids, config).update

    def gpt(self, **choices) -> nn.Module:
        return llmkit.GPT(llmkit.GPTConfig(**self.sizes, **choices))

    def peer(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: torch.optim.Optimizer | Callable[[nn.Module], torch.optim.Optimizer],
        clip: bool = True,
    ) -> Callable[[], None]:
        """The textbook's loop around a peer's model and optimizer."""
        model = model.to(self.device).train()
        optimizer = optimizer(model) if callable(optimizer) else optimizer
        mixed = torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32)

        def update() -> None:
            x, y = self.textbook_batch()
            with mixed:
                value = loss(x, y)
            value.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return update

    def textbook_batch(self) -> tuple[Tensor, Tensor]:
        """Random windows of an array of uint16, cut and stacked one by one: (B, T) each."""
        starts = torch.randint(len(self.text) - self.T - 1, (self.B,)).tolist()
        rows = [self.text[i : i + self.T + 1].astype(np.int64) for i in starts]
        windows = torch.stack([torch.from_numpy(row) for row in rows])
        x, y = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
        if self.device.type == "cpu":
            return x, y
        return tuple(part.pin_memory().to(self.device, non_blocking=True) for part in (x, y))


def nanogpt(race: Race, path: str) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):
        module = common.import_from(path, "model")
        return module.GPT(module.GPTConfig(**race.sizes, dropout=0.0, bias=False))


def nanogpt_update(race: Race, model: nn.Module) -> Callable[[], None]:
    def optimizer(moved: nn.Module) -> torch.optim.Optimizer:
        with contextlib.redirect_stdout(io.StringIO()):
            return moved.configure_optimizers(DECAY, RATE, BETAS, race.device.type)

    return race.peer(model, lambda x, y: model(x, y)[1], optimizer)


def mingpt_update(race: Race, path: str) -> Callable[[], None]:
    GPT = common.import_from(path, "mingpt.model").GPT
    config = GPT.get_default_config()
    config.merge_from_dict(race.sizes | {"model_type": None})
    config.embd_pdrop = config.resid_pdrop = config.attn_pdrop = 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        model = GPT(config)
    settings = SimpleNamespace(weight_decay=DECAY, learning_rate=RATE, betas=BETAS)
    return race.peer(
        model, lambda x, y: model(x, y)[1], lambda moved: moved.configure_optimizers(settings)
    )


def from_scratch_update(race: Race) -> Callable[[], None]:
    from llms_from_scratch.ch04 import GPTModelFast  # the faster of its two

    sizes = race.sizes
    model = GPTModelFast(
        {
            "vocab_size": sizes["vocab_size"],
            "context_length": sizes["block_size"],
            "emb_dim": sizes["n_embd"],
            "n_heads": sizes["n_head"],
            "n_layers": sizes["n_layer"],
            "drop_rate": 0.0,
            "qkv_bias": True,
        }
    )
    return race.peer(
        model,
        lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()),
        lambda moved: torch.optim.AdamW(moved.parameters(), lr=RATE, weight_decay=DECAY),
        clip=False,
    )


def transformers_update(race: Race) -> Callable[[], None]:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = race.sizes | {"n_positions": race.T}
    sizes.pop("block_size")
    config = GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)
    model = GPT2LMHeadModel(config)
    return race.peer(
        model,
        lambda x, y: F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten()),
        lambda moved: torch.optim.AdamW(moved.parameters(), lr=RATE, fused=True),  # its Trainer's
    )


def contenders(race: Race, options) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """Each contender's update, and for each peer the name of ours that it is compared with."""
    updates = {
        "llmkit": race.ours(race.gpt(bias=False)),
        "llmkit, with biases": race.ours(race.gpt()),
    }
    rivals = {}
    if options.nanogpt:
        updates["nanoGPT"] = nanogpt_update(race, nanogpt(race, options.nanogpt))
        rivals["nanoGPT"] = "llmkit"
    if options.mingpt:
        updates["minGPT"] = mingpt_update(race, options.mingpt)
    for package, name, make in (
        ("llms_from_scratch", "llms-from-scratch", from_scratch_update),
        ("transformers", "transformers GPT-2", transformers_update),
    ):
        if importlib.util.find_spec(package):
            updates[name] = make(race)
        else:
            print(f"{name} is left out: it is not installed")
    rivals |= {name: "llmkit, with biases" for name in updates if name not in rivals}
    for name in ("llmkit", "llmkit, with biases"):
        del rivals[name]
    if race.dtype == torch.float32:
        half = race.gpt(bias=False)
        updates["llmkit in bfloat16"] = race.ours(half, torch.bfloat16)
    if race.sizes["vocab_size"] == CHARACTERS:  # its tables are for these
        updates["llmkit FastGPT"] = race.ours(FastGPT(FastGPTConfig(**race.sizes)))
    if options.compile:
        model = race.gpt(bias=False)
        model.compile()
        updates["llmkit, compiled"] = race.ours(model)
        if options.nanogpt:
            peer = nanogpt(race, options.nanogpt)
            peer.compile()
            updates["nanoGPT, compiled"] = nanogpt_update(race, peer)
            rivals["nanoGPT, compiled"] = "llmkit, compiled"
    return updates, rivals


def repeated(update: Callable[[], None], times: int) -> Callable[[], None]:
    def turn() -> None:
        for _ in range(times):
            update()

    return turn


def measure(name: str, shape: tuple[int, ...], options) -> dict:
    """All contenders at one shape, in turns."""
    device = torch.device(options.device)
    vocab_size = GPT2 if name in ON_A_GPU else CHARACTERS
    race = Race(shape, vocab_size, device, getattr(torch, options.dtype))
    updates, rivals = contenders(race, options)
    first = {}
    for contender, update in updates.items():
        common.synchronize(device)
        started = time.perf_counter()
        update()
        common.synchronize(device)
        first[contender] = time.perf_counter() - started
    seconds = 0.05 if options.quick else 2.0
    peaks = [cost.matmul_peak(device, race.dtype, seconds)]
    turns = [repeated(update, race.updates) for update in updates.values()]
    clock = time.process_time if options.busy else time.perf_counter
    times = common.alternate(*turns, repeats=options.rounds, device=device, clock=clock)
    times = dict(zip(updates, times, strict=True))
    peaks.append(cost.matmul_peak(device, race.dtype, seconds))
    flops = cost.flops_per_token(llmkit.GPTConfig(**race.sizes, bias=False))
    rows = {}
    for contender, taken in times.items():
        against = common.compare(times[rivals.get(contender, "llmkit")], taken)
        speed = race.tokens / against["peer"]
        rows[contender] = {"tokens_per_second": speed}
        if contender != "llmkit FastGPT" and "bfloat16" not in contender:
            rows[contender]["share_of_peak"] = speed * flops / max(peaks)
        if contender in rivals:
            rows[contender] |= {
                "compared_with": rivals[contender],
                "ours": race.tokens / against["ours"],
                "peer": speed,
                "ratio": against["ratio"],
                "ratio_spread": against["ratio_spread"],
            }
        if "compiled" in contender:
            rows[contender]["first_update_seconds"] = first[contender]
        print(
            f"{name:>8}  {contender:<22} {speed:>10,.0f} tokens/s"
            + (
                f"  {rows[contender]['share_of_peak']:4.0%} of peak"
                if len(rows[contender]) > 1
                else ""
            )
            + (f"  ours is {against['ratio']:.2f}x as fast" if contender in rivals else "")
        )
    sizes = race.sizes | {"batch_size": race.B, "dtype": options.dtype}
    return {"shape": sizes, "matmul_peak": max(peaks), "flops_per_token": flops, "rows": rows}


def main() -> None:
    arguments = common.parser(__doc__, "nanogpt", "mingpt")
    arguments.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    arguments.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    arguments.add_argument(
        "--busy",
        action="store_true",
        help="count processor seconds, since others use the machine; with OMP_NUM_THREADS=1 only",
    )
    arguments.add_argument("--compile", action="store_true", help="torch.compile as well")
    options = common.parse(arguments)
    options.rounds = 1 if options.quick else options.rounds
    name = "tokens_per_second" + (f"-{options.dtype}" if options.dtype else "")
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    shapes = QUICK if options.quick else SHAPES
    more = ON_A_GPU if options.device != "cpu" and not options.quick else {}
    results = {shape: measure(shape, sizes, options) for shape, sizes in (shapes | more).items()}
    rows = results[list(shapes)[-1]]["rows"]
    title = f"Training {list(shapes)[-1]} parameters, everyone at the same shape"
    speeds = {name: row["tokens_per_second"] for name, row in rows.items()}
    order = sorted(speeds, key=speeds.get, reverse=True)
    picture = plots.bars(
        order,
        [speeds[name] for name in order],
        title,
        xlabel=f"tokens per second ({options.dtype} unless said)",
        highlight="llmkit",
        fmt="{:,.0f}",
    )
    result = {key: rows.get("nanoGPT", {}).get(key) for key in ("ours", "peer", "ratio")}
    result |= {"peer_name": "nanoGPT, tokens per second at the larger shape", "results": results}
    result["versions"] = common.versions(
        "transformers", "llms-from-scratch", nanogpt=options.nanogpt, mingpt=options.mingpt
    )
    common.write_result(name, options.device, result, picture, options.out)


if __name__ == "__main__":
    main()
