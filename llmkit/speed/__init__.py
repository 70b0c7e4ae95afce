"""The race against the clock (notebook 10): a model and a way of decoding that are built for speed.

`fast_gpt` is the racer, `decoding` draws tokens without the weight of modules, `linear` multiplies
few rows on a CPU. What scale costs, and how to get there, is `llmkit.scale`.
"""
