"""languages: the parallel text, others put together from pairs, and the cost of sentences."""

import math
import string
import unicodedata
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmkit import GPT, BPETokenizer, CharTokenizer, GPTConfig, NeuralBigram, NGram, load_text
from llmkit.projects import languages
from llmkit.projects.languages import aligned, load_parallel, sentence_losses

# --- the data

MARKS = " ,.:?!'-0123456789"
LETTERS = {
    "en": string.ascii_letters + "é" + "“”‘’;",
    "de": string.ascii_letters + "ÄÖÜäöüßé" + "„“‚‘",
    "fr": string.ascii_letters + "ÀÂÇÉÈÊÎÔàâçéèêëîïôùûüœ" + "«»“”–;",
    "es": string.ascii_letters + "ÁÉÍÓÚÑáéíóúñü" + "«»“”¿¡;",
    "ru": "".join(map(chr, range(0x410, 0x450))) + "Ёё" + "«»„“—",
}
FREQUENT = {  # words that no text of this length lacks, and no other of the five has as often
    "en": "the and of was with",
    "de": "der und das nicht mit",
    "fr": "le et les une dans",
    "es": "el y los una con",
    "ru": "и в не на с",
}


@pytest.fixture(scope="module")
def parallel():
    return load_parallel()


def test_five_languages_row_for_row(parallel):
    assert list(parallel) == list(languages.NAMES) == ["en", "de", "fr", "es", "ru"]
    [rows] = {len(sentences) for sentences in parallel.values()}
    assert 400 <= rows <= 500
    for sentences in parallel.values():
        assert 22_000 < sum(map(len, sentences)) < 35_000
        assert len(set(sentences)) == rows  # none comes twice


def test_characters_are_the_language_s_own_and_normalised(parallel):
    for name, sentences in parallel.items():
        for sentence in sentences:
            assert not set(sentence) - set(MARKS + LETTERS[name]), sentence
            assert unicodedata.is_normalized("NFC", sentence)
            assert sentence == " ".join(sentence.split()), sentence  # no space too many
            assert 25 <= len(sentence) <= 112, sentence
            assert sentence[-1] in ".?!»“”", sentence
    scripts = [{unicodedata.name(c).split()[0] for c in set("".join(s)) if c.isalpha()}
               for s in parallel.values()]  # fmt: skip
    assert scripts == [{"LATIN"}] * 4 + [{"CYRILLIC"}]


def test_quotation_marks_and_spanish_marks_come_in_pairs(parallel):
    pairs = {"en": "“”", "de": "„“", "fr": "«»", "es": "«»", "ru": "«»"}
    for name, (opening, closing) in pairs.items():
        for sentence in parallel[name]:
            assert sentence.count(opening) == sentence.count(closing), sentence
    for sentence in parallel["es"]:
        assert sentence.count("¿") == sentence.count("?"), sentence
        assert sentence.count("¡") == sentence.count("!"), sentence
    for sentence in parallel["fr"]:  # a space before the tall marks and within the quotation marks
        for place, mark in enumerate(sentence):
            assert mark not in "?!:»" or sentence[place - 1] == " ", sentence
            assert mark != "«" or sentence[place + 1] == " ", sentence


def test_each_row_says_the_same(parallel):
    """As far as a program can see it: digits, questions, names, and lengths that go together."""
    names = {"Martin": "Мартин", "Otto": "Отто", "Emil": "Эмил", "Rosa": "Роз", "Ruben": "Рубен"}
    for row in zip(*parallel.values(), strict=True):
        by_digit = [Counter(c for c in sentence if c.isdigit()) for sentence in row]
        assert all(digits == by_digit[0] for digits in by_digit), row
        assert len({"?" in sentence for sentence in row}) == 1, row
        for latin, cyrillic in names.items():
            there = [latin in sentence for sentence in row[:4]] + [cyrillic in row[4]]
            assert len(set(there)) == 1, (latin, row)
        assert max(map(len, row)) < 1.8 * min(map(len, row)), row
    total = [sum(map(len, sentences)) for sentences in parallel.values()]
    assert max(total) < 1.25 * min(total)


def test_each_column_is_in_its_language(parallel):
    words = {
        name: Counter(" ".join(sentences).lower().split()) for name, sentences in parallel.items()
    }
    for name, frequent in FREQUENT.items():
        for word in frequent.split():
            counts = {other: words[other][word] for other in parallel}
            assert max(counts, key=counts.get) == name, (word, counts)
            assert counts[name] >= 15, word


def test_it_was_not_taken_from_the_play_nor_made_from_a_pattern(parallel):
    play = " ".join(load_text("embedded").split()).lower()
    for sentence in parallel["en"]:
        text = sentence.lower().replace("“", "").replace("”", "")
        assert not [text[i : i + 25] for i in range(len(text) - 24) if text[i : i + 25] in play]
    for sentences in parallel.values():
        openings = Counter(" ".join(sentence.split()[:4]) for sentence in sentences)
        assert openings.most_common(1)[0][1] <= 4, openings.most_common(1)


# --- reading


def write(path, text):
    path.write_bytes(text.encode())
    return path


def test_any_tab_separated_file_will_do(tmp_path):
    file = write(tmp_path / "a.tsv", "\ufeffpl\tuk\r\nDobry dzień.\tДобрий день.\r\nTak.\t Так. \n")
    assert load_parallel(file) == {"pl": ["Dobry dzień.", "Tak."], "uk": ["Добрий день.", "Так."]}
    assert load_parallel(str(file)) == load_parallel(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("en\tde\nYes.\tJa.\nNo.\n", "line 3: give one sentence for each of en, de, .*here are 1"),
        ("en\tde\nYes.\t \n", "line 2: .*here are 1"),
        ("en\tde\nYes.\tJa.\tOui.\n", "line 2: .*here are 3"),
        ("en\tde\nYes.\tJa.\n\nNo.\tNein.\n", "line 3: .*here are 0"),
        ("en\tde\n", "has no sentences"),
        ("en\n", "line 1: give two languages"),
        ("en\ten\n", "line 1: give two languages"),
        ("", "line 1: give two languages"),
    ],
)
def test_what_is_no_parallel_text_is_told(tmp_path, text, told):
    with pytest.raises(ValueError, match=told):
        load_parallel(write(tmp_path / "a.tsv", text))


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.tsv.*give the path"):
        load_parallel(tmp_path / "none.tsv")


# --- putting pairs together


@pytest.mark.parametrize(
    ("encoding", "there", "told"),
    [
        ("cp1252", "der schöne Hafen – „hier“", "probably cp1252; make a copy"),
        ("latin-1", "der schöne Hafen", "probably latin-1; make a copy"),
        ("utf-16", "der schöne Hafen", "probably utf-16; make a copy"),
        ("cp1251", "красивая гавань", "nor a Western encoding; find out which it is"),
    ],
)
def test_a_file_in_another_encoding_is_told(encoding, there, told, tmp_path):
    (tmp_path / "a.tsv").write_text(f"en\tother\nThe harbour\t{there}", encoding)
    with pytest.raises(ValueError, match=rf"a\.tsv is not UTF-8 .*{told}"):
        load_parallel(tmp_path / "a.tsv")


def test_what_all_languages_have_is_kept_once():
    german = [("Yes.", "Ja."), ("No.", "Nein."), ("Yes.", "Jawohl."), ("Come.", "Komm."), ("x", "")]
    french = [("Come.", "Viens."), ("Yes. ", " Oui."), ("Never.", "Jamais."), ("x", "y")]
    text = {"en": ["Yes.", "Come."], "de": ["Ja.", "Komm."], "fr": ["Oui.", "Viens."]}
    assert aligned({"de": german, "fr": iter(french)}) == text
    assert list(aligned({"fr": french, "de": german})) == ["en", "fr", "de"]
    assert aligned({"de": german}, source="nl")["nl"] == ["Yes.", "No.", "Come."]


def test_a_sentence_of_any_language_that_was_there_before_is_dropped():
    pairs = {"de": [("You go.", "Du gehst."), ("Thou goest.", "Du gehst."), ("Go.", "Geh.")]}
    assert aligned(pairs) == {"en": ["You go.", "Go."], "de": ["Du gehst.", "Geh."]}


def test_long_sentences_and_those_of_several_lines_are_dropped():
    pairs = {"de": [("Yes.", "Ja, gewiss."), ("No.", "Nein."), ("A", "B\nC"), ("D", "E\u2028F")]}
    assert aligned(pairs, longest=5) == {"en": ["No."], "de": ["Nein."]}
    assert aligned(pairs, longest=11)["en"] == ["Yes.", "No."]


def test_pairs_that_leave_nothing_are_told():
    with pytest.raises(ValueError, match="in all of en, de, fr; give more pairs"):
        aligned({"de": [("Yes.", "Ja.")], "fr": [("No.", "Non.")]})
    for pairs in ({}, {"en": [("Yes.", "Yes.")]}):
        with pytest.raises(ValueError, match="none for 'en' itself"):
            aligned(pairs)


# --- what a sentence costs

SENTENCES = ["The boat is old.", "Да, но и море старое.", "Oui."]
TOKENIZER = CharTokenizer.from_text("".join(SENTENCES) + "\ntag: ")


def small(vocab_size=TOKENIZER.vocab_size, block_size=40, position="rotary"):
    torch.manual_seed(0)
    shape = GPTConfig(vocab_size, block_size, 1, 2, 16, dropout=0.5, position=position)
    model = GPT(shape)
    for parameter in model.parameters():  # nothing at zero, which would hide a mistake
        nn.init.normal_(parameter, std=0.5)
    return model


def one_by_one(model, tokenizer, sentence, prefix):
    """The reference: the whole text, then the losses of its last tokens."""
    before, ids = (tokenizer.encode(text) for text in (prefix, prefix + sentence + "\n"))
    model.eval()
    loss = F.cross_entropy(model(ids[None, :-1])[0].double(), ids[1:], reduction="none")
    return loss[len(before) - 1 :].detach()


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("prefix", ["\n", "\ntag: "])
def test_losses_are_those_of_each_sentence_alone(batch_size, prefix, position):
    model = small(position=position).train()
    losses = sentence_losses(model, TOKENIZER, SENTENCES, prefix, batch_size)
    assert losses.shape == (3, len(SENTENCES[1]) + 1)
    assert losses.dtype == torch.float64
    assert model.training
    for row, sentence in zip(losses, SENTENCES, strict=True):
        alone = one_by_one(model, TOKENIZER, sentence, prefix)
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-5, atol=1e-5)
        assert (row[len(alone) :] == 0).all()


def test_a_counter_and_another_tokenizer_will_do():
    text = "\n" + "\n".join(SENTENCES * 3) + "\n"
    counter = NGram(TOKENIZER.encode(text), 3, TOKENIZER.vocab_size)
    losses = sentence_losses(counter, TOKENIZER, SENTENCES)
    whole = TOKENIZER.encode("\n" + SENTENCES[0] + "\n")
    assert losses[0].sum().item() == pytest.approx(counter.loss(whole) * (len(whole) - 1))
    bpe = BPETokenizer.train(text, 280)
    losses = sentence_losses(small(280), bpe, SENTENCES)
    assert (losses > 0).sum(dim=1).tolist() == [len(bpe.encode(s + "\n")) for s in SENTENCES]


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary():
    uniform = NeuralBigram(TOKENIZER.vocab_size)  # starts with all scores 0
    losses = sentence_losses(uniform, TOKENIZER, ["Oui."])
    assert losses.tolist() == [pytest.approx([math.log(TOKENIZER.vocab_size)] * 5, abs=1e-6)]


def test_what_cannot_be_measured_is_told():
    model = small(block_size=20)
    assert sentence_losses(model, TOKENIZER, ["a" * 19], "\n").shape == (1, 20)  # just fits
    with pytest.raises(ValueError, match=r"sentence 1 takes 21 tokens .*block_size is 20"):
        sentence_losses(model, TOKENIZER, ["Oui.", "a" * 20], "\n")
    with pytest.raises(ValueError, match=r"sentence 2: character 'ż' .* not in the vocabulary"):
        sentence_losses(model, TOKENIZER, ["Oui.", "Oui.", "ż"], "\n")
    for sentences, prefix in (([], "\n"), (["Oui."], "")):
        with pytest.raises(ValueError, match="one sentence or more, and a prefix"):
            sentence_losses(model, TOKENIZER, sentences, prefix)


def test_any_model_with_a_block_size_will_do():
    class Rows(nn.Module):
        config = SimpleNamespace(block_size=30)

        def forward(self, ids):
            return F.one_hot(ids, TOKENIZER.vocab_size).float()

    assert sentence_losses(Rows(), TOKENIZER, ["Oui."], "tag: ").shape == (1, 5)
