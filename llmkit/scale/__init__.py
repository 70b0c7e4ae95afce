"""Beyond one small machine (notebooks 10b, 10c): what a model costs, what it will lose, and more.

`cost` counts parameters, arithmetic and memory before a model is built; `laws` predicts the loss of
a run from smaller ones; `distributed` lets several processes train one model; `token_file` keeps a
corpus that is larger than memory. `cost` can price
the racer of `llmkit.speed` too; a token file can hold a tokenizer of `llmkit.bpe`.
"""
