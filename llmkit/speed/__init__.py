"""The race against the clock (notebook 10): a model and a way of decoding built for speed.

`fast_gpt` is the racer, `decoding` draws tokens without the weight of modules, and for many prompts
at once, `cpu` has what one kind of processor likes. What scale costs, and how to get there, is
`llmkit.scale`'s.
"""
