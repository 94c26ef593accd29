"""The model card, README.md, of a model's directory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from partclipseg import __version__
from partclipseg.counts import count_of

if TYPE_CHECKING:
    from partclipseg.models.interface import PartModel
    from partclipseg.vocabulary import Vocabulary

_LISTED = 60
"""Number of objects whose parts are listed."""


def model_card(model: PartModel, vocabulary: Vocabulary | None, name: str = "MODEL") -> str:
    """Write the card in Markdown, with the head that the hub reads.

    Args:
        vocabulary: the words that the model comes with, if any.
        name: the name that the examples load the model by.
    """
    height, width = model.image_shape
    count = sum(parameter.numel() for parameter in model.parameters())
    size = f"{count / 1e6:.1f} million" if count >= 1e5 else f"{count:,}"
    words = "" if vocabulary is not None else ', {"dog": ["head", "torso", "leg", "tail"], "bus": ["body", "wheel"]}'
    return "\n".join(
        [
            "---\nlibrary_name: partclipseg\npipeline_tag: image-segmentation\n"
            f"tags: [part-segmentation, open-vocabulary, {model.config.model_type}]\n---\n",
            f"# {name.rpartition('/')[2]}\n",
            "Open-vocabulary part segmentation: a photo and words in, a label for every part out.\n",
            "```python\nimport partclipseg\n\n"
            f"segmenter = partclipseg.PartSegmenter.from_pretrained({json.dumps(name)})\n"
            f'result = segmenter("photo.jpg"{words})\n```\n',
            "## Model\n",
            f"- class: `{type(model).__name__}` (`{model.config.model_type}`)\n- parameters: {size}, "
            f"{str(model.dtype).removeprefix('torch.')}\n- input: photos resized to {height} x {width} pixels, aspect "
            f"ratio not kept\n- written by partclipseg {__version__}\n",
            "## Words\n",
            _words(vocabulary),
            "## Licence and limits\n",
            "The weights keep the licence and the limits of the model and the data that they come from: name them "
            "here.\n",
        ]
    )


def _words(vocabulary: Vocabulary | None) -> str:
    if vocabulary is None:
        return "The model comes with no words of its own: give a vocabulary at each call.\n"
    lines = [
        f"The model comes with {count_of(len(vocabulary), 'object-part')} of "
        f"{count_of(len(vocabulary.objects), 'object')} (`vocabulary.json`); any others can be asked for.\n"
    ]
    for name in vocabulary.objects[:_LISTED]:
        lines.append(f"- {name}: {', '.join(pair.part for pair in vocabulary.object_parts if pair.object == name)}")
    if (more := len(vocabulary.objects) - _LISTED) > 0:
        lines.append(f"- and {count_of(more, 'more object')}")
    return "\n".join(lines) + "\n"
