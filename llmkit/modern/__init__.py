"""A modern model (notebook 11b): what stands between GPT-2 and the open models of today.

`model` is llmkit's GPT with seven changes: RMSNorm, rotary positions with their base, SwiGLU,
grouped-query attention, QK-norm, a sliding window, and a mixture of experts; with them it is Llama,
Mistral, Qwen3, Mixtral or Qwen3-MoE. `folders` reads and writes the folders in which these travel;
it stands on `llmkit.finetune`, which reads such files for GPT-2, and on `llmkit.bpe`. `decoding`
draws tokens sooner, by `llmkit.speed`. `smollm2` fetches a real one for a laptop (`python -m llmkit
fetch`), which comes as a file that `gguf` reads; `fetching` keeps what was fetched.
"""

from llmkit.modern.decoding import quick
from llmkit.modern.folders import load, save
from llmkit.modern.model import Modern, ModernConfig
from llmkit.modern.smollm2 import fetch, fetched

__all__ = ["Modern", "ModernConfig", "fetch", "fetched", "load", "quick", "save"]
