"""`python -m llmkit train`: trains a character-level model, measures it and lets it write."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path

import llmkit
from llmkit import checkpoint, plots
from llmkit.arguments import check_number
from llmkit.commands import run_folder
from llmkit.commands.recipe import recipe
from llmkit.files import replacing
from llmkit.scale import distributed
from llmkit.speed import cpu
from llmkit.speed.decoding import quick

SEED = 1337
SAMPLE_CHARACTERS = 400
LINE = 80  # characters within which the text's first line ends, to be the sample's


def add(commands: argparse._SubParsersAction) -> None:
    """The command and its options."""
    known = "; ".join(f"{name}: {what}" for name, what in llmkit.corpora().items())
    command = commands.add_parser("train", help="train a character-level model and measure it")
    source = command.add_mutually_exclusive_group()
    corpus = f"what to train on (default: embedded; {known})"  # as a default it could be doubled
    source.add_argument("--corpus", help=corpus)
    source.add_argument("--text", metavar="FILE", help="a UTF-8 text file, or an http(s) address")
    length = command.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="updates of the weights (default: a minute's)")
    dial = "train for so long, with a model as large as this machine can teach in that time"
    length.add_argument("--minutes", type=float, help=dial)
    command.add_argument("--seed", type=int, help=f"same seed, same run (default: {SEED})")
    command.add_argument("--device", help="cpu, cuda ... (default: a GPU where there is one)")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="default: runs/CORPUS")
    again = command.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    lose = "begin anew, in place of the run that --out holds"
    again.add_argument("--overwrite", action="store_true", help=lose)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, measure the whole held-out split, sample; leave checkpoint, curve and report."""
    check_number("minutes", options.minutes, optional=True, above=0)
    seed = SEED if options.seed is None else options.seed
    runtime = llmkit.start(seed, options.device or distributed.own_device())
    processes = distributed.join()
    corpus = options.text or options.corpus or "embedded"
    name = Path(corpus).stem
    out = options.out or Path("runs") / name
    text = llmkit.load_text(corpus)
    tokenizer = llmkit.CharTokenizer.from_text(text)
    train_ids, val_ids = llmkit.split(tokenizer.encode(text))
    with run_folder.claimed(out) if processes.rank == 0 else nullcontext():
        if options.resume:
            again = {"steps": options.steps, "seed": options.seed}
            model, tokenizer, config, state = run_folder.go_on(out, runtime.device, **again)
        else:
            chosen = recipe(
                len(train_ids),
                tokenizer.vocab_size,
                runtime.device,
                options.steps,
                seed,
                seconds=None if options.minutes is None else 60 * options.minutes,
            )
            shape, config = processes.broadcast(chosen)  # machines differ in speed
            model, state = llmkit.GPT(shape).to(runtime.device), None
            if processes.rank == 0:
                run_folder.make_room(out, options.overwrite)
        print(
            f"{name}: {len(text):,} characters, {tokenizer.vocab_size} of them distinct; "
            f"a model of {model.num_parameters():,} parameters on {runtime.device}, "
            f"{config.steps:,} steps"
        )
        every = max(1, config.steps // 10)
        keep = llmkit.Checkpointer(out / "checkpoint", tokenizer, every=every)
        bar = llmkit.ProgressBar(desc="training", unit="step")
        with cpu.tuned(model):
            history = llmkit.train(
                model,
                train_ids,
                val_ids,
                config,
                callbacks=[bar, keep],
                resume=state,
                processes=processes,
            )
            if history.stopped == "interrupted":
                print(f"stopped after step {history.step[-1]}: the same with --resume goes on")
                return 130
            characters = len(val_ids) - 1
            report = llmkit.evaluate(model, val_ids, characters=characters, processes=processes)
        if processes.rank > 0:
            return 0
        title = f"{name}: validation loss {report.loss:.3f} after {history.seconds:.0f} seconds"
        plots.loss_curves(history, title).savefig(out / "loss.png")
        record = {
            "corpus": corpus,
            "val_loss": report.loss,
            "val_perplexity": report.perplexity,
            "bits_per_char": report.bits_per_char,
            "val_tokens": report.tokens,
            "train_seconds": history.seconds,
            "steps": history.step[-1],
            "best_step": history.best_step,
            "tokens_seen": history.tokens[-1],
            "seed": config.seed,
        }
        with replacing(out / "report.json") as path:
            path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        checkpoint.save(out / "checkpoint", model, tokenizer)  # till here --resume ends the run
        # As the text itself begins, and a little bolder than greedy: what can be read aloud.
        start = tokenizer.encode(text[: text.find("\n", 0, LINE) + 1] or text[0])
        ids = llmkit.generate(
            quick(model), start, SAMPLE_CHARACTERS, temperature=0.5, seed=config.seed
        )
        print(f"validation loss  {report.loss:.4f} nats per character, over all {report.tokens:,}")
        print(f"perplexity       {report.perplexity:.3f}")
        print(f"bits per char    {report.bits_per_char:.4f}")
        print(f"a sample:\n{tokenizer.decode(ids).rstrip()}\n")
        print(f"checkpoint       {out / 'checkpoint'}")
        print(f"loss curve       {out / 'loss.png'}")
        print(f"report           {out / 'report.json'}")
        return 0
