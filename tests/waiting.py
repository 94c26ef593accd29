"""Watch for operations that wait for a GPU, on the CPU: a CUDA graph cannot contain them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, uint8
from torch import bool as boolean
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "argwhere", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "masked_select", "bincount", "histc",
    "prod", "cumprod", "lift_fresh",
}  # fmt: skip
"""Operations whose result, or its size, depends on values. The gradient of a product looks for zeros; `lift_fresh`
copies Python's numbers to the device."""


class NoWaiting(TorchDispatchMode):
    """Refuses operations that wait for the device, in the forward and the backward pass."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (boolean, uint8) for index in args[1]
        )
        by_counts = name == "repeat_interleave" and isinstance(args[-1], Tensor)
        if name in WAITING or by_mask or by_counts:
            raise AssertionError(f"{func} was called, which waits for the device")
        return func(*args, **(kwargs or {}))
