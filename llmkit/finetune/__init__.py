"""A pretrained model made one's own (notebooks 11 to 13).

`pretrained` brings GPT-2 in and out of the folders that transformers writes, `folder` reads and
writes what is in them, `gpt2` knows how GPT-2's weights are named and turned; `lora` trains a few
percent of the weights; `instructions` has tasks with answers, and the loss that counts the answers
only; `chatml` writes conversations as chat models read them; `widgets` has people rate what a model
answers. GPT-2's tokenizer is `llmkit.bpe`'s, and many prompts at once are `llmkit.speed`'s.
"""
