"""Requests that the tests of the HTTP API share."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

URL = "/v1/segment"
WORDS = "dog: ear, head; bus: wheel"


def picture(width: int = 60, height: int = 40, seed: int = 0, form: str = "PNG") -> bytes:
    """A file of coarse random colours."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, form)
    return buffer.getvalue()


def post(client, photo: bytes, headers=None, **fields):
    return client.post(URL, files={"photo": ("scene.png", photo)}, data=fields, headers=headers)
