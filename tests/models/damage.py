"""Ways to damage a model directory, for the tests of what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], Any]

CASES = int(os.environ.get("PARTCLIPSEG_FUZZ_CASES", "25"))
"""Examples of a test with any bytes."""

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605247071\n"
HTML = b"<!DOCTYPE html>\n<html><body>404</body></html>"
DEEP = "[" * 100_000 + "]" * 100_000

NOT_A_TABLE = {
    "absent bytes": (b"", "is empty"),
    "web page": (HTML, "is a web page"),
    "Git LFS pointer": (LFS, "git lfs pull"),
    "not JSON": (b"{]", "not valid JSON"),
    "cut": (b'{"model_type": "partc', "not valid JSON"),
    "not UTF-8": (b"\xff\xfe{}", "not valid JSON"),
    "zeros": (bytes(100), "not valid JSON"),
    "list": (b"[1, 2]", "must hold a JSON object, not list"),
    "null": (b"null", "must hold a JSON object, not NoneType"),
    "text": (b'"partclipseg"', "must hold a JSON object, not str"),
    "deep list": (DEEP.encode(), "nested too deeply"),
    "deep table": (('{"a":' * 100_000 + "1" + "}" * 100_000).encode(), "nested too deeply"),
    "digits": (b'{"reduce_dim": ' + b"9" * 5000 + b"}", "not valid JSON"),
}
"""What may stand in place of a JSON object -> content, words of the message."""

NO_VALUES: list[Any] = [None, "12", [], {}, [1, 2], float("nan"), float("inf"), True, -1, 0, 10**9, 10**30, 1.5]


def write(file: str, content: bytes) -> Damage:
    return lambda folder: (folder / file).write_bytes(content)


def configure(file: str = "config.json", **changes: Any) -> Damage:
    """Change entries of a JSON file, ``tower__name`` within a tower; ... removes one."""

    def damage(folder: Path) -> None:
        table = json.loads((folder / file).read_text())
        for key, value in changes.items():
            *towers, name = key.split("__")
            place = table
            for tower in towers:
                place = place[tower]
            if value is ...:
                del place[name]
            else:
                place[name] = value
        (folder / file).write_text(json.dumps(table))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], Any], metadata: Any = {"format": "pt"}) -> Damage:  # noqa: B006
    def damage(folder: Path) -> None:
        content = load_file(folder / "model.safetensors")
        change(content)
        save_file({k: v.contiguous() for k, v in content.items()}, folder / "model.safetensors", metadata=metadata)

    return damage


def cut(file: str, keep: Callable[[int], int]) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: keep(len(content))])

    return damage


def as_bin(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    """Weights in pytorch_model.bin, as old files of CLIPSeg have them."""

    def damage(folder: Path) -> None:
        content = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(change(content) or content, folder / "pytorch_model.bin")

    return damage


def sharded(change: Callable[[dict[str, Any]], Any], kept: Callable[[str], bool] = lambda name: True) -> Damage:
    """Weights in two files with an index, which `change` edits."""

    def damage(folder: Path) -> None:
        content = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        parts = {name: f"model-0000{1 + (index % 2)}-of-00002.safetensors" for index, name in enumerate(content)}
        for file in sorted(set(parts.values())):
            members = {name: content[name] for name in content if parts[name] == file and kept(name)}
            save_file(members, folder / file, metadata={"format": "pt"})
        index = {"metadata": {"total_size": 1}, "weight_map": parts}
        change(index)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def poison(value: float) -> Damage:
    def change(content: dict[str, torch.Tensor]) -> None:
        content["decoder.film.mul.weight"][0, 0] = value

    return tensors(change)


def drop(pattern: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(content: dict[str, torch.Tensor]) -> None:
        for name in [name for name in content if pattern in name]:
            del content[name]

    return change


def remove(*files: str) -> Damage:
    return lambda folder: [(folder / file).unlink() for file in files]


def directory_in_place(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return damage


def retokenize(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        table = json.loads((folder / "tokenizer.json").read_text())
        change(table)
        (folder / "tokenizer.json").write_text(json.dumps(table))

    return damage


def grow_vocabulary(table: dict[str, Any]) -> None:
    table["model"]["vocab"].update({f"more{index}": 600 + index for index in range(5)})


def lose_special_tokens(table: dict[str, Any]) -> None:
    table["added_tokens"] = []
    table["model"]["vocab"]["lost"] = table["model"]["vocab"].pop("<|endoftext|>")


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` cut, or with some bytes changed, put in or taken out; early bytes, which are headers, more often."""
    if draw(st.integers(0, 4)) == 0:
        return content[: draw(st.integers(0, len(content)))]
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.one_of(st.integers(0, min(4000, len(changed) - 1)), st.integers(0, len(changed) - 1)))
        piece = draw(
            st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from([b"[", b"}", b'"', b"-", b"9", b"null"]))
        )
        length = draw(st.sampled_from([0, 1, len(piece)]))
        changed[place : place + length] = piece
    return bytes(changed)
