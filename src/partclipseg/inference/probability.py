"""Probabilities of single classes at every pixel of a photo, computed when they are asked for."""

from __future__ import annotations

from functools import cached_property
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

    def __init__(self, model: PartModel, photo: np.ndarray, words: Words, size: tuple[int, int]) -> None:
        """Use the photo uint8 `[h, w, 3]` as the model takes it; `size` is the (H, W) of the maps."""
        self._model, self._photo, self._words, self._size = model, photo, words, size

    @cached_property
    def logits(self) -> torch.Tensor:
        """Logits of the classes at the decoder's size, float32 `[N_c, h, w]` on the CPU."""
        with torch.inference_mode():
            output = self._model(self._model.prepare([self._photo]), self._words)
        return output.object_part_logits[0, :-1].float().cpu()

    def __call__(self, index: int) -> np.ndarray:
        """Return the probability of a class, float32 `[H, W]`, 0 to 1."""
        with torch.inference_mode():
            return upsample(self.logits[index][None], self._size)[0].sigmoid().numpy()

    def __getstate__(self) -> dict[str, Any]:
        return {"logits": self.logits, "_size": self._size}
