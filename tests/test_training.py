"""`llmkit.training`: the loop does what it says, resumes bit for bit, and stops with a sentence."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from llmkit import checkpoint
from llmkit.callbacks import Checkpointer, ProgressBar, Sampler
from llmkit.data import fingerprint
from llmkit.model import GPT, GPTConfig
from llmkit.ngram import NeuralBigram
from llmkit.runtime import PeerLost
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig
from llmkit.tokenizer import CharTokenizer
from llmkit.train_config import TrainConfig
from llmkit.training import train

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 60
TOKENIZER = CharTokenizer.from_text(TEXT)
IDS = TOKENIZER.encode(TEXT)
TRAIN, VAL = IDS[:2500], IDS[2500:]
SHAPE = dict(vocab_size=TOKENIZER.vocab_size, block_size=8, n_layer=1, n_head=2, n_embd=16)
CONFIG = TrainConfig(steps=12, batch_size=4, eval_every=4, learning_rate=0.01)


def make(kind=GPT, seed=0, **changes):
    torch.manual_seed(seed)
    config = {GPT: GPTConfig, FastGPT: FastGPTConfig}[kind]
    return kind(config(**SHAPE | changes))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kind", [GPT, FastGPT])
def test_training_lowers_the_loss(kind, optimizer):
    model = make(kind)
    history = train(model, TRAIN, VAL, replace(CONFIG, steps=80, optimizer=optimizer))
    assert history.val_loss[-1] < 0.7 * math.log(TOKENIZER.vocab_size)
    assert history.loss[-1] < history.loss[0]
    assert model.training


def test_the_history_counts_right():
    history = train(make(), TRAIN, VAL, replace(CONFIG, gradient_accumulation_steps=3))
    assert history.step == list(range(1, 13))
    assert history.tokens == [step * 3 * 4 * 8 for step in range(1, 13)]
    assert history.eval_step == [4, 8, 12]
    assert history.eval_tokens == [step * 3 * 4 * 8 for step in (4, 8, 12)]
    assert len(history.loss) == len(history.lr) == 12
    assert history.best_val_loss == min(history.val_loss)
    assert history.best_step == history.eval_step[history.val_loss.index(min(history.val_loss))]
    assert history.stopped is None
    assert history.seconds > 0


def test_the_last_step_is_measured_whatever_the_interval():
    history = train(make(), TRAIN, VAL, replace(CONFIG, steps=7, eval_every=5))
    assert history.eval_step == [5, 7]
    assert train(make(), TRAIN, None, CONFIG).val_loss == []


def test_it_is_the_plain_loop():
    """Against a loop written out here: same batches, PyTorch's own AdamW, clip and schedule."""
    from llmkit.data import Batches

    config = replace(CONFIG, learning_rate=0.05, grad_clip=0.5, warmup=3, min_lr_ratio=0.2)
    model, reference = make(), make()
    train(model, TRAIN, None, config)
    batches = Batches(TRAIN, 8, 4, seed=config.seed)
    decayed = [p for p in reference.parameters() if p.dim() >= 2]
    rest = [p for p in reference.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.95), fused=True)
    for step in range(12):
        x, y = next(batches)
        share = (step + 1) / 3 if step < 3 else None
        if share is None:
            share = 0.2 + 0.8 * (1 + math.cos(math.pi * (step - 3) / 8)) / 2
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * share
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(reference(x).flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        optimizer.step()
    assert torch.allclose(weights(model), weights(reference), atol=1e-6)


def test_accumulation_equals_the_larger_batch():
    """Batches of 4 accumulated twice hold the rows that one batch of 8 holds."""
    from llmkit.data import Batches

    small, large = Batches(TRAIN, 8, 4, seed=0), Batches(TRAIN, 8, 8, seed=0)
    halves = torch.cat([next(small)[0], next(small)[0]])
    assert torch.equal(halves, next(large)[0])
    accumulated, whole = make(), make()
    train(
        accumulated,
        TRAIN,
        None,
        replace(CONFIG, batch_size=4, gradient_accumulation_steps=2, steps=5),
    )
    train(whole, TRAIN, None, replace(CONFIG, batch_size=8, steps=5))
    assert torch.allclose(weights(accumulated), weights(whole), atol=1e-5)


def test_the_same_seed_gives_the_same_run_and_leaves_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    runs = []
    for seed in (0, 0, 1):
        model = make(dropout=0.2)
        torch.manual_seed(5)
        train(model, TRAIN, VAL, replace(CONFIG, seed=seed))
        assert torch.equal(torch.rand(3), expected)
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_resuming_continues_bit_for_bit(tmp_path, optimizer, stop_at):
    """Dropout, momentum, batches, schedule, best weights: all go on as if nothing had happened."""
    config = replace(CONFIG, optimizer=optimizer, keep_best=True)
    sample = Sampler(TOKENIZER, 5, "the")
    whole = make(dropout=0.2)
    expected = train(whole, TRAIN, VAL, config, callbacks=[sample])

    def stop(run):
        if run.step == stop_at:
            run.stop = "test"

    callbacks = [sample, stop, Checkpointer(tmp_path / "run", TOKENIZER)]
    history = train(make(dropout=0.2), TRAIN, VAL, config, callbacks=callbacks)
    assert history.stopped == "test"
    torch.manual_seed(99)  # another process
    model, tokenizer = checkpoint.load(tmp_path / "run")
    state = checkpoint.load_state(tmp_path / "run")
    again = [Sampler(tokenizer, 5, "the")]
    history = train(model, TRAIN, VAL, config, callbacks=again, resume=state)
    assert torch.equal(weights(model), weights(whole))
    assert (history.loss, history.val_loss) == (expected.loss, expected.val_loss)
    assert (history.lr, history.samples) == (expected.lr, expected.samples)
    assert (history.best_step, history.stopped) == (expected.best_step, None)


def test_resuming_another_run_is_refused():
    states = []
    train(make(), TRAIN, VAL, CONFIG, callbacks=[lambda run: states.append(run.state_dict())])
    with pytest.raises(
        ValueError, match=r"batch_size \* gradient_accumulation_steps .* was 4, now 5"
    ):
        train(make(), TRAIN, VAL, replace(CONFIG, batch_size=5), resume=states[-1])
    with pytest.raises(ValueError, match=r"seed was 0, now 1"):
        train(make(), TRAIN, VAL, replace(CONFIG, seed=1), resume=states[-1])
    with pytest.raises(ValueError, match="same text"):
        train(make(), TRAIN.flip(0), VAL, CONFIG, resume=states[-1])


def test_resuming_may_share_out_the_rows_of_an_update_anew():
    """Four rows at once, then twice two, with less kept of the forward pass."""
    states, whole, model = [], make(), make()

    def stop(run):
        if run.step == 6:
            run.stop = "test"
            states.append(run.state_dict())

    expected = train(whole, TRAIN, VAL, CONFIG)
    train(model, TRAIN, VAL, CONFIG, callbacks=[stop])
    config = replace(
        CONFIG, batch_size=2, gradient_accumulation_steps=2, gradient_checkpointing=True
    )
    history = train(model, TRAIN, VAL, config, resume=states[-1])
    assert history.loss == pytest.approx(expected.loss, abs=1e-5)
    assert history.tokens == expected.tokens
    assert torch.allclose(weights(model), weights(whole), atol=1e-4)


def test_a_measurement_over_which_a_process_was_lost_is_made_up_for(monkeypatch, tmp_path):
    """The callbacks see the lost run once more; resumed, it gives the curve of an unbroken one."""
    whole = make()
    expected = train(whole, TRAIN, VAL, CONFIG)
    keep = Checkpointer(tmp_path / "run", every=100)

    def lose(*_, **__):
        raise PeerLost("another is gone")

    with monkeypatch.context() as patch:
        patch.setattr("llmkit.training.evaluate", lose)
        with pytest.raises(PeerLost, match="gone, after step 4: start all of them ag"):
            train(make(), TRAIN, VAL, CONFIG, callbacks=[keep])
    model, _ = checkpoint.load(tmp_path / "run")
    history = train(model, TRAIN, VAL, CONFIG, resume=checkpoint.load_state(tmp_path / "run"))
    assert (history.loss, history.val_loss) == (expected.loss, expected.val_loss)
    assert (history.eval_step, history.stopped) == ([4, 8, 12], None)
    assert torch.equal(weights(model), weights(whole))


def test_a_process_lost_before_the_first_update_leaves_nothing_to_show(monkeypatch):
    def lose(*_):
        raise PeerLost("another is gone")

    monkeypatch.setattr("llmkit.runtime.OneProcess.sum", lose)
    seen = []
    with pytest.raises(PeerLost, match="after step 0"):
        train(make(), TRAIN, VAL, CONFIG, callbacks=[seen.append])
    assert seen == []


def test_a_finished_run_resumed_returns_at_once():
    states = []
    model = make()
    train(model, TRAIN, VAL, CONFIG, callbacks=[lambda run: states.append(run.state_dict())])
    before = weights(model)
    history = train(model, TRAIN, VAL, CONFIG, resume=states[-1])
    assert len(history.loss) == 12
    assert torch.equal(weights(model), before)


def test_keep_best_and_patience(monkeypatch):
    """A planted sequence of validation losses: best at the second, then worse and worse."""
    from llmkit.evaluation import Report

    losses = iter([3.0, 2.0, 2.5, 2.4, 2.3, 2.2])
    monkeypatch.setattr("llmkit.training.evaluate", lambda *_, **__: Report(next(losses), 1))
    kept = {}

    def remember(run):
        kept[run.step] = weights(run.model)

    model = make()
    config = replace(CONFIG, steps=20, eval_every=2, keep_best=True, patience=3)
    history = train(model, TRAIN, VAL, config, callbacks=[remember])
    assert history.best_step == 4
    assert history.best_val_loss == 2.0
    assert history.step[-1] == 10  # three measurements after the best
    assert history.stopped == "no better validation loss in 3 measurements"
    assert torch.equal(weights(model), kept[4])


def test_a_loss_that_is_no_number_stops_with_a_sentence_and_keeps_the_weights():
    model = make()

    def poison(run):
        if run.step == 3:
            run.kept = weights(run.model)
            poison.kept = run.kept
            real = run.model.loss
            run.model.loss = lambda x, y: real(x, y) * math.nan

    with pytest.raises(FloatingPointError, match=r"became nan at step 4: lower the learning rate"):
        train(model, TRAIN, VAL, CONFIG, callbacks=[poison])
    assert torch.equal(weights(model), poison.kept)


def test_an_interrupt_finishes_the_step_and_can_be_resumed(tmp_path):
    def interrupt(run):
        if run.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    keep = Checkpointer(tmp_path / "run", TOKENIZER)
    history = train(make(), TRAIN, VAL, CONFIG, callbacks=[interrupt, keep])
    assert history.stopped == "interrupted"
    assert history.step[-1] == 6
    assert signal.getsignal(signal.SIGINT) is before
    model, _ = checkpoint.load(tmp_path / "run")
    train(model, TRAIN, VAL, CONFIG, resume=checkpoint.load_state(tmp_path / "run"))
    whole = make()
    train(whole, TRAIN, VAL, CONFIG)
    assert torch.equal(weights(model), weights(whole))


def test_a_second_interrupt_ends_it_at_once():
    def interrupt_twice(run):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(make(), TRAIN, VAL, CONFIG, callbacks=[interrupt_twice])


def test_it_trains_outside_the_main_thread():
    import threading

    result = []
    thread = threading.Thread(target=lambda: result.append(train(make(), TRAIN, VAL, CONFIG)))
    thread.start()
    thread.join()
    assert len(result[0].loss) == 12


@pytest.mark.parametrize("kind", [GPT, FastGPT])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_gives_the_same_run_from_less_memory(kind, dropout):
    runs = []
    for wanted in (False, True):
        saved = []
        model = make(kind, n_layer=3, dropout=dropout)
        config = replace(CONFIG, gradient_checkpointing=wanted)
        keep = torch.autograd.graph.saved_tensors_hooks(
            lambda x, saved=saved: saved.append(x.nbytes) or x, lambda x: x
        )
        with keep:
            history = train(model, TRAIN, VAL, config)
        runs.append((history.loss, sum(saved)))
        assert model.gradient_checkpointing is False
    [(plain, much), (again, little)] = runs
    assert again == pytest.approx(plain, abs=1e-6)
    assert little < 0.6 * much


def test_gradient_checkpointing_is_left_as_it_was():
    model = make()
    model.gradient_checkpointing = True
    seen = []
    train(
        model,
        TRAIN,
        None,
        CONFIG,
        callbacks=[lambda r: seen.append(r.model.gradient_checkpointing)],
    )
    assert model.gradient_checkpointing
    assert all(seen)
    config, bigram = replace(CONFIG, gradient_checkpointing=True), NeuralBigram(13)
    with pytest.raises(ValueError, match="this model cannot do gradient_checkpointing"):
        train(bigram, TRAIN, None, config)


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_a_memory_mapped_text_gives_the_same_run(tmp_path, dtype):
    """Also where the run is resumed with the other."""
    IDS.numpy().astype(dtype).tofile(tmp_path / "ids")
    mapped = torch.from_file(
        str(tmp_path / "ids"), size=len(IDS), dtype=getattr(torch, dtype), shared=False
    )
    states, plain, other = [], make(), make()
    expected = train(plain, TRAIN, VAL, CONFIG, callbacks=[lambda r: states.append(r.state_dict())])
    history = train(other, mapped[:2500], mapped[2500:], CONFIG)
    assert (history.loss, history.val_loss) == (expected.loss, expected.val_loss)
    assert torch.equal(weights(plain), weights(other))
    train(other, mapped[:2500], mapped[2500:], CONFIG, resume=states[-1])


def test_the_fingerprint_of_a_large_text_reads_little_of_it():
    ids = torch.randint(50_000, (3_000_000,), dtype=torch.int32)
    first = fingerprint(ids)
    assert fingerprint(ids.clone()) == fingerprint(ids.long()) == first
    assert fingerprint(ids[:-1]) != first
    assert fingerprint(ids.flip(0)) != first
    for place in (0, 2_999_999):
        changed = ids.clone()
        changed[place] += 1
        assert fingerprint(changed) != first
    small = ids[:1_000_000]
    changed = small.clone()
    changed[123_456] += 1
    assert fingerprint(changed) != fingerprint(small)
    empty = torch.empty(1, dtype=torch.uint8).expand(10**12)  # a terabyte, if it were read
    assert fingerprint(empty) != fingerprint(empty[:-1])


def test_samples():
    sampler = Sampler(TOKENIZER, every=5, prompt="the ")
    history = train(make(), TRAIN, VAL, CONFIG, callbacks=[sampler])
    assert [step for step, _ in history.samples] == [5, 10, 12]
    assert all(len(text) == 200 for _, text in history.samples)  # without the prompt
    with pytest.raises(ValueError, match=r"every must be (a whole number|at least 1)"):
        Sampler(TOKENIZER, every=0)


def test_mixed_precision_stays_close_and_keeps_float32_weights():
    plain, mixed = make(FastGPT), make(FastGPT)
    train(plain, TRAIN, VAL, replace(CONFIG, dtype="float32"))
    history = train(mixed, TRAIN, VAL, replace(CONFIG, dtype="bfloat16"))
    assert {p.dtype for p in mixed.parameters()} == {torch.float32}
    difference = (weights(plain) - weights(mixed)).abs().max()
    assert 0 < difference < 0.1
    assert history.val_loss[-1] < history.val_loss[0]


def test_float16_goes_through_the_gradient_scaler():
    model = make()
    scales = []
    train(
        model,
        TRAIN,
        VAL,
        replace(CONFIG, dtype="float16"),
        callbacks=[lambda run: scales.append(run.scaler.get_scale())],
    )
    assert scales[0] > 1
    assert torch.isfinite(weights(model)).all()


def test_callbacks_see_every_step_in_order():
    seen = []
    train(
        make(),
        TRAIN,
        VAL,
        CONFIG,
        callbacks=[
            Sampler(TOKENIZER, 6, prompt="the"),
            lambda run: seen.append((run.step, run.evaluated, run.sample is None, run.done)),
        ],
    )
    assert [step for step, *_ in seen] == list(range(1, 13))
    assert [step for step, evaluated, *_ in seen if evaluated] == [4, 8, 12]
    assert [step for step, _, no_sample, _ in seen if not no_sample] == [6, 12]
    assert [step for step, *_, done in seen if done] == [12]


def test_the_progress_bar_ends_full(capsys):
    bar = ProgressBar(desc="training", ascii=True)
    train(make(), TRAIN, VAL, CONFIG, callbacks=[bar])
    assert bar.bar.n == bar.bar.total == 12
    assert bar.bar.disable  # closed
    assert "val loss" in capsys.readouterr().err


def test_the_checkpointer_saves_every_so_often_and_at_the_end(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(checkpoint, "save", lambda *_, state: steps.append(state["step"]))
    train(make(), TRAIN, VAL, CONFIG, callbacks=[Checkpointer(tmp_path / "run", every=5)])
    assert steps == [5, 10, 12]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"optimizer": "sgd"}, "optimizer must be one of 'adamw', 'muon', not 'sgd'"),
        ({"schedule": "exp"}, "schedule must be one of 'cosine', 'linear', None, not 'exp'"),
        ({"dtype": "int8"}, "dtype must be one of 'float32', 'bfloat16', 'float16', None"),
        ({"learning_rate": 0}, "learning_rate must be at least 1e-12, not 0"),
        ({"grad_clip": math.nan}, "grad_clip must be at least 1e-12, not nan"),
        ({"min_lr_ratio": 1.5}, "min_lr_ratio must be from 0 to 1, not 1.5"),
        ({"weight_decay": -1}, "weight_decay must be at least 0, not -1"),
        ({"warmup": 501}, "warmup must be from 0 to 500, not 501"),
        ({"steps": 2.5}, "steps must be a whole number, not 2.5"),
        ({"batch_size": "8"}, "batch_size must be a whole number, not '8'"),
        ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change)


def test_data_too_short_is_refused():
    with pytest.raises(ValueError, match="block_size"):
        train(make(), TRAIN[:8], None, CONFIG)


@pytest.mark.parametrize("bad", [13, -1])
def test_ids_outside_the_vocabulary_are_told(bad):
    ids = TRAIN.clone()
    ids[700] = bad
    with pytest.raises(ValueError, match=rf"id {bad} in train_ids is outside the vocabulary"):
        train(make(), ids, None, CONFIG)


def test_a_gradient_left_by_the_caller_does_not_enter_the_first_update():
    clean, used = make(), make()
    (used.loss(TRAIN[None, :8], TRAIN[None, 1:9]) * math.nan).backward()
    for model in (clean, used):
        train(model, TRAIN, None, CONFIG)
    assert torch.equal(weights(clean), weights(used))


def test_what_is_left_open_is_the_optimizers_own():
    """Also after `replace`, which must not carry one optimizer's defaults over to the other."""
    adamw = TrainConfig(steps=10)
    muon = replace(adamw, optimizer="muon")
    names = ("learning_rate", "adamw_share", "schedule", "min_lr_ratio")
    assert [adamw.chosen(name) for name in names] == [1e-3, 1.0, "cosine", 0.1]
    assert [muon.chosen(name) for name in names] == [0.02, 0.5, "linear", 0.0]
    assert replace(muon, schedule="cosine").chosen("schedule") == "cosine"
    history = train(make(), TRAIN, None, muon)
    assert history.lr[-1] == 0.0


def test_several_processes_without_a_word_of_them_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="each would train by itself: pass processes="):
        train(make(), TRAIN, None, CONFIG)


FAULTS = """
import resource, torch
from llmkit.speed.cpu import keep_memory
torch.set_num_threads(1)

def faults():  # pages fetched from the system over ten "steps", of 24 MB each
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        kept = [torch.zeros(2**20) for _ in range(6)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_memory()
faults()
print(before, faults())
"""


def test_kept_memory_is_not_fetched_again_at_every_step():
    for _ in range(20):  # now and then an import has had its memory kept already
        done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
        before, after = map(int, done.stdout.split())
        if before:
            break
    assert after < before / 10 if sys.platform == "linux" else after <= 2 * before


def test_the_last_id_is_a_target_and_checked_too():
    ids = TRAIN.clone()
    ids[-1] = 13
    with pytest.raises(ValueError, match="id 13 in train_ids"):
        train(make(), ids, None, CONFIG)
    with pytest.raises(ValueError, match="id 200 in train_ids"):  # as a token file comes
        train(make(), torch.full((99,), 200, dtype=torch.uint16), None, CONFIG)


@pytest.mark.parametrize(
    ("val_ids", "message"),
    [
        (VAL[:1], r"val_ids must be one sequence of 2 or more ids, not \(1,\)"),
        (VAL * 0 + 99, "id 99 in val_ids is outside the vocabulary"),
        (VAL.float(), "val_ids must be token ids"),
    ],
)
def test_held_out_data_are_checked_before_the_first_step(val_ids, message):
    steps = []
    with pytest.raises(ValueError, match=message):
        train(make(), TRAIN, val_ids, CONFIG, callbacks=[steps.append])
    assert steps == []


def test_lists_arrays_and_mapped_files_are_ids_too(tmp_path, recwarn):
    TRAIN.numpy().astype("uint16").tofile(tmp_path / "train.bin")
    mapped = np.memmap(tmp_path / "train.bin", dtype=np.uint16, mode="r")  # as nanoGPT does it
    runs = [train(make(), ids, VAL, CONFIG) for ids in (TRAIN, TRAIN.tolist(), mapped)]
    assert runs[0].loss == runs[1].loss == runs[2].loss
    assert not recwarn.list
    with pytest.raises(ValueError, match=r"train_ids must be .*tokenizer.encode"):
        train(make(), TEXT, VAL, CONFIG)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_stops_before_the_step(tmp_path, optimizer, bad):
    """Under a finite loss, where today's weights and the last good checkpoint are still whole."""
    model = make()
    keep = Checkpointer(tmp_path / "run", every=1)

    def poison(run):
        if run.step == 3:
            run.model.h[0].mlp.c_fc.weight.register_hook(lambda grad: grad * bad)

    config = replace(CONFIG, optimizer=optimizer)
    message = r"gradient of h\.0\.mlp\.c_fc\.weight became (nan|infinite) at step 4: lower"
    with pytest.raises(FloatingPointError, match=message):
        train(model, TRAIN, VAL, config, callbacks=[poison, keep])
    saved, _ = checkpoint.load(tmp_path / "run")
    assert checkpoint.load_state(tmp_path / "run")["step"] == 3
    assert torch.equal(weights(saved), weights(model))
    assert weights(model).isfinite().all()


def test_a_validation_loss_that_is_no_number_stops_before_it_is_saved(tmp_path, monkeypatch):
    from llmkit.evaluation import Report

    keep = Checkpointer(tmp_path / "run", every=1)
    monkeypatch.setattr("llmkit.training.evaluate", lambda *_, **__: Report(math.inf, 1))
    with pytest.raises(FloatingPointError, match="validation loss became inf after step 4"):
        train(make(), TRAIN, VAL, CONFIG, callbacks=[keep])
    assert checkpoint.load_state(tmp_path / "run")["step"] == 3


def test_no_gradient_stays_behind_however_a_run_ends():
    def leave(error):
        def raising(run):
            calls = iter([None, None, error])
            real = run.model.loss

            def loss(x, y):
                if (due := next(calls, None)) is not None:
                    raise due
                return real(x, y)

            run.model.loss = loss

        return raising

    config = replace(CONFIG, gradient_accumulation_steps=2)
    for error in (KeyboardInterrupt(), RuntimeError("out of memory"), None):
        model = make()
        try:
            train(model, TRAIN, VAL, config, callbacks=[leave(error)] if error else ())
        except (KeyboardInterrupt, RuntimeError):
            assert error
        assert all(p.grad is None for p in model.parameters())


def test_after_an_advice_was_followed_the_same_model_trains():
    model = make()

    def poison(run):
        if run.step == 2:
            real = run.model.loss
            run.model.loss = lambda x, y: real(x, y) * math.nan

    with pytest.raises(FloatingPointError):
        train(model, TRAIN, VAL, CONFIG, callbacks=[poison])
    del model.loss  # the class's own again
    history = train(model, TRAIN, VAL, replace(CONFIG, learning_rate=0.001))
    assert math.isfinite(history.val_loss[-1])


def test_the_advice_names_the_peak_also_where_the_rate_has_fallen_to_zero():
    def poison(run):
        if run.step == 11:
            real = run.model.loss
            run.model.loss = lambda x, y: real(x, y) * math.nan

    config = replace(CONFIG, min_lr_ratio=0.0, learning_rate=0.01)
    with pytest.raises(FloatingPointError, match=r"nan at step 12: .*peak is 0\.01\)"):
        train(make(), TRAIN, VAL, config, callbacks=[poison])


def test_float16_leaves_out_a_step_that_went_too_far_but_not_one_that_always_does():
    """At first the scale is too high, as ever; a gradient that is always NaN ends it."""
    model, scales = make(), []
    config = replace(CONFIG, dtype="float16", steps=60)

    def poison(run):
        scales.append(run.scaler.get_scale())
        if run.step == 3:
            run.model.h[0].mlp.c_fc.weight.register_hook(lambda grad: grad * math.nan)

    with pytest.raises(FloatingPointError, match=r"c_fc\.weight became nan at step 2\d:"):
        train(model, TRAIN, VAL, config, callbacks=[poison])
    assert scales[0] == 65536
    assert scales[-1] == 1
    assert weights(model).isfinite().all()


def test_a_model_that_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="no weights to train: all are frozen"):
        train(make().requires_grad_(False), TRAIN, None, CONFIG)


def test_a_progress_bar_serves_twice(capsys):
    bar, model = ProgressBar(desc="training", ascii=True), make()
    for _ in range(2):
        train(model, TRAIN, VAL, CONFIG, callbacks=[bar])
        assert bar.bar.n == bar.bar.total == 12
    first = bar.bar

    def fail(run):
        if run.step == 7:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train(model, TRAIN, VAL, CONFIG, callbacks=[bar, fail])
    assert bar.bar is not first
    train(model, TRAIN, VAL, CONFIG, callbacks=[bar])
    assert bar.bar.n == 12
    assert capsys.readouterr().err.count("12/12") >= 3


@pytest.mark.parametrize("every", [0, -1, 2.5, None])
def test_a_checkpointer_wants_a_number_of_steps(tmp_path, every):
    with pytest.raises(ValueError, match=r"every must be (a whole number|at least 1)"):
        Checkpointer(tmp_path, every=every)
