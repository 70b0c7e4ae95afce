"""Answers that are preferred or rewarded, after instruction tuning (notebook 13b).

`chat` writes turns in the form that a model reads; `answers` draws answers, and says how likely a
model finds them and how far two models are apart; `dpo` learns from pairs of answers of which one
is preferred, `grpo` from rewards for what the model itself says, each step by `update`. Items and
rows are those of `llmkit.finetune`, many answers at once are drawn by `llmkit.speed`.
"""
