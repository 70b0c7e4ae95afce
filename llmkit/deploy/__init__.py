"""A trained model put to work (notebook 14): smaller, in other formats, and served over HTTP.

`export` writes and reads every kind of model folder, `onnx` and `int8` make the two exports, `web`
a page in which the model runs (its runtime is kept as `llmkit.modern` keeps what it fetches);
`batch` draws many texts together, `engine` queues requests and has them drawn, `text_stream` turns
tokens into text as they come, and `server` puts it on the web. A folder with GPT-2 in it is read by
`llmkit.finetune`, which also knows how a conversation is written, one with an open model of today
by `llmkit.modern`; where a text ends is said by `llmkit.bpe`; what draws quickly is `llmkit.speed`.
"""
