# %% [markdown]
# # 11b · A modern model
# *From GPT-2 to the open models of today: seven changes, one at a time, each built and measured.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/11b_modern_model.ipynb)
#
# About 38 minutes to read, exercises aside.
#
# ← [11 · Pretrained GPT-2](11_pretrained_gpt2.ipynb) · [12 · LoRA](12_lora.ipynb) →

# %% tags=["setup"]
# Installs llmkit where it is missing, as on Colab (some 20 seconds); elsewhere it installs nothing.
import importlib.util
import os
import subprocess
import sys

if "OMP_WAIT_POLICY" not in os.environ:  # threads that wait soon leave the cores to others
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
if importlib.util.find_spec("llmkit") is None:
    source = os.environ.get("LLMKIT_SOURCE", "git+https://github.com/your-account/llmkit@v0.1.0")
    pip = [sys.executable, "-m", "pip", "install", "-qq"]
    pip += [source]
    if subprocess.run(pip).returncode != 0:
        raise RuntimeError(f"llmkit could not be installed from {source}; pip says above why.")
    importlib.invalidate_caches()

# %% [markdown]
# GPT-2 is of 2019. Llama, Mistral and Qwen, open models that people use today, are its grandchildren. What stands between
# them? One might expect another kind of machine. But the residual stream, its blocks, the training and the tokens are those
# of notebooks 04 to 11, and what has changed fits into seven small pieces of code.
#
# Here they are, one after the other. Each is written out once and compared with PyTorch's or llmkit's. Then a small
# model is trained with it, on the play, for as many steps as the one before: what does the change cost, and does it help?

# %%
import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import llmkit
from llmkit import drawings, modern, plots
from llmkit.attention import rotary_table, rotate
from llmkit.finetune.quiet import import_transformers
from llmkit.modern.model import Experts, FeedForward
from llmkit.responsible.plots import intervals

transformers = import_transformers()  # without what it tells of missing GPU parts
runtime = llmkit.start(seed=1337)
runtime

# %%
drawings.modern_changes()

# %% [markdown]
# ## The first rung
#
# The ladder begins at notebook 05: llmkit's `GPT` with GPT-2's choices. `climb` trains a model and notes what it costs: its
# parameters, how many bytes its KV cache keeps for one token (notebook 08b; two bytes a number), and the processor
# time of a step.

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))  # (N,) each
V = tokenizer.vocab_size
shape = dict(block_size=64, n_layer=2, n_head=4, n_embd=runtime.pick(cpu=64, gpu=256))
settings = llmkit.TrainConfig(steps=runtime.pick(cpu=60, gpu=1000), batch_size=16, optimizer="muon")
models, losses = {}, {}


# %%
def cache_bytes(config, tokens: int = 1) -> int:
    """The keys and values of so many tokens in all layers, two bytes a number."""
    heads = getattr(config, "n_kv_head", config.n_head)  # a GPT has as many as heads of queries
    size = getattr(config, "head_size", config.n_embd // config.n_head)
    return 2 * config.n_layer * heads * size * tokens * 2


def climb(name: str, model=None, **choices) -> None:
    """Train a model from the same seed as all others, and measure it on the held-out text."""
    torch.manual_seed(runtime.seed)
    model = model or modern.Modern(modern.ModernConfig(V, **shape, **choices))
    started = time.process_time()  # what other programs do meanwhile does not count
    llmkit.train(model.to(runtime.device), train_ids, config=settings)
    step = (time.process_time() - started) / settings.steps
    models[name], losses[name] = model, llmkit.evaluate(model, val_ids).loss
    print(f"{name}: {model.num_parameters():,} parameters, ", end="")
    print(f"{cache_bytes(model.config):,} bytes of cache a token")
    print(f"≈ {1000 * step:.0f} ms a step, held-out loss ≈ {losses[name]:.3f}")


# %%
torch.manual_seed(runtime.seed)
climb("GPT-2's choices", llmkit.GPT(llmkit.GPTConfig(V, **shape)))


# %% [markdown]
# ## 1 · Positions that turn
#
# GPT-2 learns a row for each position, and ends where its table ends. *Rotary* positions (notebook 05b) turn queries and
# keys instead: of the D features of a head, pair i goes round by an angle that grows with the position, and each pair at
# another speed. How fast the slowest pair turns is set by one number, the *base*:

# %%
def turned(x: Tensor, base: float) -> Tensor:
    """Queries or keys (..., T, D): pair i is turned by t / base^(2i/D) radians at position t."""
    T, D = x.shape[-2:]
    speed = base ** (-torch.arange(0, D, 2) / D)  # (D/2,)
    angle = torch.arange(T)[:, None] * speed  # (T, D/2)
    a, b = x.chunk(2, dim=-1)  # (..., T, D/2) each: feature i is paired with feature i + D/2
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


x = torch.randn(2, 4, 20, 16)  # (B, H, T, D)
for base in (100.0, 10_000.0, 500_000.0):
    assert torch.allclose(turned(x, base), rotate(x, *rotary_table(0, 20, 16, x, base)), atol=1e-5)

# %% [markdown]
# A pair that has gone round once shows the same as at the beginning: two places a full turn apart look alike to it. A pair
# that never comes round within the context tells near from far without such doubt. How many are there of these? The bases,
# head sizes and contexts are those of the models' own `config.json`:

# %%
known = {  # base, D, context
    "Llama 1": (10_000, 128, 2_048),
    "Llama 3 8B": (500_000, 128, 8_192),
    "SmolLM2": (100_000, 64, 8_192),
    "Qwen3": (1_000_000, 128, 40_960),
    "Qwen3 with Llama 1's base": (10_000, 128, 40_960),
}
slow = {}
for name, (base, D, context) in known.items():
    one_turn = 2 * torch.pi * base ** (torch.arange(0, D, 2) / D)  # (D/2,) in positions
    slow[name] = int((one_turn > context).sum())
    print(f"{name:26} base {base:9,}: {slow[name]:2} of {D // 2} pairs never come round")
assert slow["Qwen3 with Llama 1's base"] < 4 < 20 < slow["Qwen3"]

# %% [markdown]
# So a longer context takes a larger base, which costs nothing. (A trained model can be given a larger base later, and a
# little more training: [Rozière et al. 2023](https://arxiv.org/abs/2308.12950) made a context of 4,096 one of 16,384 so.) Our rung has the usual 10,000. Biases go as well, as in most
# models of today; with these two choices `llmkit.modern` is the GPT that we know, weight for weight:

# %%
classic = dict(norm="layer", activation="gelu")
gpt = llmkit.GPT(llmkit.GPTConfig(V, **shape, position="rotary", bias=False)).eval()
same = modern.Modern(modern.ModernConfig(V, **shape, **classic)).eval()
same.load_state_dict(gpt.state_dict())
ids = val_ids[:64]  # (T,)
with torch.no_grad():
    assert torch.allclose(gpt(ids[None]), same(ids[None]), atol=1e-5)
climb("rotary", **classic)

# %% tags=["trained"]
assert losses["rotary"] < losses["GPT-2's choices"] - 0.01


# %% [markdown]
# Fewer parameters, and a lower loss.
#
# ## 2 · RMSNorm
#
# A layer norm takes the mean off a vector and divides by its spread. The first half can be left out. *RMSNorm* divides by
# the root of the mean square, and has one gain for each feature ([Zhang and Sennrich
# 2019](https://arxiv.org/abs/1910.07467)):

# %%
def rms_norm(x: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
    """x (..., C), gain (C,) -> (..., C)."""
    return gain * x / (x.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()


x, gain = 3 * torch.randn(5, 8) + 1, torch.rand(8)  # (T=5, C=8)
theirs = torch.nn.RMSNorm(8, eps=1e-5)
theirs.load_state_dict({"weight": gain})
assert torch.allclose(rms_norm(x, gain), theirs(x), atol=1e-6)
for when, rows in {"before": x, "after": rms_norm(x, torch.ones(8))}.items():
    print(f"{when:6}", *(f"{size:.2f}" for size in rows.pow(2).mean(dim=-1).sqrt()))

# %% [markdown]
# Whatever the root mean square of a row was, afterwards it is 1.

# %%
climb("RMSNorm", activation="gelu")


# %% [markdown]
# ## 3 · SwiGLU
#
# The feed-forward part of GPT-2 is two matrices with a GELU between them. Today's has three. One of them makes a *gate*:
# numbers that decide how much passes of what another makes. $\text{silu}(z) = z\,\sigma(z)$, and ⊙ multiplies number by
# number ([Shazeer 2020](https://arxiv.org/abs/2002.05202)):
#
# $$\big(\text{silu}(x W_1) \odot x W_2\big)\, W_3$$

# %%
def swiglu(x: Tensor, part: FeedForward) -> Tensor:
    """x (..., C) -> (..., C), with the weights of llmkit's part: there W1 and W2 are one matrix."""
    W1, W2 = part.c_fc.weight.chunk(2)  # (inner, C) each
    W3 = part.c_proj.weight  # (C, inner)
    return (F.silu(x @ W1.T) * (x @ W2.T)) @ W3.T


x = torch.randn(5, 96)  # (T, C)
gated = FeedForward(modern.ModernConfig(V, 64, n_embd=96))
plain = FeedForward(modern.ModernConfig(V, 64, n_embd=96, activation="gelu"))
assert torch.allclose(swiglu(x, gated), gated(x), atol=1e-6)
for name, part in {"GELU": plain, "SwiGLU": gated}.items():
    inner, count = part.c_proj.in_features, sum(w.numel() for w in part.parameters())
    print(f"{name:7} 96 -> {inner} -> 96: {count:,} parameters")

# %% [markdown]
# Three matrices that are 8/3 C wide in the middle have as many numbers as two that are 4 C wide. So the comparison is fair:

# %%
climb("SwiGLU")


# %% [markdown]
# ## 4 · Keys and values that are shared
#
# The cache keeps a key and a value for each token, in each head and layer. *Grouped-query attention* (notebook 08b) lets
# several heads of queries share one head of keys and values. That is the same as copying each of the few for its group:

# %%
def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q (B, H, T, D), k and v (B, G, T, D), G of them for H heads of queries -> (B, H, T, D)."""
    shared = q.size(1) // k.size(1)
    k, v = (part.repeat_interleave(shared, dim=1) for part in (k, v))  # (B, H, T, D)
    return llmkit.attention(q, k, v, mask)[0]


q = torch.randn(1, 6, 9, 8)  # (B, H=6, T, D)
k, v = torch.randn(2, 1, 2, 9, 8)  # (B, G=2, T, D) each: heads 0 to 2 share the first
out = grouped_attention(q, k, v, llmkit.causal_mask(9))
expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
assert torch.allclose(out, expected, atol=1e-5)
climb("grouped queries", n_kv_head=2)

# %% [markdown]
# Half of the cache, and fewer parameters.
#
# ## 5 · QK-norm
#
# A score is the product of a query and a key, and nothing bounds it. If both grow while the model trains, softmax puts all
# weight on one position, and no gradient is left for the others. *QK-norm* norms each query and each key, head by head
# ([Henry et al. 2020](https://arxiv.org/abs/2010.04245)). With gains of 1 both are √D long, and √D · √D / √D is all that
# a score can reach:

# %%
q, k = 50 * torch.randn(2, 1, 4, 9, 16)  # (B, H, T, D) each, far too long
ones = torch.ones(16)
scores = q @ k.mT / 16**0.5  # (B, H, T, T)
bounded = rms_norm(q, ones) @ rms_norm(k, ones).mT / 16**0.5
print(f"largest weight: {scores.softmax(-1).amax(-1).mean():.2f}, ", end="")
print(f"normed: {bounded.softmax(-1).amax(-1).mean():.2f}")
assert scores.abs().max() > 1000
assert bounded.abs().max() <= 16**0.5

# %% [markdown]
# It works in the other direction, too. The weights of a fresh model are small, and so are its scores: its heads begin as plain
# averages, all positions alike, and have to learn their way out of that. Normed scores have a spread of about 1 from the
# first step:

# %%
fresh = modern.Modern(modern.ModernConfig(V, **shape))
D = fresh.config.head_size
x = rms_norm(fresh.wte.weight[ids], torch.ones(shape["n_embd"]))  # (T, C)
q, k, _v = (x @ fresh.h[0].attn.c_attn.weight.T).chunk(3, dim=1)  # (T, C) each
q, k = q[:, :D], k[:, :D]  # (T, D): the first head
scores = q @ k.T / D**0.5  # (T, T)
normed = rms_norm(q, torch.ones(D)) @ rms_norm(k, torch.ones(D)).T / D**0.5
print(f"spread of a fresh model's scores ≈ {scores.std():.2f}, normed ≈ {normed.std():.2f}")
assert scores.std() < 0.2
assert normed.std() > 0.5

# %%
climb("QK-norm", n_kv_head=2, qk_norm=True)

# %% [markdown]
# ## 6 · A window
#
# Does a position have to see all of its past? In Mistral's first model each sees the last 4,096 positions and no more
# ([Jiang et al. 2023](https://arxiv.org/abs/2310.06825)). What lies further back is not lost: it was read by positions in
# between, which pass it on, a window a layer. How many layers does it take from one position to another, if each sees
# itself and three before it?

# %%
window, T = 4, 16
mask = llmkit.causal_mask(T).triu(1 - window)  # (T, T): the triangle, cut off on the left
assert mask.sum(dim=1).tolist() == [1, 2, 3] + [4] * (T - 3)
layers, reached = torch.full((T, T), torch.nan), torch.eye(T, dtype=torch.bool)
for layer in range(1, 6):
    reached = (mask.float() @ reached.float()) > 0  # what its neighbours have reached already
    layers[reached & layers.isnan()] = layer
assert layers[-1, 0] == 5
places = [str(t) for t in range(T)]
plots.matrix(
    layers,
    places,
    places,
    "What lies further back arrives through more layers",
    axes=("position that reads", "position that is read"),
    label="layers needed",
)

# %% [markdown]
# What the window saves is cache: keys and values that no later position can see may be forgotten. (In notebook 08b a window
# made the cache useless, because tokens moved when the first was dropped. Here every token keeps its position.) Two
# models, one of them with a window, read a text of 1,000 tokens, and we look at what they keep:

# %%
kept = {}
for name, choice in {"all": {}, "window of 16": {"window": 16}}.items():
    reader = modern.Modern(modern.ModernConfig(V, **(shape | {"block_size": 1000}), **choice))
    cache = reader.new_cache()
    with torch.no_grad():
        for piece in val_ids[:1000].split(50):
            reader(piece[None], cache)
    kept[name] = sum(part.keys.nbytes + part.values.nbytes for part in cache)
print(f"{kept['all'] / kept['window of 16']:.0f} times as much without a window")
assert kept["window of 16"] < kept["all"] / 20
climb("window of 16", n_kv_head=2, qk_norm=True, window=16)


# %% [markdown]
# ## 7 · Many experts
#
# A model with more parameters knows more, and takes more time for every token. Unless not all of them are used: a *mixture of
# experts* has several feed-forward parts side by side, and a *router*, one small matrix, sends each token to the few that
# suit it best ([Shazeer et al. 2017](https://arxiv.org/abs/1701.06538); [Jiang et al.
# 2024](https://arxiv.org/abs/2401.04088)). Their answers are added up, each weighed by its share:

# %%
def mixture(x: Tensor, layer: Experts, n_active: int) -> Tensor:
    """x (N, C) -> (N, C): every token through the n_active likeliest of the experts."""
    p = (x @ layer.router.weight.T).softmax(dim=-1)  # (N, E): the router
    shares, chosen = p.topk(n_active)  # (N, K) each
    shares = shares / shares.sum(dim=-1, keepdim=True)  # of those that were chosen
    rows = []
    for token, share, experts in zip(x, shares, chosen.tolist(), strict=True):
        answers = torch.stack([swiglu(token, layer.experts[e]) for e in experts])  # (K, C)
        rows.append(share @ answers)
    return torch.stack(rows)


layer = Experts(modern.ModernConfig(V, 64, n_embd=32, n_expert=8, n_active=2))
x = torch.randn(6, 32)  # (N, C)
assert torch.allclose(mixture(x, layer, 2), layer(x[None])[0], atol=1e-5)
print(layer.route(x)[1].tolist())

# %% [markdown]
# Each row lists a token's two experts. For our ladder: four experts, each half as wide as the part that they replace. Two
# of them make the same number of multiplications, and the model has twice the feed-forward parameters.

# %%
today = dict(n_kv_head=2, qk_norm=True, window=16)
climb("experts", **today, n_expert=4, n_inner=4 * (shape["n_embd"] // 3))

# %% [markdown]
# ## What is noise?
#
# Eight losses, most of them close together. Would another seed put them in the same order? To know that takes more seeds and
# more steps than this page has time for. So the same ladder was climbed outside, for 150 steps with each of five seeds
# (`benchmarks/ladder.py`, one thread of an AMD EPYC, November 2026; [benchmarks](../benchmarks/README.md)). Its losses:

# %%
STORED = {  # nats per character; a number a seed
    "GPT-2's choices": [2.2014, 2.199, 2.1936, 2.1891, 2.1999],
    "rotary": [2.0631, 2.0747, 2.0628, 2.0881, 2.0692],
    "RMSNorm": [2.0653, 2.0762, 2.061, 2.0731, 2.0727],
    "SwiGLU": [2.102, 2.1055, 2.0933, 2.0875, 2.0833],
    "grouped queries": [2.1028, 2.1317, 2.1518, 2.1334, 2.1303],
    "QK-norm": [1.8845, 1.8815, 1.8615, 1.9034, 1.8383],
    "window of 16": [1.7677, 1.7481, 1.7749, 1.7868, 1.7722],
    "experts": [1.749, 1.7654, 1.7579, 1.7712, 1.7432],
}

# %%
intervals(
    list(STORED),
    {"a rung": list(STORED.values())},
    "Three changes help a small model at once, two harm it a little",
    xlabel="held-out loss after 150 steps (nats per character)",
)


# %% [markdown]
# The same seed means the same batches in the same order, so a rung may be compared with the one above it seed by seed. Where
# some seeds say better and others worse, the change is within the noise. What do you expect?

# %%
def numbers(losses: list[float]) -> Tensor:
    return torch.tensor(losses, dtype=torch.float64)


verdicts = {}
for before, after in itertools.pairwise(STORED):
    change = numbers(STORED[after]) - numbers(STORED[before])  # (5,), one for each seed
    agreed = change.min() > 0 or change.max() < 0
    verdicts[after] = ("better" if change.mean() < 0 else "worse") if agreed else "within noise"
    print(f"{after:16} {change.mean():+.3f} ({change.min():+.3f} to {change.max():+.3f})", end=" ")
    print(verdicts[after])
found = {kind: [n for n, v in verdicts.items() if v == kind] for kind in verdicts.values()}
assert found["better"] == ["rotary", "QK-norm", "window of 16"]
assert found["within noise"] == ["RMSNorm", "experts"]

# %% [markdown]
# Rotary positions, QK-norm and the window help at once, and more than any seed does. RMSNorm and the experts change nothing that
# five seeds could tell from chance. SwiGLU and shared keys do some harm, here. In
# time the seven cost little on that processor: a step took 36 ms with GPT-2's choices, 41 with all but the experts, 52 with them.
# (RMSNorm has less to compute than a layer norm, but PyTorch's was no quicker there: 39 ms after 36.)
#
# Why does QK-norm win so much? We saw that its heads need not wait until scores have grown. If that is the reason, then
# whatever lets them grow sooner should help the model *without* it. So the two rungs were climbed once more, at four
# times the learning rate:

# %%
FASTER = {  # at four times the learning rate
    "grouped queries": [1.9302, 1.9175, 1.8911, 1.9358, 1.8935],
    "QK-norm": [1.8679, 1.8811, 1.8324, 1.8527, 1.8496],
}
for name, runs in {"usual rate": STORED, "four times": FASTER}.items():
    without, with_norm = (numbers(runs[rung]) for rung in ("grouped queries", "QK-norm"))
    lead = (without - with_norm).mean()
    print(f"{name:10} without {without.mean():.3f}, with QK-norm {with_norm.mean():.3f}: ", end="")
    print(f"a lead of {lead:.3f}")
assert lead < 0.1 < (numbers(STORED["grouped queries"]) - without).mean()


# %% [markdown]
# Most of the lead is gone: a model without QK-norm was held back by its learning rate. **A change that wins at one setting has
# won at that setting.** Three things more should keep us from ranking the seven by this picture:
#
# - These are 150 steps, the beginning of a training. What starts quickly wins there: a window that tells a model to look nearby
#   spares it finding that out. After 600 steps, with two seeds, QK-norm's lead was 0.04 in place of 0.26, and the window's 0.02
#   in place of 0.10.
# - The models have 100,000 parameters. SwiGLU's paper has a loss of 1.636 in place of GELU's 1.679, in models two
#   thousand times as large.
# - Shared keys and the window were made for long texts and large caches. Ours are 64 characters long. What we can measure here
#   is what they cost, and that is little.
#
# ## All of it
#
# The functions of this page make a whole model. Attention first, with all that has changed in it:

# %%
def attend(x: Tensor, layer, c: modern.ModernConfig) -> Tensor:
    """x (T, C), normed -> what each position fetches from those that it sees, (T, C)."""
    T = len(x)
    heads = (x @ layer.c_attn.weight.T).view(T, -1, c.head_size)  # (T, H + 2G, D)
    heads = heads.transpose(0, 1)[None]  # (1, H + 2G, T, D)
    q, k, v = heads.split([c.n_head, c.n_kv_head, c.n_kv_head], dim=1)
    if c.qk_norm:
        q = rms_norm(q, layer.q_norm.weight, c.norm_eps)
        k = rms_norm(k, layer.k_norm.weight, c.norm_eps)
    q, k = turned(q, c.rope_base), turned(k, c.rope_base)
    mask = llmkit.causal_mask(T)
    if c.window:
        mask = mask.triu(1 - c.window)
    out = grouped_attention(q, k, v, mask)[0]  # (H, T, D)
    return out.transpose(0, 1).reshape(T, -1) @ layer.c_proj.weight.T


# %%
@torch.no_grad()
def read(model: modern.Modern, ids: Tensor) -> Tensor:
    """A text's ids (T,) -> scores of each next token (T, V)."""
    c = model.config
    x = model.wte.weight[ids]  # (T, C): no position is added
    for block in model.h:
        x = x + attend(rms_norm(x, block.ln_1.weight, c.norm_eps), block.attn, c)
        h = rms_norm(x, block.ln_2.weight, c.norm_eps)
        x = x + (mixture(h, block.mlp, c.n_active) if c.n_expert else swiglu(h, block.mlp))
    return rms_norm(x, model.ln_f.weight, c.norm_eps) @ model.lm_head.weight.T


for name in ("SwiGLU", "grouped queries", "QK-norm", "window of 16", "experts"):
    model = models[name].cpu().eval()
    with torch.no_grad():
        assert torch.allclose(read(model, ids), model(ids[None])[0], atol=1e-4)
print("the five rungs with SwiGLU: the scores of llmkit's model")

# %% [markdown]
# That is the model. Everything else is numbers: how many layers, how wide, which base. Is it Llama, too? Notebook 11 had a
# judge for such questions: transformers' own model, with random weights that have all been moved from where they started.
# And so that we know what the comparison is worth, ours is also read with another base:

# %%
sizes = dict(vocab_size=97, hidden_size=48, intermediate_size=52, num_hidden_layers=2)
sizes |= dict(num_attention_heads=6, num_key_value_heads=2, head_dim=10, max_position_embeddings=64)
sizes |= dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
families = {"Llama": {}, "Mistral": dict(sliding_window=9), "Qwen3": {}}
families["Mixtral"] = dict(sliding_window=9, num_local_experts=4, num_experts_per_tok=2)


def their_model(family: str):
    """transformers' model of a family, small, with every weight moved."""
    config = getattr(transformers, f"{family}Config")(**sizes, **families[family])
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight += 0.15 * torch.randn_like(weight)
    return theirs


# %%
folder = Path(tempfile.mkdtemp())  # somewhere to write
random_ids = torch.randint(97, (40,))  # (T,)
for family in families:
    theirs = their_model(family)
    theirs.save_pretrained(folder / family)
    ours, _ = modern.load(folder / family)  # their weights, in our model's places
    with torch.no_grad():
        expected = theirs(random_ids[None]).logits[0]  # (T, V)
    difference = (read(ours, random_ids) - expected).abs().max()
    ours.config = replace(ours.config, rope_base=500_000.0)
    fault = (read(ours, random_ids) - expected).abs().max()
    print(f"{family:8} largest difference ≈ {difference:.0e}, with another base ≈ {fault:.0e}")
    assert difference < 1e-4 < 1e-2 < fault

# %% [markdown]
# **Our code is Llama, Mistral, Qwen3 and Mixtral**, up to rounding. What tells the families apart is which of the seven they
# take. It works the other way round, too: what we trained above can be saved as transformers saves it, and opened there.

# %%
for name in ("SwiGLU", "QK-norm", "experts"):
    modern.save(models[name], folder / "ours" / name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "ours" / name).eval()
    with torch.no_grad():
        assert torch.allclose(theirs(ids[None]).logits[0], read(models[name], ids), atol=1e-4)
    print(f"{name:8} opens as {type(theirs).__name__}")

# %% [markdown]
# ## The same, larger
#
# The published models are the same code with larger numbers in the configuration. PyTorch can build them on the device
# "meta", which gives tensors a shape and no memory, so that we can count the parameters of a model that would not fit:

# %%
large = dict(n_layer=32, n_head=32, n_embd=4096, n_kv_head=8, n_inner=14336, tie_weights=False)
small = dict(vocab_size=49152, n_layer=30, n_head=9, n_embd=576, n_kv_head=3)
qwen3 = dict(vocab_size=151936, n_layer=28, n_head=16, n_embd=1024, n_kv_head=8)
qwen3 |= dict(head_size=128, n_inner=3072, qk_norm=True)
published = {  # configuration, and how many parameters its makers' files hold
    "SmolLM2-135M": (small, 134_515_008),
    "Qwen3-0.6B": (qwen3, 596_049_920),
    "Mistral 7B": (large | dict(vocab_size=32000, window=4096), 7_241_732_096),
    "Llama 3 8B": (large | dict(vocab_size=128256), 8_030_261_248),
    "Mixtral 8x7B": (large | dict(vocab_size=32000, n_expert=8), 46_702_792_704),
}

# %%
print(f"{'':14}{'parameters':>16}{'cache, one token':>20}{'32,768 tokens':>16}")
for name, (choices, parameters) in published.items():
    with torch.device("meta"):
        counted = modern.Modern(modern.ModernConfig(block_size=32_768, **choices))
    assert counted.num_parameters() == parameters
    each, c = cache_bytes(counted.config), counted.config
    text_bytes = each * min(32_768, c.window - 1 if c.window else 32_768)
    print(f"{name:14}{parameters:16,}{each / 2**10:16.1f} KiB{text_bytes / 2**30:12.2f} GiB")

# %% [markdown]
# To the last parameter. A text of 32,768 tokens would take 16 GiB in the shape of the last three, if all 32 heads
# had keys of their own. Shared heads leave a quarter of it, and a window ends the growth:

# %%
tokens = [2**n for n in range(9, 18)]
shape_7b = dict(n_layer=32, n_head=32, n_embd=4096, block_size=2**17)
shared, curves = dict(n_kv_head=8), {}
cases = {"32 heads": {}, "8 heads": shared, "8 heads, window": shared | dict(window=4096)}
for name, choice in cases.items():
    c = modern.ModernConfig(32_000, **shape_7b, **choice)
    seen = [min(n, c.window or n) for n in tokens]
    curves[name] = [cache_bytes(c, n) / 2**30 for n in seen]
assert curves["32 heads"][-1] == 4 * curves["8 heads"][-1] == 128 * curves["8 heads, window"][-1]
plots.lines(
    tokens,
    curves,
    "Shared heads divide the cache, and a window ends its growth",
    xlabel="tokens of a text (logarithmic)",
    ylabel="GiB of cache (logarithmic)",
    log="xy",
    ticks=tokens[::2],
)

# %% [markdown]
# ## A real one
#
# SmolLM2-135M-Instruct ([Allal et al. 2025](https://arxiv.org/abs/2502.02737)) is a Llama of 135 million parameters that has
# read two trillion tokens and was then taught to answer (notebook 13 does that to a small model). It runs on a laptop.
# `python -m llmkit fetch` brings it once, 93 MB. If it is there, our own `read` has to give its scores, and then it
# talks. Where it is not, the small model from above speaks, and **no text stored on this page comes from SmolLM2**.

# %% tags=["nbval-ignore-output", "sampled-text"]
if place := modern.fetched():
    speaker, words = modern.load(place)
    asked = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    prompt, stop = words.encode(asked, "all"), words.special_tokens["<|im_end|>"]
else:
    print("SmolLM2 is not here: `python -m llmkit fetch` brings it. The small model speaks.\n")
    speaker, words = models["experts"], tokenizer
    prompt, stop = words.encode("GRIZEL:\n"), None
with torch.no_grad():
    assert torch.allclose(read(speaker, prompt), speaker(prompt[None])[0], atol=1e-3)
written = llmkit.generate(speaker, prompt, 80, temperature=0.5, stop=stop, seed=runtime.seed)
print(words.decode(written))

# %% [markdown]
# The marks around the question are a *chat template*: the model was taught with exactly these, and they tell it who
# speaks (notebook 13b writes two). On a GPU runtime we also fetch Qwen3-0.6B, with QK-norm and 28 layers, from Hugging Face's hub:

# %% tags=["trained"]
if runtime.pick(cpu=False, gpu=True):
    from huggingface_hub import snapshot_download

    name, weights, texts = "Qwen/Qwen3-0.6B", folder / "weights", folder / "tokenizer"
    snapshot_download(name, local_dir=weights, allow_patterns=["config.json", "*.safetensors"])
    snapshot_download(name, local_dir=texts, ignore_patterns=["*.safetensors"])
    qwen, _ = modern.load(weights)
    assert qwen.num_parameters() == published["Qwen3-0.6B"][1]
    qwen.config = replace(qwen.config, block_size=1024)  # room for a short talk, not for a book
    qwen.float().to(runtime.device)
    words = transformers.AutoTokenizer.from_pretrained(texts)
    turn = [{"role": "user", "content": "Why is the sky blue? One sentence."}]
    how = dict(tokenize=False, add_generation_prompt=True, enable_thinking=False)
    asked = words.apply_chat_template(turn, **how)
    prompt = torch.tensor(words(asked)["input_ids"], device=runtime.device)
    print(words.decode(llmkit.generate(qwen, prompt, 80, temperature=0, stop=words.eos_token_id)))
else:
    print("Qwen3-0.6B takes a GPU.")

# %% [markdown]
# ## What we saw
#
# - Seven changes, each of ten lines or so, lead from GPT-2 to the open models of today. With them our code gave the
#   scores of transformers' Llama, Mistral, Qwen3 and Mixtral, and a model trained on this page opened there as one of them.
# - Rotary positions cost no parameter, and a longer context takes a larger base. RMSNorm drops half of a layer norm, SwiGLU
#   has as many parameters as what it replaces.
# - Shared keys halved our cache and would leave a quarter of a 7B model's; a window ends its growth. Experts doubled the
#   feed-forward parameters for the same number of multiplications, and somewhat more time.
# - On 150 steps of a small model, with five seeds: rotary positions, QK-norm and the window helped, RMSNorm and the experts made
#   no difference, SwiGLU and shared keys did a little harm. At a higher learning rate most of QK-norm's lead was gone.
# - None of it says what pays off at a thousand times the size. For that, others have paid, and published the weights.
#
# Such weights want to be taught something new. Must all of them be moved for that? That is [notebook 12](12_lora.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · What shrinks the cache?** (easy, 3 minutes). Predict: which of the seven changes, by their numbers on this page, make
# the cache of a long text smaller? Give them in order, as a list.

# %% tags=["exercise"]
smaller_cache = None  # your answer: a list of numbers from 1 to 7

# %%
check("11b.smaller_cache", smaller_cache)

# %%
hint("11b.smaller_cache")  # so you ask for one; run it again for the next

# %% [markdown]
# **2 · Eight times seven is not 56** (easy, 8 minutes). Mixtral 8x7B has 46.7 billion parameters, of which a token meets those of
# two experts in each layer. Predict, on paper: how many billion does it meet? The numbers are C = 4,096, 32 layers, three
# matrices of 4,096 × 14,336 in each of 8 experts. Within 3 % is right.

# %% tags=["exercise"]
billions_met = None  # your answer

# %%
check("11b.billions_met", billions_met)


# %% [markdown]
# **3 · How deep?** (medium, 8 minutes). Each position sees the last `window` positions, itself among them. How many layers
# does it take at least, until what stands `distance` positions back can be known? (0 for the position itself; a window of
# 1 sees nothing else, however deep: then the answer is -1.) Mistral 7B has 32 layers and a window of 4,096: how far back
# can its last layer know?

# %% tags=["exercise"]
def layers_needed(distance: int, window: int) -> int:
    """The fewest layers, or -1 where no number of them will do."""


# %%
check("11b.layers_needed", layers_needed)


# %% [markdown]
# **4 · Repair it** (medium, 10 minutes). This attention with shared heads runs, has the right shapes, and is exact when H = G.
# With other numbers of heads it is wrong. Why? Mend it.

# %% tags=["exercise"]
def shared_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, H, T, D), k and v (B, G, T, D) -> (B, H, T, D): head h of q uses head h // (H / G)."""
    times = q.size(1) // k.size(1)
    k, v = k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1)
    return llmkit.attention(q, k, v, llmkit.causal_mask(q.size(2)))[0]


# %%
check("11b.shared_heads", shared_heads)


# %% [markdown]
# **5 · A base for a context** (medium, 10 minutes). Which base makes the slowest of the D/2 pairs turn by exactly half a turn, π,
# over a context of T positions? (The slowest pair turns by base^(-(D - 2)/D) radians a position; D is even and above 2.) Predict
# first: for T twice as long, is the base twice as large, or more, or less?

# %% tags=["exercise"]
def base_for(T: int, D: int) -> float:
    """The base with which the slowest pair turns by π over T positions."""


# %%
check("11b.base_for", base_for)


# %% [markdown]
# **6 · Are the experts busy?** (hard, 15 minutes). Left alone, a router may come to prefer a few experts and leave the others
# idle. So large models add a *balance loss* ([Fedus et al. 2021](https://arxiv.org/abs/2101.03961)):
# E · Σ f(e) · P(e) over the E experts, where P(e) is the mean over tokens of the router's probability of e, and f(e) is how
# many of a token's K choices, on average, are e. Write it. What is it, if everything is even? Then ask it about our own model.

# %% tags=["exercise"]
def balance_loss(scores: Tensor, K: int) -> Tensor:
    """The router's scores of N tokens (N, E), each sent to the K likeliest -> a number, ()."""


# %%
check("11b.balance_loss", balance_loss)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: what shrinks the cache
# Fewer heads of keys (4) make each token's part smaller, a window (6) forgets what is far back. All
# others leave keys and values as many as they were: a turned or normed key is as long as before,
# and experts have none.
smaller_cache = [4, 6]
check("11b.smaller_cache", smaller_cache)

# %% tags=["solution"]
# @title Solution 2: eight times seven
expert = 3 * 4096 * 14336  # 176 million
not_met = 32 * (8 - 2) * expert
billions_met = (46_702_792_704 - not_met) / 1e9
print(f"{billions_met:.2f} billion")  # only the experts are there eight times: 8 · 7 is not 46.7
check("11b.billions_met", billions_met)

# %% tags=["solution"]
# @title Solution 3: how deep


def layers_needed(distance: int, window: int) -> int:
    if distance == 0:
        return 0
    return -1 if window == 1 else -(-distance // (window - 1))  # rounded up


# Mistral's last layer: what every layer passes on is window - 1 positions further back.
print(f"{32 * 4095:,} positions")
assert layers_needed(32 * 4095, 4096) == 32
check("11b.layers_needed", layers_needed)

# %% tags=["solution"]
# @title Solution 4: repair it


def shared_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    times = q.size(1) // k.size(1)
    # repeat puts them 0 1 0 1 0 1, repeat_interleave 0 0 0 1 1 1: neighbours share
    k, v = k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)
    return llmkit.attention(q, k, v, llmkit.causal_mask(q.size(2)))[0]


check("11b.shared_heads", shared_heads)

# %% tags=["solution"]
# @title Solution 5: a base for a context


def base_for(T: int, D: int) -> float:
    return (T / torch.pi) ** (D / (D - 2))  # T · base^(-(D - 2)/D) = π, solved for the base


# A little more than twice. And published bases are far above this least one:
print([round(base_for(T, 128)) for T in (2048, 4096, 40960)])
check("11b.base_for", base_for)

# %% tags=["solution"]
# @title Solution 6: are the experts busy


def balance_loss(scores: Tensor, K: int) -> Tensor:
    N, E = scores.shape
    p = scores.softmax(dim=-1)  # (N, E)
    chosen = p.topk(K).indices  # (N, K)
    f = torch.bincount(chosen.flatten(), minlength=E) / N  # (E,), sums to K
    return E * (f * p.mean(dim=0)).sum()  # K, if everything is even


seen = []
router = models["experts"].h[0].mlp.router
hook = router.register_forward_hook(lambda _module, _inputs, out: seen.append(out.detach()))
models["experts"](val_ids[None, :64])
hook.remove()
print(f"our first router: ≈ {balance_loss(seen[0], 2):.2f} (even: 2)")
check("11b.balance_loss", balance_loss)
