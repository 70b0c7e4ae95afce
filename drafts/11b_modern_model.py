# %% [markdown]
# # 11b · A modern model
# *From GPT-2 to the open models of today: seven changes, one at a time, each measured.*
#
# GPT-2 is of 2019. Llama, Mistral and Qwen, whose weights anybody may take, are its grandchildren, and less has changed
# than one might think: the blocks, the stream and the training are those of notebooks 04 to 06. What has changed fits
# into seven small pieces of code. What does each of them do, what does it cost, and does it help a model as small as
# ours?

# %%
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import llmkit
from llmkit import modern, plots
from llmkit.attention import causal_attention, causal_mask
from llmkit.finetune.quiet import import_transformers
from llmkit.modern.model import Experts, FeedForward

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## Where we begin
#
# `llmkit.modern` has one model, `Modern`, and each change is one choice of its `ModernConfig`. With all of them
# undone it is the GPT that we know, with rotary positions (notebook 05b) and without biases: the same weights give the
# same logits.

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))
V = tokenizer.vocab_size
shape = dict(block_size=64, n_layer=2, n_head=4, n_embd=runtime.pick(cpu=64, gpu=256))
classic = dict(norm="layer", activation="gelu")

gpt = llmkit.GPT(llmkit.GPTConfig(V, **shape, position="rotary", bias=False)).eval()
start = modern.Modern(modern.ModernConfig(V, **shape, **classic)).eval()
start.load_state_dict(gpt.state_dict())
ids = val_ids[None, :64]  # (B=1, T=64)
with torch.no_grad():
    assert torch.allclose(gpt(ids), start(ids), atol=1e-5)
print(f"the same model twice: {start.num_parameters():,} parameters")

# %% [markdown]
# ## 1 · RMSNorm
#
# A layer norm takes a vector's mean off, then divides by its spread. The first half can be left out: *RMSNorm* divides
# by the root of the mean square, √(mean(x²)), and has one gain for each feature
# ([Zhang and Sennrich 2019](https://arxiv.org/abs/1910.07467)).


# %%
def rms_norm(x: torch.Tensor, gain: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """x (..., C), gain (C,) -> (..., C)."""
    return gain * x / (x.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()


x, gain = 3 * torch.randn(5, 8) + 1, torch.rand(8)  # (T=5, C=8)
assert torch.allclose(rms_norm(x, gain), F.rms_norm(x, (8,), gain, 1e-5), atol=1e-6)
print("mean square after it:", rms_norm(x, torch.ones(8)).pow(2).mean(dim=-1))

# %% [markdown]
# ## 2 · Rotary positions and their base
#
# Rotary positions turn each pair of features by an angle that grows with the position; pair i goes once around in
# 2π · base^(2i/D) positions. The slowest pair tells how far a model can see: beyond one turn, two distances look alike
# to it. GPT-NeoX took 10,000 as the base. Models that read whole books take more (SmolLM2 100,000, Qwen3 1,000,000).

# %%
D = 64
pairs = torch.arange(0, D, 2)
bases = {f"base {base:,}": 2 * torch.pi * base ** (pairs / D) for base in (500, 10_000, 1_000_000)}
plots.lines(
    (pairs // 2).tolist(),
    {name: turns.log10().tolist() for name, turns in bases.items()},
    "A larger base slows the slow pairs, and leaves the fast ones",
    xlabel="pair of features",
    ylabel="positions for one turn (log₁₀)",
)

# %% [markdown]
# ## 3 · SwiGLU
#
# The feed-forward part of GPT-2 is two matrices with a GELU between them. Today's has three. One makes a *gate*, which
# decides how much passes of what the other makes: (silu(x W₁) ⊙ x W₂) W₃, where silu(z) = z · sigmoid(z)
# ([Shazeer 2020](https://arxiv.org/abs/2002.05202)). To cost the same, its middle is 8/3 of the width, not 4.


# %%
def swiglu(x: torch.Tensor, part: FeedForward) -> torch.Tensor:
    """x (..., C) -> (..., C), with llmkit's weights: gate and up stand in one matrix."""
    W1, W2 = part.c_fc.weight.chunk(2)  # (inner, C) each
    return (F.silu(x @ W1.T) * (x @ W2.T)) @ part.c_proj.weight.T


part = FeedForward(modern.ModernConfig(V, 64, n_embd=96))
x = torch.randn(5, 96)
assert torch.allclose(swiglu(x, part), part(x), atol=1e-6)
plain = FeedForward(modern.ModernConfig(V, 64, n_embd=96, activation="gelu"))
for name, each in {"GELU": plain, "SwiGLU": part}.items():
    print(f"{name:7} {sum(w.numel() for w in each.parameters()):,} parameters")

# %% [markdown]
# ## 4 · Grouped-query attention
#
# The cache (notebook 08b) holds a key and a value for each head, layer and position. In a large model with a long text
# that is more than the weights. So let several heads of queries *share* one head of keys and values
# ([Ainslie et al. 2023](https://arxiv.org/abs/2305.13245)): the same as copying each of the few heads for its group.

# %%
q = torch.randn(1, 6, 9, 8)  # (B, H=6, T, D)
k, v = torch.randn(2, 1, 2, 9, 8)  # (B, G=2, T, D) each: three heads of queries share one
copied = causal_attention(q, k.repeat_interleave(3, dim=1), v.repeat_interleave(3, dim=1))
assert torch.allclose(causal_attention(q, k, v), copied, atol=1e-6)


def cache_bytes(config: modern.ModernConfig, T: int) -> int:
    """Keys and values of T positions, in 16 bits."""
    seen = min(T, config.window - 1) if config.window else T
    return 2 * config.n_layer * config.n_kv_head * config.head_size * seen * 2


big = dict(block_size=32_768, n_layer=32, n_head=32, n_embd=4096)  # the shape of a 7B model
for name, choice in {
    "32 heads of keys": {},
    "8 heads of keys": {"n_kv_head": 8},
    "8, and a window of 4,096": {"n_kv_head": 8, "window": 4096},
}.items():
    size = cache_bytes(modern.ModernConfig(32_000, **big, **choice), 32_768)
    print(f"{name:26} {size / 2**30:5.1f} GiB of cache for one text of 32,768 tokens")

# %% [markdown]
# ## 5 · QK-norm
#
# A score is a product of a query and a key. Nothing bounds it: with a high learning rate both grow, the softmax puts
# all weight on one position, and training fails. Normed head by head, both have the length √D (times their gains), so
# that no score is beyond √D ([Henry et al. 2020](https://arxiv.org/abs/2010.04245)).

# %%
q, k = 50 * torch.randn(2, 1, 4, 9, 16)  # (B, H, T, D) each, far too long
ones = torch.ones(16)
scores = rms_norm(q, ones) @ rms_norm(k, ones).mT / 16**0.5
print(f"largest score ≈ {(q @ k.mT / 4).abs().max():.0f}, normed ≈ {scores.abs().max():.2f}")
assert scores.abs().max() <= 16**0.5

# %% [markdown]
# ## 6 · A sliding window
#
# Each position sees only the last few, itself among them. What lies further back can still arrive, a window a layer.

# %%
window = causal_mask(12).triu(-3)  # a window of 4
plots.matrix(
    window.int().tolist(),
    [str(t) for t in range(12)],
    [str(t) for t in range(12)],
    "Each position sees itself and three before it",
    label="may look",
)
two_layers = (window.float() @ window.float()) > 0
print("the last position sees", int(window[-1].sum()), "positions, after two layers", int(two_layers[-1].sum()))

# %% [markdown]
# ## 7 · A mixture of experts
#
# Several feed-forward parts stand side by side, and a *router* gives each token to the few that suit it best. The model
# has the parameters of all, and computes with a few.

# %%
layer = Experts(modern.ModernConfig(V, 64, n_embd=32, n_expert=8, n_active=2))
tokens = torch.randn(6, 32)  # (N=6, C)
shares, chosen = layer.route(tokens)
print(chosen.tolist())
assert torch.allclose(shares.sum(dim=1), torch.ones(6))
total = sum(w.numel() for w in layer.parameters())
active = sum(w.numel() for w in layer.experts[0].parameters()) * 2 + layer.router.weight.numel()
print(f"{total:,} parameters, of which a token meets {active:,}")

# %% [markdown]
# ## One change at a time
#
# Now each change on top of those before it: the same text, the same number of steps, the same seed. With so small a
# model do not expect miracles; what was made for long texts and large models has nothing to win here, and the question
# is only what it costs.

# %%
ladder = {
    "GPT, rotary": classic,
    "+ RMSNorm": dict(activation="gelu"),
    "+ SwiGLU": {},
    "+ grouped queries": dict(n_kv_head=2),
    "+ QK-norm": dict(n_kv_head=2, qk_norm=True),
    "+ window of 16": dict(n_kv_head=2, qk_norm=True, window=16),
    "experts, 2 of 4": dict(n_kv_head=2, qk_norm=True, n_expert=4, n_inner=8 * (shape["n_embd"] // 6)),
}
settings = llmkit.TrainConfig(steps=runtime.pick(cpu=120, gpu=1000), batch_size=16, optimizer="muon")
models, losses = {}, {}


def climb(name: str) -> None:
    """Train one model of the ladder, and measure it on all of the held-out text."""
    torch.manual_seed(runtime.seed)
    model = modern.Modern(modern.ModernConfig(V, **shape, **ladder[name])).to(runtime.device)
    llmkit.train(model, train_ids, config=settings)
    models[name], losses[name] = model, llmkit.evaluate(model, val_ids).loss


# %% tags=["trained"]
for name in ladder:
    climb(name)
plots.bars(
    list(losses),
    list(losses.values()),
    "What each change does to a small model",
    xlabel="held-out loss (nats per character)",
    fmt="{:.3f}",
)

# %%
for name, model in models.items():
    size = cache_bytes(model.config, 64)
    print(f"{name:20} {model.num_parameters():9,} parameters {size:7,} bytes of cache for 64 tokens")

# %% [markdown]
# ## These are Llama, Mistral and Qwen
#
# With the right choices `Modern` is each of them, and its folder is theirs: transformers reads what we write.

# %%
transformers = import_transformers()
folder = Path(tempfile.mkdtemp())
for name in ("+ SwiGLU", "+ QK-norm", "experts, 2 of 4"):
    modern.save(models[name].cpu(), folder / name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / name).eval()
    with torch.no_grad():
        difference = (theirs(ids).logits - models[name].eval()(ids)).abs().max()
    print(f"{name:18} is a {type(theirs).__name__:20} largest difference of logits ≈ {difference:.0e}")
    assert difference < 1e-4

# %% [markdown]
# ## A real one
#
# SmolLM2-135M-Instruct is a Llama with 134,515,008 parameters that was trained on two trillion tokens. `python -m llmkit
# fetch` brings it once (93 MB). Where it is not there, the small model from above speaks instead, and **no text stored
# on this page comes from SmolLM2**.

# %% tags=["nbval-ignore-output", "sampled-text"]
if place := modern.fetched():
    speaker, words = modern.load(place)
    prompt = words.encode(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", "all"
    )
    stop = words.special_tokens["<|im_end|>"]
else:
    print("SmolLM2 is not here (python -m llmkit fetch brings it): the small model speaks.")
    speaker, words, stop = models["+ SwiGLU"], tokenizer, None
    prompt = words.encode("GRIZEL:\n")
print(words.decode(llmkit.generate(speaker, prompt, 60, temperature=0, stop=stop)))

# %% [markdown]
# ## What we saw
#
# (from the measured ladder; to be written when the figures are known)
#
# ## Exercises
#
# 11b.rms_norm · 11b.swiglu · 11b.cache_bytes · 11b.grouped · 11b.window_mask · 11b.balance (how even the router is)
