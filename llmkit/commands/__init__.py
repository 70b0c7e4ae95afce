"""What `python -m llmkit` can do: train, evaluate, generate, export and serve.

One file a command: `add` declares its options, `run` runs it. `recipe` holds what `train` trains,
`held_out` which text is measured. Here are the progress bars and what is printed; all the rest can
be done from Python. It stands on `llmkit.speed`, `llmkit.scale`, `llmkit.bpe` and `llmkit.deploy`.
"""
