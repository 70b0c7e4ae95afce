"""Answers to notebook 07's exercises as readers would write them, and what each is told."""

import math

import torch
import torch.nn.functional as F

import llmkit


def plain_mean(losses, counts):
    return math.exp(torch.tensor(losses).mean())


def mean_of_perplexities(losses, counts):
    return torch.tensor(losses).exp().mean()


def weighed_perplexities(losses, counts):
    weights = torch.tensor(counts) / sum(counts)
    return float(weights @ torch.tensor(losses).exp())


def loss_only(losses, counts):
    return sum(a * b for a, b in zip(losses, counts, strict=True)) / sum(counts)


def in_base_2(losses, counts):
    return 2 ** loss_only(losses, counts)


def nats(loss, tokens, characters):
    return loss / (characters / tokens)


def times_ln_2(loss, tokens, characters):
    return math.log(2) * loss / (characters / tokens)


def per_token(loss, tokens, characters):
    return math.log2(math.e) * loss


def upside_down(loss, tokens, characters):
    return math.log2(math.e) * loss * (characters / tokens)


def perplexity_too(loss, tokens, characters):
    return math.exp(loss) * tokens / characters


def as_losses(train_ids, val_ids, V):
    N = len(train_ids)
    return [llmkit.NGram(train_ids[:n], 5, V).loss(val_ids) for n in (N // 4, N // 2, N)]


def backwards(train_ids, val_ids, V):
    quarter, half, everything = as_losses(train_ids, val_ids, V)
    return half - quarter, everything - half


def on_what_was_counted(train_ids, val_ids, V):
    N = len(train_ids)
    parts = [train_ids[: N // 4], train_ids[: N // 2], train_ids]
    a, b, c = (llmkit.NGram(part, order=5, vocab_size=V).loss(part) for part in parts)
    return a - b, b - c


def four(train_ids, val_ids, V):
    N = len(train_ids)
    a, b, c = (llmkit.NGram(train_ids[:n], 4, V).loss(val_ids) for n in (N // 4, N // 2, N))
    return a - b, b - c


def other_windows(new, whole_only, divide_by=None):
    """A reader's loop: `new` says which of a window's losses count."""

    def strided_loss(model, ids, stride):
        T, sums, counted = model.config.block_size, [], 0
        start = 0
        while start < len(ids) - 1:
            window = ids[start : start + T + 1]
            if whole_only and len(window) < T + 1:
                break
            losses = F.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="none")
            kept = new(losses, start, T, stride)
            sums.append(kept.sum())
            counted += len(kept)
            start += stride
        return sum(sums).item() / (divide_by or (lambda ids, counted: counted))(ids, counted)

    return strided_loss


def all_of_it(losses, start, T, stride):
    return losses


def without_the_head(losses, start, T, stride):
    return losses if start == 0 else losses[T - stride :]


def always_without_the_head(losses, start, T, stride):
    return losses[T - stride :]


def the_last_ones(losses, start, T, stride):
    return losses if start == 0 else losses[-stride:]


def mixed_losses(losses_1, losses_2, m):
    return torch.lerp(losses_1, losses_2, m).mean()


def by_probabilities(losses_1, losses_2, m):
    p = (1 - m) * torch.exp(-losses_1) + m * torch.exp(-losses_2)
    return -torch.log(p).mean()


def swapped(losses_1, losses_2, m):
    both = torch.stack([losses_1, losses_2]).double()
    share = torch.tensor([m, 1 - m], dtype=torch.float64)[:, None]
    return -torch.logsumexp(share.log() - both, 0).mean()


def perplexities(losses_1, losses_2, m):
    return (1 - m) * losses_1.mean().exp() + m * losses_2.mean().exp()


def not_averaged(losses_1, losses_2, m):
    return -torch.log((1 - m) * torch.exp(-losses_1) + m * torch.exp(-losses_2))


WRONG = {
    "07.loaded_die": [
        ((6, 6), "the mean of 1/p"),
        ((2.82, 3.46), "perplexity is e^loss, not 2^loss"),
        ((7.65, 6), "the six comes half of the time"),
        ((1.498, 1.792), "that is the loss in nats"),
        ((6, 4.47), "the other way round"),
        (4.47, "a tuple is wanted, not a float"),
    ],
    "07.combine": [
        (plain_mean, "the pieces weigh the same"),
        (mean_of_perplexities, "the mean of the perplexities"),
        (weighed_perplexities, "weighed rightly, but its perplexity was"),
        (loss_only, "that is the mean loss"),
        (in_base_2, "expected 7.3891\ngot      4.0"),
    ],
    "07.bits_per_character": [
        (nats, "that is in nats"),
        (times_ln_2, "the other way round"),
        (per_token, "that is per token"),
        (upside_down, "costs each of them less"),
        (perplexity_too, "expected 1.4427\ngot      2.7183"),
    ],
    "07.gains": [
        (as_losses, "there are 3 items, not 2"),
        (backwards, "the smaller text's loss minus the larger's"),
        (on_what_was_counted, "measured on the text that was counted"),
        (four, "that is order 4"),
    ],
    "07.strided_loss": [
        (other_windows(all_of_it, False), "in the sum and in the number"),
        (other_windows(all_of_it, False, lambda ids, n: len(ids) - 1), "count twice"),
        (other_windows(without_the_head, True), "and are missing in the number too"),
        (other_windows(without_the_head, True, lambda ids, n: len(ids) - 1), "a shorter window"),
        (other_windows(always_without_the_head, False), "its head is missing"),
        (other_windows(all_of_it, True), "both faults are there"),
        (other_windows(the_last_ones, False), "strided_loss(a model with windows of 2"),
    ],
    "07.mixture_loss": [
        (mixed_losses, "that mixes the losses"),
        (by_probabilities, "e^-1000 is 0 for a computer"),
        (swapped, "the other way round"),
        (perplexities, "got      () 2.7183"),
        (not_averaged, "a number is wanted"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "07.combine": {"strict=False": "losses and counts are equally many in every case"},
    "07.strided_loss": {"[-1]": "a batch of one row: its first is its last"},
}
