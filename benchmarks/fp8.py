"""Products of the photo tower in FP8 beside bfloat16, on a GPU with FP8 units (NVIDIA since 2022).

    python benchmarks/fp8.py > fp8.json

Milliseconds of the four kinds of products of CLIP ViT-B/16 for a batch of 32 photos of 352x352 pixels, medians of 50:
in bfloat16; in FP8 (e4m3) with a scale for each output channel and each token; that with the rounding of the
activations by a compiled function; and the rounding alone.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from measure import environment

ROWS = 32 * 485
"""Number of tokens of a batch: 22 x 22 patches and one more, of 32 photos."""
SIZES = ((768, 2304), (768, 768), (768, 3072), (3072, 768))
"""Inputs and outputs of a block's products: queries with keys and values, projection, and the two of the MLP."""
GREATEST = torch.finfo(torch.float8_e4m3fn).max
"""Greatest number of the type."""


def to_fp8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of `rows [M, K]` to FP8 by its greatest magnitude; return them and the scales `[M, 1]`."""
    scale = rows.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / GREATEST
    return (rows.float() / scale).to(torch.float8_e4m3fn), scale


def milliseconds(call: Callable[[], object], rounds: int = 50) -> float:
    """Return the median of `rounds`, by the GPU's own clock, after ten to warm up."""
    for _ in range(10):
        call()
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return round(statistics.median(times), 4)


def product_times(inputs: int, outputs: int, round_rows: Callable[[Tensor], tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return the milliseconds of a product of `ROWS` rows; `round_rows` is `to_fp8`, compiled."""
    x = torch.randn(ROWS, inputs, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) / inputs**0.5
    bias = torch.zeros(outputs, device="cuda", dtype=torch.bfloat16)
    rounded, scale = to_fp8(weight)
    scale, given = scale.T.contiguous(), to_fp8(x)
    multiply: Any = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage] - PyTorch has no other

    def product(rows: Tensor, of_rows: Tensor) -> Tensor:
        types = {"out_dtype": torch.bfloat16, "use_fast_accum": True}
        return multiply(rows, rounded.t(), scale_a=of_rows, scale_b=scale, bias=bias, **types)

    return {
        "bfloat16": milliseconds(lambda: F.linear(x, weight, bias)),
        "FP8": milliseconds(lambda: product(*given)),
        "FP8 with rounding, compiled": milliseconds(lambda: product(*round_rows(x))),
        "rounding, compiled": milliseconds(lambda: round_rows(x)),
    }


@torch.inference_mode()
def main() -> None:
    """Measure every product and print the figures as JSON."""
    compiled = torch.compile(to_fp8)
    times = {f"{inputs} to {outputs}": product_times(inputs, outputs, compiled) for inputs, outputs in SIZES}
    print(json.dumps({"environment": environment("cuda"), "rows": ROWS, "milliseconds": times}, indent=1))


if __name__ == "__main__":
    main()
