"""Beyond one small machine (notebook 10b): what a model costs, many processes, text beyond memory.

`cost` counts parameters, arithmetic and memory before a model is built; `distributed` lets several
processes train one model; `token_file` keeps a corpus that is larger than memory. `cost` can price
the racer of `llmkit.speed` too; a token file can hold a tokenizer of `llmkit.bpe`.
"""
