"""Digest of a loaded model, to find out whether saved work was made by the same one."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

import torch


def model_fingerprint(model: Any) -> str:
    """Compute a digest of a model's weights and configuration: 32 hexadecimal digits."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    config = {k: v for k, v in model.config.to_dict().items() if k not in {"_name_or_path", "transformers_version"}}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    return digest.hexdigest()
