"""The files in which byte-level BPE vocabularies travel: GPT-2's pair of files, and tokenizer.json.

All of them spell bytes as characters that can be printed, one for each byte: `ALPHABET`. Here files
become merges, tokens and special tokens, and the other way round; what they do: `tokenizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmkit import files
from llmkit.arguments import shown

# GPT-2's byte alphabet (https://github.com/openai/gpt-2/blob/master/src/encoder.py): a byte that is
# a visible character in Latin-1 is spelled by it, the others by U+0100, U+0101 and so on in turn;
# so a space is "Ġ", a line end "Ċ". The ids of the 256 bytes follow the order of these characters.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
ALPHABET = dict(zip(_VISIBLE + _HIDDEN, map(chr, [*_VISIBLE, *range(256, 324)]), strict=True))
BYTES = [bytes([byte]) for byte in ALPHABET]  # in the order of their ids
_TO_BYTE = {character: byte for byte, character in ALPHABET.items()}

ONE_DIGIT = {"type": "Digits", "individual_digits": True}

Merges = list[tuple[bytes, bytes]]
GPT2_FILES = [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")]
END_OF_TEXT = "<|endoftext|>"
UNUSUAL = (  # choices of a tokenizer.json which give other ids than GPT-2's way
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
    "dropout",
)


def spell(token: bytes) -> str:
    """Bytes in GPT-2's alphabet: b" the" as "Ġthe"."""
    return "".join([ALPHABET[byte] for byte in token])


def unspell(symbols: str) -> bytes:
    """The bytes that `spell` spelled; ValueError for a character outside the alphabet."""
    try:
        return bytes([_TO_BYTE[character] for character in symbols])
    except KeyError as error:
        raise ValueError(
            f"{symbols[:40]!r} has {shown(error.args[0])}, which is not in GPT-2's byte alphabet: "
            "this is no byte-level BPE, or was read in another encoding than UTF-8 and saved"
        ) from None


def unspell_merges(lines: Sequence[str | Sequence[str]], name: str, first: int = 1) -> Merges:
    """Merges from lines such as "Ġ t", or from pairs.

    name, first: what an error calls the file, and the number of its first line.
    """
    merges = []
    for n, line in enumerate(lines, first):
        parts = line.split(" ") if isinstance(line, str) else line
        if len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
            raise ValueError(
                f"line {n} of {name} is not two tokens with a space between them but "
                f"{shown(line)}: the file is cut short or of another kind; copy it again"
            )
        merges.append((unspell(parts[0]), unspell(parts[1])))
    return merges


def read_gpt2(folder: str | Path) -> tuple[Merges, list[str], list[bytes]]:
    """Merges, special tokens, and tokens in id order, of a folder with one of `GPT2_FILES`.

    Raises FileNotFoundError, or ValueError for files cut short or that do not belong together.
    """
    folder = Path(folder).expanduser()
    for names in GPT2_FILES:
        if all((folder / name).is_file() for name in names):
            break
    else:
        pairs = ", or ".join(" and ".join(names) for names in GPT2_FILES)
        raise FileNotFoundError(f"there is no GPT-2 vocabulary in {folder}: it takes {pairs}")
    ids = files.read_json(folder / names[0])
    lines = files.read_text(folder / names[1]).rstrip("\n").split("\n")
    skip = 1 if lines and lines[0].startswith("#version") else 0
    merges = unspell_merges(lines[skip:], names[1], first=1 + skip)
    special = [END_OF_TEXT] if END_OF_TEXT in ids else []
    return merges, special, in_order(ids, special, names[0])


def in_order(ids: dict[str, int], special: Sequence[str], name: str) -> list[bytes]:
    """The tokens in the order of their ids, from a vocabulary of spelled tokens."""
    if sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str):
        raise ValueError(f"the ids in {name} are not 0 to {len(ids) - 1}, each once; copy it again")
    tokens = sorted(ids, key=ids.__getitem__)
    return [token.encode() if token in special else unspell(token) for token in tokens]


def huggingface_fields(
    merges: Merges, tokens: Sequence[bytes], special_tokens: dict[str, int], digits: bool = False
) -> dict[str, Any]:
    """What a tokenizer.json of Hugging Face's `tokenizers` holds for the same ids."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    before: dict[str, Any] = {**byte_level, "trim_offsets": True}
    if digits:
        before = {"type": "Sequence", "pretokenizers": [ONE_DIGIT, before]}
    texts = {i: text for text, i in sorted(special_tokens.items(), key=lambda item: item[1])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": text, "special": True, **flags} for i, text in texts.items()
        ],
        "normalizer": None,
        "pre_tokenizer": before,
        "post_processor": {**byte_level, "trim_offsets": False},
        "decoder": {**byte_level, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if set(tokens) >= set(BYTES) else END_OF_TEXT,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {texts.get(i) or spell(token): i for i, token in enumerate(tokens)},
            "merges": [[spell(left), spell(right)] for left, right in merges],
        },
    }


def read_huggingface(path: str | Path) -> tuple[Merges, list[str], list[bytes], bool]:
    """Merges, special tokens, tokens in id order, and whether digits stand alone, of a
    tokenizer.json.

    Raises FileNotFoundError, or ValueError where it is not GPT-2's kind of BPE, or not whole.
    """
    path = Path(path).expanduser()
    fields = files.read_json(path)
    try:
        model, before, added = fields["model"], fields["pre_tokenizer"], fields["added_tokens"]
        flags = ("lstrip", "rstrip", "single_word")
        steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
        digits = steps[0] == ONE_DIGIT
        before = steps[-1] if len(steps) == 1 + digits else {"type": "several steps"}
        expected = {
            "a BPE model": model.get("type", "BPE") == "BPE",
            "GPT-2's regular expression": (
                before["type"] == "ByteLevel"
                and not before["add_prefix_space"]
                and before.get("use_regex", True)
            ),
            "no normalizer": fields.get("normalizer") is None,
            "plain merges": not any(model.get(name) for name in UNUSUAL),
            "plain special tokens": not any(token.get(flag) for token in added for flag in flags),
        }
        for what, there in expected.items():
            if not there:
                raise ValueError(f"{path} is not GPT-2's kind of tokenizer: it lacks {what}")
        special = [token["content"] for token in added]
        ids = model["vocab"] | {token["content"]: token["id"] for token in added}
        merges = unspell_merges(model["merges"], path.name)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a tokenizer.json as `tokenizers` writes them") from None
    return merges, special, in_order(ids, special, path.name), digits
