"""Answers to notebook 06's exercises as readers would write them, and what each is told."""

import torch
import torch.nn.functional as F

import llmkit


def stops_late(val_losses, patience):
    best = 0
    for i, loss in enumerate(val_losses):
        if loss < val_losses[best]:
            best = i
        if i - best > patience:
            break
    return i + 1, best + 1


def counts_from_zero(val_losses, patience):
    best = 0
    for i, loss in enumerate(val_losses):
        if loss < val_losses[best]:
            best = i
        if i - best >= patience:
            break
    return i, best


def counts_rises(val_losses, patience):
    waited, best = 0, 0
    for i in range(1, len(val_losses)):
        waited = 0 if val_losses[i] < val_losses[i - 1] else waited + 1
        if val_losses[i] < val_losses[best]:
            best = i
        if waited == patience:
            return i + 1, best + 1
    return len(val_losses), best + 1


def never_forgets(val_losses, patience):
    waited, lowest, best = 0, float("inf"), 0
    for i, loss in enumerate(val_losses, 1):
        if loss < lowest:
            lowest, best = loss, i
        else:
            waited += 1
        if waited == patience:
            return i, best
    return len(val_losses), best


def looks_ahead(val_losses, patience):
    stopped, lowest, waited = len(val_losses), float("inf"), 0
    for i, loss in enumerate(val_losses, 1):
        waited = 0 if loss < lowest else waited + 1
        lowest = min(lowest, loss)
        if waited == patience:
            stopped = i
            break
    return stopped, val_losses.index(min(val_losses)) + 1


def triangle(step, steps, warmup):
    if step < warmup:
        return (step + 1) / warmup
    return (steps - 1 - step) / (steps - 1 - warmup)


def idle_first_step(step, steps, warmup):
    if step < warmup:
        return step / warmup
    return min(1.0, (steps - 1 - step) / (steps // 5))


def ends_above(step, steps, warmup):
    if step < warmup:
        return (step + 1) / warmup
    return min(1.0, (steps - step) / (steps // 5))


def only_up(step, steps, warmup):
    return (step + 1) / warmup if step < warmup else 1.0


def adam(w, gradient, m, v, step, lr, decay):
    m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient**2
    m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.95**step)
    return w - lr * m_hat / (v_hat.sqrt() + 1e-8), m, v


def decay_in_gradient(w, gradient, m, v, step, lr, decay):
    return adam(w, gradient + decay * w, m, v, step, lr, decay)


def uncorrected(w, gradient, m, v, step, lr, decay):
    m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient**2
    return w * (1 - lr * decay) - lr * m / (v.sqrt() + 1e-8), m, v


def under_the_root(w, gradient, m, v, step, lr, decay):
    m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient**2
    m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.95**step)
    return w * (1 - lr * decay) - lr * m_hat / (v_hat + 1e-8).sqrt(), m, v


def unscaled(w, gradient, m, v, step, lr, decay):
    new, m, v = adam(w, gradient, m, v, step, lr, decay)
    return new - decay * w, m, v


def decay_last(w, gradient, m, v, step, lr, decay):
    new, m, v = adam(w, gradient, m, v, step, lr, decay)
    return new * (1 - lr * decay), m, v


def weights_only(w, gradient, m, v, step, lr, decay):
    return adam(w, gradient, m, v, step, lr, decay)[0] - lr * decay * w


def loop(zero=True, shifted=True, stepwise=True, off=True, apart=True):
    """A reader's loop with some of the faults mended."""

    def repaired_loop(model, ids, steps, peak):
        train_ids, val_ids = llmkit.split(ids)
        batches = llmkit.Batches(train_ids if apart else ids, block_size=8, batch_size=4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
        for _epoch in range(2):
            for _ in range(steps // 2):
                x, y = next(batches)
                loss = F.cross_entropy(model(x).flatten(0, 1), (y if shifted else x).flatten())
                if zero:
                    model.zero_grad()
                loss.backward()
                optimizer.step()
                if stepwise:
                    schedule.step()
            if not stepwise:
                schedule.step()
        if off:
            model.eval()
        return F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item()

    return repaired_loop


def normalised(G):
    return G / G.pow(2).sum().sqrt()


def signs(G):
    return torch.where(G == 0, G, G / G.abs())


def unit_rows(G):
    return G / G.norm(dim=1, keepdim=True)


def transposed(G):
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return Vh.T @ U.T


def v_for_vh(G):
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return U @ Vh.T


def five_times(G):
    X = G / G.norm()
    for _ in range(5):
        X = 1.5 * X - 0.5 * X @ X.T @ X
    return X


WRONG = {
    "06.tokens_seen": [
        ((1_536_000, 15.36), "the windows of all its four passes"),
        ((384_000, 3.84), "accumulation adds passes"),
        ((96_000, 0.96), "each of them has 64 tokens"),
        ((6_144_000, 0.0163), "item 1: another number is wanted"),
    ],
    "06.runaway": [
        ("a", "AdamW divides its length away"),
        ("b", "no nan enters the weights"),
        ("d", "the first step was taken"),
        (3, "another result is wanted"),
    ],
    "06.early_stop": [
        (stops_late, "one measurement too many"),
        (counts_from_zero, "count the measurements from 1"),
        (counts_rises, "compare with the best so far"),
        (never_forgets, "sets the count of waiting back to 0"),
        (looks_ahead, "beyond the stop"),
    ],
    "06.trapezoid": [
        (triangle, "stay at 1 until the last fifth"),
        (idle_first_step, "the first step would have a rate of 0"),
        (ends_above, "it ends above 0"),
        (only_up, "the fall is missing"),
    ],
    "06.adamw_step": [
        (adam, "the decay is missing"),
        (decay_in_gradient, "the decay is inside the gradient"),
        (uncorrected, "the averages began at 0"),
        (under_the_root, "eps stands under the root"),
        (unscaled, "not scaled by the learning rate"),
        (decay_last, "pulls at the new weight"),
        (weights_only, "a tuple is wanted, not a Tensor"),
    ],
    "06.repaired_loop": [
        (loop(zero=False), "zero_grad is missing"),
        (loop(shifted=False), "it must be y, one token further on"),
        (loop(stepwise=False), "the schedule must move on with every step"),
        (loop(off=False), "dropout is still on"),
        (loop(apart=False), "the held-out text is among them"),
        (loop(off=False, apart=False), "model.eval(); the batches are cut from all ids"),
        (loop(False, False, False, False, False), "all five faults are there still"),
    ],
    "06.evened_out": [
        (normalised, "G with a length of 1"),
        (signs, "the sign of each number"),
        (unit_rows, "the rows are of length 1"),
        (transposed, "that is the transpose"),
        (v_for_vh, "evened_out("),
        (five_times, "not repeated often enough"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "06.evened_out": {
        "range(31)": "after thirty repetitions one more changes nothing that can be seen",
        "range(29)": "and twenty-nine are as good",
    },
}
