"""What else may happen while a model trains: a progress bar, checkpoints, samples of its text.

A callback is called with the `Trainer` after every step: any function will do, or one of these. A
curve that grows while one watches is in `widgets`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from llmkit import checkpoint
from llmkit.arguments import Tokenizer, check_number, check_type
from llmkit.files import as_path
from llmkit.generation import generate
from llmkit.training import Trainer


class ProgressBar:
    """A bar with the losses so far: a widget in a notebook, a line in a terminal.

    options: of ``tqdm``, such as ``desc``.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.bar: Any = None

    def __call__(self, trainer: Trainer) -> None:
        first = trainer.step - 1  # a run that is resumed does not begin at 0
        # A bar may be that of an earlier run, which has ended or was broken off.
        if self.bar is None or self.bar.disable or first < self.bar.n:
            self.bar = tqdm(total=trainer.config.steps, initial=first, **self.options)
        self.bar.update(trainer.step - self.bar.n)
        if trainer.evaluated:
            loss = trainer.history.val_loss[-1]
            self.bar.set_postfix_str(f"val loss {loss:.3f}", refresh=False)
        if trainer.done:
            self.bar.close()


class Checkpointer:
    """Saves model, tokenizer and run to a folder, every so many steps and at the end.

    The folder always holds what the model holds, so a run can go on from it; with ``keep_best``, a
    run that has come to its end leaves the weights that measured best.
    """

    def __init__(
        self, folder: str | Path, tokenizer: Tokenizer | None = None, every: int = 500
    ) -> None:
        check_number("every", every, int, least=1)
        check_type("tokenizer", tokenizer, Tokenizer, optional=True)
        self.folder, self.tokenizer, self.every = as_path(folder, "folder"), tokenizer, every

    def __call__(self, trainer: Trainer) -> None:
        # At the end too, whatever the step: what was learned since the last save would be lost.
        if trainer.done or trainer.step % self.every == 0:
            state = trainer.state_dict()
            checkpoint.save(self.folder, trainer.model, self.tokenizer, state=state)


class Sampler:
    """Lets the model write, every so many steps and at the end, into ``history.samples``.

    prompt: what it goes on from. tokens: how many it adds. The text is drawn with the run's seed,
    so that one sample differs from the one before by what was learned, not by luck.
    """

    def __init__(
        self, tokenizer: Tokenizer, every: int, prompt: str = "\n", tokens: int = 200
    ) -> None:
        check_type("tokenizer", tokenizer, Tokenizer)
        check_type("prompt", prompt, str)
        check_number("every", every, int, least=1)
        check_number("tokens", tokens, int, least=0)
        self.tokenizer, self.every, self.tokens = tokenizer, every, tokens
        self.prompt = tokenizer.encode(prompt)  # (T,)

    def __call__(self, trainer: Trainer) -> None:
        if trainer.is_due(self.every):
            seed = trainer.config.seed
            ids = generate(trainer.model, self.prompt, self.tokens, seed=seed)
            trainer.sample = self.tokenizer.decode(ids[len(self.prompt) :])
            trainer.history.samples.append((trainer.step, trainer.sample))
