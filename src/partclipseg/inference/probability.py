"""Probabilities of single classes at every pixel of a photo, computed when they are asked for."""

from __future__ import annotations

from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch

from partclipseg.maps.upsample import upsample
from partclipseg.models.interface import PartModel, Words


class Probabilities:
    """The probability of each class at every pixel of one photo.

    Label maps are found without decoding every class, so the first call runs the model again, with all classes; their
    logits are then kept. A pickled object has the logits and no model.
    """

    _turn = Lock()
    """Held while the model runs, since files of several photos are made in threads, and memory is for one batch."""

    def __init__(
        self,
        model: PartModel,
        photo: np.ndarray,
        words: Words | None,
        anywhere: torch.Tensor | None,
        size: tuple[int, int],
    ) -> None:
        """Make the probabilities of a photo, uint8 `[h, w, 3]` as the model takes it; `size` is the (H, W) of the maps.

        `words` are the object-parts and `anywhere` the embeddings of the words without an object; None: there are none.
        """
        self._model, self._photo, self._words, self._anywhere, self._size = model, photo, words, anywhere, size

    @cached_property
    def logits(self) -> torch.Tensor:
        """Logits of the classes at the decoder's size, float32 `[N_c, h, w]` on the CPU."""
        with self._turn, torch.inference_mode():
            inputs, logits = self._model.prepare([self._photo]), []
            if self._words is not None:
                count = len(self._words.class_to_object)
                logits.append(self._model(inputs, self._words).object_part_logits[0, :count])
            if self._anywhere is not None:
                count = self._model.num_words(self._anywhere)
                logits.append(self._model.part_word_logits(inputs, self._anywhere)[0, :count])
        return torch.cat([some.float().cpu() for some in logits])

    def __call__(self, index: int) -> np.ndarray:
        """Return the probability of a class, float32 `[H, W]`, 0 to 1."""
        with torch.inference_mode():
            return upsample(self.logits[index][None], self._size)[0].sigmoid().numpy()

    def __getstate__(self) -> dict[str, Any]:
        return {"logits": self.logits, "_size": self._size}
