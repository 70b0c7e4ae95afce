"""Several languages: a parallel text, made here or put together from pairs, and what each of its
sentences costs a model. A parallel text says the same in each language, one sentence a row.

Turning sentences into ids: `tokenizer`, `bpe`. The mean loss of one long text: `evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.data import packaged
from llmkit.evaluation import device_of, eval_mode

NAMES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "ru": "Russian"}
END = "\n"  # a sentence is one line
ROWS = 64  # sentences that go through the model together
Parallel = dict[str, list[str]]  # by language; the sentences of one place say the same


def load(path: str | Path | None = None) -> Parallel:
    """The parallel text of a file: {"en": [...], "de": [...], ...}, lists of one length.

    path: a file of tab-separated values in UTF-8, its first line the names of the languages, then
    one sentence of each a line. None: the project's own, a year in a harbour town, five languages.

    Raises FileNotFoundError for no such file; ValueError, with the number of the line, for one that
    has not a sentence for each language.
    """
    path = packaged("languages.tsv") if path is None else path
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {str(path)!r}; give the path of a parallel text")
    lines = Path(path).read_text("utf-8-sig").rstrip("\n").split("\n")
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines]
    names = rows[0]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"{path}, line 1: give two languages or more, distinct, between tabs")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names) or not all(row):
            raise ValueError(
                f"{path}, line {number}: one sentence for each of {', '.join(names)}, please, "
                f"between tabs; here are {sum(map(bool, row))}"
            )
    if len(rows) < 2:
        raise ValueError(f"{path} names languages and has no sentences; add a line of them")
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}


def aligned(
    pairs: Mapping[str, Iterable[tuple[str, str]]], source: str = "en", longest: int | None = None
) -> Parallel:
    """One parallel text of all languages, from texts that are parallel in two.

    pairs: by language, its (source sentence, translation); source: the language that all share.
    Kept is what has a translation into every language (the first one given), is of at most
    `longest` characters in each, and is one line. No sentence of any language comes twice, so that
    a part that is held out stays unseen. ValueError where nothing is left.
    """
    if not pairs or source in pairs:
        raise ValueError(f"give pairs for one language or more, and none for {source!r} itself")
    known: dict[str, dict[str, str]] = {}
    for language, sentences in pairs.items():
        known[language] = {}
        for original, translation in sentences:
            known[language].setdefault(original.strip(), translation.strip())
    parallel: Parallel = {language: [] for language in (source, *known)}
    seen: set[tuple[str, str]] = set()
    for original in next(iter(known.values())):
        row = {source: original} | {name: table.get(original, "") for name, table in known.items()}
        fits = all(cell and len(cell.splitlines()) == 1 for cell in row.values())
        if fits and longest is not None:
            fits = max(map(len, row.values())) <= longest
        if fits and seen.isdisjoint(row.items()):
            seen.update(row.items())
            for name, cell in row.items():
                parallel[name].append(cell)
    if not parallel[source]:
        raise ValueError(f"no sentence is there in all of {', '.join(parallel)}; give more pairs")
    return parallel


@torch.no_grad()
def sentence_losses(
    model: nn.Module, tokenizer: Any, sentences: Sequence[str], prefix: str = END
) -> Tensor:
    """What each token of each sentence costs, given those before it: nats, (N, L) float64, on the
    CPU, L the tokens of the longest and its line end; 0 behind the end of a shorter one.

    prefix: what the model reads before the sentence and what is not counted, such as a language's
    tag. The model (``config.block_size``, forward(ids (B, T)) -> logits (B, T, V)) is run in eval
    mode and left in its own. ValueError for an empty prefix, no sentences, a sentence that does not
    fit into block_size, or one that the tokenizer refuses, with its place.
    """
    if not prefix or not sentences:
        raise ValueError("give one sentence or more, and a prefix: a first token needs one before")
    before, rows = tokenizer.encode(prefix), []
    for place, sentence in enumerate(sentences):
        try:
            rows.append(tokenizer.encode(sentence + END))
        except ValueError as error:
            raise ValueError(f"sentence {place}: {error}") from None
        if (size := len(before) + len(rows[-1]) - 1) > model.config.block_size:
            raise ValueError(
                f"sentence {place} takes {size} tokens with its prefix, and block_size is "
                f"{model.config.block_size}; shorten it or enlarge the context"
            )
    longest, device, found = max(map(len, rows)), device_of(model), []
    with eval_mode(model):
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            y = torch.full((len(some), longest), -100)  # a target that costs nothing
            for row, ids in zip(y, some, strict=True):
                row[: len(ids)] = ids
            width = max(map(len, some))  # of these
            x = torch.cat([before.expand(len(some), -1), y[:, : width - 1].clamp(min=0)], dim=1)
            logits = model(x.to(device))[:, len(before) - 1 :].double().cpu()  # (B, width, V)
            losses = F.cross_entropy(logits.transpose(1, 2), y[:, :width], reduction="none")
            found.append(F.pad(losses, (0, longest - width)))  # (B, L)
    return torch.cat(found)
