"""Drawings of training (notebook 06)."""

from llmkit.drawings.sketch import FAINT, Sketch


def training_loop() -> Sketch:
    """One step of training as a row of boxes, what it reads, and what is done between two steps."""
    drawing = Sketch(720, 318, "One step of training, and what is done between two steps")
    drawing.box(20, 14, 116, 32, "training text", tint=4)
    drawing.box(584, 14, 116, 32, "schedule", tint=4)
    drawing.words(576, 30, "learning rate", size=12, colour=FAINT, anchor="end")
    names = ("batch\nx, y", "model\nlogits", "loss\none number", "gradient\nclipped", "step\nAdamW")
    for i, name in enumerate(names):
        x = 20 + i * 141
        drawing.box(x, 84, 116, 52, name, tint=1 if i == 4 else 0)
        if i:
            drawing.arrow((x - 25, 110), (x, 110))
    drawing.arrow((78, 46), (78, 84))
    drawing.arrow((642, 46), (642, 84))
    drawing.arrow((642, 136), (78, 136), via=[(642, 178), (78, 178)])
    drawing.words(360, 164, "again, with the next batch", size=12, colour=FAINT)
    drawing.box(20, 244, 116, 52, "held-out\ntext", tint=4)
    drawing.box(220, 244, 216, 52, "evaluation: the loss,\nwith dropout off", tint=2)
    drawing.box(484, 244, 216, 52, "checkpoint: all that is\nneeded to go on", tint=2)
    drawing.arrow((136, 270), (220, 270))
    for x in (328, 592):
        drawing.arrow((x, 178), (x, 244), dashed=True)
        drawing.words(x + 8, 212, "now and then", size=12, colour=FAINT, anchor="start")
    return drawing
