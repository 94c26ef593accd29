"""A page for a hosted Space: a photo and words in, coloured parts out. docs/integrations.md says how to set it up.

The model is what the variable PARTCLIPSEG_MODEL names: a name on the hub, one that `partclipseg models` lists, or none
for the built-in model, which knows PartShapes only.
"""

from __future__ import annotations

import os

import gradio as gr
import numpy as np

from partclipseg import PartCLIPSegError, PartSegmenter, Vocabulary
from partclipseg.formats.palette import part_colours

EXAMPLE = "dog: head, ear, torso, leg, tail; bus: body, window, wheel"

segmenter = PartSegmenter.from_pretrained(os.environ.get("PARTCLIPSEG_MODEL") or None)


def find_parts(photo: np.ndarray | None, words: str) -> dict:
    """Return the photo and the mask of each part, as `gr.AnnotatedImage` shows them."""
    if photo is None:
        raise gr.Error("Choose a photo first.")
    try:
        # Text alone: a string given to the segmenter may name a file of this machine, which no visitor may read.
        result = segmenter(photo, Vocabulary.from_text(words))
    except PartCLIPSegError as error:
        raise gr.Error(str(error)) from error
    colours = part_colours(result.vocabulary)
    return gr.AnnotatedImage(
        (photo, [(segment.mask.astype(np.float32), segment.name) for segment in result]),
        color_map={segment.name: f"#{bytes(colours[segment.index]).hex()}" for segment in result},
    )


demo = gr.Interface(
    find_parts,
    [gr.Image(label="Photo", type="numpy"), gr.Textbox(EXAMPLE, label="Words")],
    gr.AnnotatedImage(label="Parts"),
    title="Parts of things, by your own words",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
