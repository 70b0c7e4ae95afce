"""Training in two processes that torchrun starts: the same figures as in one, and a clear end.

Run as a script, this file is what the two processes do: `torchrun tests/test_distributed.py JOB`.
A start takes seconds, so that one job looks at many things, and each test at one result of it.
"""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.callbacks import Checkpointer, Sampler
from llmkit.commands import recipe
from llmkit.model import GPT, GPTConfig
from llmkit.runtime import PeerLost, interruptible
from llmkit.scale import distributed
from llmkit.tokenizer import CharTokenizer
from llmkit.train_config import TrainConfig

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 60
TOKENIZER = CharTokenizer.from_text(TEXT)
IDS = TOKENIZER.encode(TEXT)
TRAIN, VAL = IDS[:2500], IDS[2500:]
CONFIG = TrainConfig(steps=12, batch_size=4, eval_every=4, learning_rate=0.01)  # of each process
ALONE = replace(CONFIG, batch_size=8)  # the same rows in one process
# Most in float64: Adam divides by gradients near zero and Muon rounds to bfloat16, and both blow up
# what the order of a sum makes of the last bit.
CURVES = {
    "adamw": (CONFIG, torch.float64),
    "adamw, float32": (CONFIG, torch.float32),
    "adamw, accumulated": (replace(CONFIG, gradient_accumulation_steps=3), torch.float64),
    "muon": (replace(CONFIG, optimizer="muon"), torch.float64),
    "muon, accumulated": (
        replace(CONFIG, optimizer="muon", gradient_accumulation_steps=2),
        torch.float64,
    ),
    "recomputed": (replace(CONFIG, gradient_checkpointing=True), torch.float64),
}


def train(*args, **options):
    """`llmkit.train` by all processes, or by the one there is."""
    return llmkit.train(*args, processes=distributed.join(), **options)


def evaluate(*args, **options):
    """`llmkit.evaluate`, likewise."""
    return llmkit.evaluate(*args, processes=distributed.join(), **options)


def make(seed=0, **changes):
    torch.manual_seed(seed)
    shape = dict(vocab_size=TOKENIZER.vocab_size, block_size=8, n_layer=2, n_head=2, n_embd=16)
    return GPT(GPTConfig(**shape | changes))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def before_call(model, number, action):
    """Do something when model.loss is called for the number-th time; a number that this gives
    multiplies the loss. Returns the model."""
    real, calls = model.loss, []

    def loss(*args):
        calls.append(None)
        factor = action() if len(calls) == number else None
        return real(*args) * (1 if factor is None else factor)

    model.loss = loss
    return model


# What the processes do ---------------------------------------------------------------------------


def figures(folder):
    """All that a healthy run can show; each process leaves its results in a file."""
    rank, found = distributed.join().rank, {}
    buckets = []

    class Counted(torch.nn.parallel.DistributedDataParallel):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.register_comm_hook(None, self.count)

        def count(self, state, bucket):
            buckets.append(bucket.index())
            return allreduce_hook(state, bucket)

    torch.nn.parallel.DistributedDataParallel = Counted
    for name, (config, dtype) in CURVES.items():
        buckets.clear()
        model = make(seed=rank).to(dtype)  # rank 0's weights count
        history = train(model, TRAIN, VAL, config)
        found[name] = vars(history), weights(model), len(buckets)
    found["evaluations"] = evaluations()
    found["callbacks"] = callbacks(folder)
    found["stop"] = vars(train(make(), TRAIN, VAL, CONFIG, callbacks=[stop_at(3)]))
    model = make()
    config = replace(CONFIG, steps=40, keep_best=True, patience=1, eval_every=2, learning_rate=0.5)
    found["patience"] = vars(train(model, TRAIN, VAL, config)), weights(model)
    found["dropout"] = seeds()
    found["not a number"] = not_a_number(float("nan") if rank else 1.0)
    model = before_call(make(), 5, lambda: 1e35 if rank else 1.0)  # 1e35 times the scale is inf
    scales = []
    config = replace(CONFIG, dtype="float16")
    train(model, TRAIN, VAL, config, callbacks=[lambda run: scales.append(run.scaler.get_scale())])
    found["float16"] = scales, weights(model)
    model = before_call(make(), 5, lambda: os.kill(os.getpid(), signal.SIGINT) if rank else None)
    found["interrupt"] = vars(train(model, TRAIN, VAL, CONFIG))
    found["resume"] = resume(folder)
    torch.save(found, folder / f"{rank}.pt")


def evaluations():
    model, shown = make(), []
    model.register_forward_pre_hook(lambda _, args: shown.append(args[0]))
    losses = [evaluate(model, VAL, stride=s, batch_size=5).loss for s in (None, 3)]
    return losses, sum(x.numel() for x in shown)


def callbacks(folder):
    """What is seen by a callback, which may evaluate without asking the other process."""
    seen = []

    def look(run):
        if run.evaluated:
            seen.append((run.step, llmkit.evaluate(run.model, VAL).loss, run.history.val_loss[-1]))

    folder = folder / f"run{distributed.join().rank}"
    sample, keep = Sampler(TOKENIZER, 6, "the"), Checkpointer(folder, TOKENIZER)
    history = train(make(), TRAIN, VAL, CONFIG, callbacks=[sample, look, keep])
    return seen, folder.exists(), len(history.samples)


def stop_at(step):
    def stop(run):
        if run.step == step:
            run.stop = "enough"

    return stop


def seeds():
    """What dropout draws from in every step."""
    model, drawn = make(dropout=0.5), []
    real = model.loss

    def loss(x, y):
        drawn.append(torch.default_generator.initial_seed())
        return real(x, y)

    model.loss = loss
    train(model, TRAIN, None, CONFIG)
    return drawn


def not_a_number(factor):
    model = before_call(make(), 4, lambda: factor)
    try:
        train(model, TRAIN, VAL, CONFIG)
    except FloatingPointError as error:
        return str(error), weights(model)


def resume(folder):
    """A run with dropout in one go, and in two; the second time only rank 0 knows of the first."""
    whole, config = make(dropout=0.2), replace(CONFIG, keep_best=True)
    history = train(whole, TRAIN, VAL, config)
    keep = [stop_at(5), Checkpointer(folder / "resume")]
    train(make(dropout=0.2), TRAIN, VAL, config, callbacks=keep)
    model, state = make(seed=9, dropout=0.2), None
    if distributed.join().rank == 0:
        model, _ = checkpoint.load(folder / "resume")
        state = checkpoint.load_state(folder / "resume")
    again = train(model, TRAIN, VAL, config, resume=state)
    return vars(history), weights(whole), vars(again), weights(model)


def killed(folder, rank):
    """A run in which a process dies in mid-step, after the first of two passes."""
    model = make().double()
    if distributed.join().rank == rank:
        before_call(model, 14, lambda: os.kill(os.getpid(), signal.SIGKILL))
    config = replace(CONFIG, batch_size=2, gradient_accumulation_steps=2)
    train(model, TRAIN, VAL, config, callbacks=[Checkpointer(folder / "run", every=4)])


def command(folder):
    """`python -m llmkit` with an error, without one, and with an interrupt of torchrun."""
    for model in recipe.MODELS.values():
        model |= dict(block_size=16, n_layer=1, n_head=2, n_embd=16)
    for run in recipe.RUNS.values():
        run["batch_size"] = 8
    (folder / "poem.txt").write_text(TEXT)
    arguments = ["train", "--text", str(folder / "poem.txt"), "--out"]
    assert main([*arguments, str(folder / "run"), "--steps", "0"]) == 2
    assert main([*arguments, str(folder / "run"), "--steps", "4"]) == 0
    if distributed.join().rank == 1:
        before_call(GPT, 5, lambda: os.kill(os.getppid(), signal.SIGINT))
    sys.exit(main([*arguments, str(folder / "endless"), "--steps", "1000000"]))


JOBS = {
    "figures": figures,
    "kill 0": lambda folder: killed(folder, 0),
    "kill 1": lambda folder: killed(folder, 1),
    "command": command,
}


# The tests ---------------------------------------------------------------------------------------


def torchrun(job, folder):
    """Two processes at work on a job, on a free port of this machine, for at most two minutes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    job = subprocess.Popen(
        [*command, __file__, job, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output = job.communicate(timeout=120)
    finally:
        job.terminate()  # where it hangs: torchrun then ends its two
        job.wait()
    return subprocess.CompletedProcess(job.args, job.returncode, *output)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The results of both processes."""
    folder = tmp_path_factory.mktemp("both")
    job = torchrun("figures", folder)
    assert job.returncode == 0, job.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", CURVES)
def test_two_processes_train_as_one_does_with_twice_the_batch(both, name):
    config, dtype = CURVES[name]
    model = make().to(dtype)
    expected = train(model, TRAIN, VAL, replace(config, batch_size=2 * config.batch_size))
    for history, weight, _ in (results[name] for results in both):
        assert history["loss"] == pytest.approx(expected.loss, abs=1e-5)
        assert history["val_loss"] == pytest.approx(expected.val_loss, abs=1e-5)
        assert history["lr"] == expected.lr
        assert history["tokens"] == expected.tokens
        assert history["eval_tokens"] == expected.eval_tokens
        assert torch.allclose(weight, weights(model), atol=1e-4 if "32" in name else 1e-10)
    assert both[0][name][0]["loss"] == both[1][name][0]["loss"]
    assert torch.equal(both[0][name][1], both[1][name][1])


def test_gradients_are_exchanged_once_an_update(both):
    for results in both:
        assert {results[name][2] for name in CURVES} == {CONFIG.steps}


def test_an_evaluation_is_shared_out(both):
    [(losses, first), (others, second)] = (results["evaluations"] for results in both)
    assert losses == others
    model = make()
    expected = [llmkit.evaluate(model, VAL, stride=s, batch_size=5).loss for s in (None, 3)]
    assert losses == pytest.approx(expected, rel=1e-8)  # float32 rounds otherwise
    shown = []
    model.register_forward_pre_hook(lambda _, args: shown.append(args[0].numel()))
    for stride in (None, 3):
        llmkit.evaluate(model, VAL, stride=stride)
    assert first + second == sum(shown)
    assert min(first, second) > 0.4 * sum(shown)


def test_rank_0_alone_writes_samples_and_calls_back(both):
    [(seen, written, samples), other] = (results["callbacks"] for results in both)
    assert [step for step, *_ in seen] == [4, 8, 12]
    assert all(alone == pytest.approx(shared, rel=1e-14) for _, alone, shared in seen)
    assert (written, samples) == (True, 2)
    assert other == ([], False, 0)


def test_a_callback_stops_both_at_the_same_step(both):
    for results in both:
        assert results["stop"]["step"] == [1, 2, 3]
        assert results["stop"]["stopped"] == "enough"


def test_both_stop_early_and_keep_the_same_best(both):
    [(history, weight), (other, other_weight)] = (results["patience"] for results in both)
    assert history["stopped"] == "no better validation loss in 1 measurements"
    assert history["best_step"] < history["step"][-1] < 40
    assert {**history, "seconds": 0} == {**other, "seconds": 0}
    assert torch.equal(weight, other_weight)


def test_dropout_draws_anew_in_every_step_and_process(both):
    drawn = [seed for results in both for seed in results["dropout"]]
    assert len(set(drawn)) == len(drawn) == 2 * CONFIG.steps


def test_a_loss_that_is_no_number_in_one_process_stops_both(both):
    kept = make()
    train(kept, TRAIN, VAL, ALONE, callbacks=[stop_at(3)])
    for message, weight in (results["not a number"] for results in both):
        assert "the loss became nan at step 4" in message
        assert torch.allclose(weight, weights(kept), atol=1e-5)


def test_an_overflow_in_one_process_makes_both_skip_the_step(both):
    [(scales, weight), (_, other_weight)] = (results["float16"] for results in both)
    assert scales[3] > scales[4] == scales[-1]
    assert torch.equal(weight, other_weight)
    assert torch.isfinite(weight).all()


def test_an_interrupt_in_one_process_stops_both_at_the_same_step(both):
    for results in both:
        assert results["interrupt"]["step"][-1] == 5
        assert results["interrupt"]["stopped"] == "interrupted"


def test_resuming_continues_bit_for_bit(both):
    for history, weight, again, weight_again in (results["resume"] for results in both):
        assert again["loss"] == history["loss"]
        assert again["val_loss"] == history["val_loss"]
        assert torch.equal(weight, weight_again)


@pytest.mark.parametrize(("killed", "step"), [(1, 6), (0, 4)])
def test_a_killed_process_ends_the_run_with_a_sentence_and_a_checkpoint(tmp_path, killed, step):
    """Rank 0 saves the last whole step; where it is the one that died, its last save stands."""
    job = torchrun(f"kill {killed}", tmp_path)
    assert job.returncode != 0
    told = "another of the 2 processes is gone, after step 6: start all of them again, and resume"
    assert job.stderr.count(told) == 1
    assert "gloo" not in job.stderr
    assert "forcefully" not in job.stderr  # torchrun's word for what did not end by itself
    state = checkpoint.load_state(tmp_path / "run")
    assert state["step"] == step
    model, whole = checkpoint.load(tmp_path / "run")[0], make().double()
    history = train(model, TRAIN, VAL, ALONE, resume=state)  # the same rows in one process
    expected = train(whole, TRAIN, VAL, ALONE)
    assert history.loss == pytest.approx(expected.loss, abs=1e-5)
    assert history.val_loss == pytest.approx(expected.val_loss, abs=1e-5)
    assert torch.allclose(weights(model), weights(whole), atol=1e-10)


def test_the_command_line_prints_once_and_stops_with_torchrun(tmp_path):
    job = torchrun("command", tmp_path)
    assert job.stderr.count("error: steps must be at least 1") == 1
    assert job.stdout.count("a sample:") == 1
    assert job.stdout.count("characters, ") == 2  # the first line of each of two runs
    assert job.stderr.count("0/4 [") == 1  # the bar of the first
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert f"{report['val_loss']:.4f}" in job.stdout
    assert report["tokens_seen"] == 4 * 2 * 8 * 16
    model, tokenizer = checkpoint.load(tmp_path / "run" / "checkpoint")
    _, val_ids = llmkit.split(tokenizer.encode(TEXT))
    assert report["val_loss"] == pytest.approx(llmkit.evaluate(model, val_ids).loss, abs=1e-6)
    [step] = re.findall(r"stopped after step (\d+): the same with --resume", job.stdout)
    state = checkpoint.load_state(tmp_path / "endless" / "checkpoint")
    assert state["step"] == int(step) >= 5


@pytest.fixture
def second_of_two(monkeypatch):
    """What torchrun tells the second of two processes of a machine."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)


@pytest.mark.usefixtures("second_of_two")
def test_each_process_takes_its_own_gpu(monkeypatch):
    assert distributed.own_device() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert distributed.own_device() == "cuda:1"
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.own_device() is None


@pytest.mark.usefixtures("second_of_two")
def test_only_what_a_lost_process_causes_is_told_as_that():
    with pytest.raises(PeerLost, match="another of the 2 processes is gone"):
        raise_together("[/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    with pytest.raises(RuntimeError, match="size mismatch") as caught:
        raise_together("size mismatch")
    assert not isinstance(caught.value, PeerLost)


def raise_together(message):
    with distributed.Processes().accumulating(None, last=True):
        raise RuntimeError(message)


@pytest.mark.usefixtures("second_of_two")
def test_what_is_left_after_a_loss_may_finish_its_sentence():
    """torchrun sends SIGTERM to it, at any moment: before the loss is noticed, or after."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with interruptible() as interrupted:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupted.wait(10)
        assert signal.getsignal(signal.SIGTERM) is before
        with pytest.raises(PeerLost), interruptible():
            raise PeerLost
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_each_meeting_has_addresses_of_its_own(monkeypatch):
    """After `leave`, what an earlier group left in the store must not be found by the next."""
    shared, stores = torch.distributed.HashStore(), []
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda _: iter([(shared, 0, 1)]))
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *_, store, **__: stores.append(store)
    )
    distributed._meet()
    distributed._meet()
    first, second = stores
    first.set("address of rank 0", "here")
    assert first.check(["address of rank 0"])
    assert not second.check(["address of rank 0"])


def test_one_process_asks_nobody():
    alone = distributed.join()
    assert (alone.world, alone.rank) == (1, 0)
    assert alone.sum(1.5, True) == [1.5, 1.0]
    assert alone.broadcast("this") == "this"
    assert distributed.first_to_tell()
    distributed.leave()
    assert not torch.distributed.is_initialized()
    with pytest.raises(RuntimeError, match="gloo"), alone.accumulating(None, last=True):
        raise RuntimeError("gloo")


if __name__ == "__main__":
    JOBS[sys.argv[1]](Path(sys.argv[2]))
    distributed.leave()
