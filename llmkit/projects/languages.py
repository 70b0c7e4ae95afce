"""Several languages: a parallel text, made here or put together from pairs, and what each of its
sentences costs a model. A parallel text says the same in each language, one sentence a row.

Turning sentences into ids: `tokenizer`, `bpe`. The mean loss of one long text: `evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llmkit import files
from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.data import packaged
from llmkit.evaluation import IGNORE_INDEX, eval_mode, token_losses

NAMES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "ru": "Russian"}
Parallel = dict[str, list[str]]  # by language; the sentences of one place say the same


def load_parallel(path: str | Path | None = None) -> Parallel:
    """The parallel text of a file: {"en": [...], "de": [...], ...}, lists of one length.

    path: a file of tab-separated values in UTF-8, its first line the names of the languages, then
    one sentence of each a line. None: the project's own, a year in a harbour town, five languages.

    Raises FileNotFoundError for no such file; ValueError, with the number of the line, for one that
    has not a sentence for each language.
    """
    path = packaged("languages.tsv") if path is None else path
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {str(path)!r}; give the path of a parallel text")
    lines = files.read_text(path).rstrip("\n").split("\n")
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines]
    names = rows[0]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"{path}, line 1: give two languages or more, distinct, between tabs")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names) or not all(row):
            raise ValueError(
                f"{path}, line {number}: give one sentence for each of {', '.join(names)}, between "
                f"tabs; here are {sum(map(bool, row))}"
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
        fits = all(
            len(cell.splitlines()) == 1 and (longest is None or len(cell) <= longest)
            for cell in row.values()
        )
        if fits and seen.isdisjoint(row.items()):
            seen.update(row.items())
            for name, cell in row.items():
                parallel[name].append(cell)
    if not parallel[source]:
        raise ValueError(f"no sentence is there in all of {', '.join(parallel)}; give more pairs")
    return parallel


@torch.no_grad()
def sentence_losses(
    model: LanguageModel,
    tokenizer: Tokenizer,
    sentences: Sequence[str],
    prefix: str = "\n",
    batch_size: int = 64,
) -> Tensor:
    """What each token of each sentence costs, given those before it: nats, (N, L) float64, on the
    CPU, L the tokens of the longest and its line end; 0 after the end of a shorter one.

    prefix: what the model reads before the sentence and what is not counted, such as a language's
    tag. The model is run in eval mode and left in its own. ValueError for an empty prefix, no
    sentences, a sentence that does not fit into block_size, or one that the tokenizer refuses, with
    its place.
    """
    if not prefix or not sentences:
        raise ValueError("give one sentence or more, and a prefix: a first token needs one before")
    before, rows = tokenizer.encode(prefix), []
    for place, sentence in enumerate(sentences):
        try:
            rows.append(tokenizer.encode(sentence + "\n"))  # a sentence is one line
        except ValueError as error:
            raise ValueError(f"sentence {place}: {error}") from None
        size = len(before) + len(rows[-1]) - 1  # the last token is only predicted
        if size > model.config.block_size:
            raise ValueError(
                f"sentence {place} takes {size} tokens with its prefix, and block_size is "
                f"{model.config.block_size}; shorten it or enlarge the context"
            )
    targets = pad_sequence(rows, batch_first=True, padding_value=IGNORE_INDEX)  # (N, L)
    found = []
    with eval_mode(model):
        for y in targets.split(batch_size):
            given = before.expand(len(y), -1)  # (B, P)
            x = torch.cat([given, y[:, :-1].clamp(min=0)], dim=1)  # (B, P + L - 1)
            y = torch.cat([torch.full_like(given[:, 1:], IGNORE_INDEX), y], dim=1)
            found.append(token_losses(model, x, y)[:, len(before) - 1 :].cpu())  # (B, L)
    return torch.cat(found)
