"""Runs that are stopped, repeated, and fail in part."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from partclipseg.data.prepare.recipe import Layout, Outcome, source_state
from partclipseg.data.prepare.runner import JOURNAL, prepare
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import locked
from partclipseg.kept_files import KeptFiles

DIES_AT = "PARTCLIPSEG_TEST_DIES_AT"
"""Name of the variable with the key of the photo at which a process kills itself."""


@dataclass(frozen=True)
class WriteJob:
    """Writes its key, and counts how often it did."""

    key: str
    sources: tuple[Path | str | int, ...] = ()
    text: str = ""

    def source(self) -> str:
        """See `PrepareJob.source`."""
        return source_state(*self.sources)

    def run(self, layout: Layout) -> Outcome:
        """See `PrepareJob.run`."""
        if self.key == "bad":
            raise PartCLIPSegError("bad.jpg is broken")
        if self.key in {"dead", os.environ.get(DIES_AT)}:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(layout.folder.parent / "log", "a") as log:
            log.write(self.key + "\n")
        if self.key == "empty" or self.text == "nothing":
            return Outcome(self.key, "train")
        layout.write_text(self.key + self.text, f"{self.key}.txt")
        return Outcome(self.key, "train", parts=[len(self.key)], unknown=["tip"])


@dataclass(frozen=True)
class WriteRecipe:
    """See `LayoutRecipe`."""

    keys: tuple[str, ...]
    option: str = "a"
    name: str = "test"
    sources: tuple[Path | str | int, ...] = ()
    text: str = ""

    def options(self) -> dict[str, str]:
        """One."""
        return {"option": self.option}

    def jobs(self) -> list[WriteJob]:
        """One for each key."""
        return [WriteJob(key, self.sources, self.text) for key in self.keys]

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Write the keys."""
        lists.text("list.json", json.dumps([outcome.key for outcome in outcomes]))


def log(output: Path) -> list[str]:
    path = output.parent / "log"
    return path.read_text().split() if path.is_file() else []


def test_a_finished_run_is_taken_over(tmp_path):
    output = tmp_path / "out"
    steps: list[tuple[int, int]] = []
    first = prepare(WriteRecipe(("b", "a", "empty")), output, progress=lambda *step: steps.append(step))
    assert (dict(first.photos), first.taken_over, first.left_out) == ({"train": 2}, 0, 1)
    assert (first.parts, dict(first.unknown), first.failures) == (frozenset({1}), {"tip": 2}, ())
    assert steps == [(1, 3), (2, 3), (3, 3)]
    second = prepare(WriteRecipe(("b", "a", "empty")), output)
    assert (second.photos, second.taken_over, second.left_out) == (first.photos, 3, 1)
    assert log(output) == ["a", "b", "empty"]
    assert json.loads((output / "list.json").read_text()) == ["a", "b"]


def test_workers_give_the_same(tmp_path):
    keys = tuple(f"k{i}" for i in range(40))
    alone, together = (prepare(WriteRecipe(keys), tmp_path / f"w{w}", workers=w) for w in (1, 2))
    assert alone == together
    journals = [re.sub(rb'"modified": \d+', b"", (tmp_path / f"w{w}" / JOURNAL).read_bytes()) for w in (1, 2)]
    assert journals[0] == journals[1]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_file_that_is_gone_or_cut_is_made_again(tmp_path, damage):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b")), output)
    if damage == "missing":
        (output / "a.txt").unlink()
    else:
        (output / "a.txt").write_text("")
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 1
    assert (output / "a.txt").read_text() == "a"
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 2


def mended(path: Path) -> Path:
    path.write_text("new")
    return path


def of_another_time(path: Path) -> Path:
    os.utime(path, ns=(1, 1))
    return path


def moved(path: Path) -> Path:
    (path.parent / "there").mkdir()
    return path.rename(path.parent / "there" / path.name)


def renamed(path: Path) -> Path:
    return path.rename(path.with_name("other.mat"))


def removed(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("change", "again"),
    [(mended, True), (of_another_time, True), (renamed, True), (removed, True), (moved, False), (Path.absolute, False)],
)
def test_a_photo_whose_source_has_changed_is_prepared_again(tmp_path, change, again):
    output, source = tmp_path / "out", tmp_path / "a.mat"
    source.write_text("annotation")
    prepare(WriteRecipe(("a",), sources=(source, "train", 1)), output)
    recipe = WriteRecipe(("a",), sources=(change(source), "train", 1))
    second = prepare(recipe, output)
    assert (second.taken_over, second.changed) == (1 - again, again)
    assert log(output) == ["a", "a"][: 1 + again]
    third = prepare(recipe, output)
    assert (third.taken_over, third.changed) == (1, 0)


def in_place(path: Path) -> None:
    path.write_text("X" * path.stat().st_size)


def longer(path: Path) -> None:
    path.write_text("corrected by hand")


def with_its_time(path: Path) -> None:
    status = path.stat()
    path.write_text("corrected by hand")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", ["a.txt", "list.json"])
@pytest.mark.parametrize("edit", [in_place, longer, with_its_time])
@pytest.mark.parametrize("again", ["the same", "other sources", "another file deleted", "other content"])
def test_what_a_person_changed_is_kept_and_said_until_it_is_to_be_replaced(tmp_path, name, edit, again):
    output, recipe = tmp_path / "out", WriteRecipe(("a", "b"), sources=(1,))
    assert prepare(recipe, output).kept == ()
    written = (output / name).read_bytes()
    edit(output / name)
    corrected = (output / name).read_bytes()
    if again == "other sources":
        recipe = replace(recipe, sources=(2,))
    elif again == "another file deleted":
        (output / "b.txt").unlink()
    elif again == "other content":
        recipe = replace(recipe, sources=(2,), text="!", keys=("a", "b", "c"))
    for _ in range(2):
        assert prepare(recipe, output).kept == (name,)
        assert (output / name).read_bytes() == corrected
    assert (output / "b.txt").read_text() == "b" + recipe.text
    assert prepare(recipe, output, overwrite=True).kept == ()
    if again == "other content":
        written = b"a!" if name == "a.txt" else b'["a", "b", "c"]'
    assert (output / name).read_bytes() == written
    assert prepare(recipe, output).kept == ()


@pytest.mark.parametrize("edit", [in_place, longer])
def test_what_a_person_changed_is_kept_in_a_folder_of_an_earlier_release(tmp_path, edit):
    """Its journal has the sizes of the files alone."""
    output, recipe = tmp_path / "out", WriteRecipe(("a", "b"), sources=(1,))
    prepare(recipe, output)
    head, *lines = map(json.loads, (output / JOURNAL).read_text().splitlines())
    lines = [
        {key: value for key, value in line.items() if key != "kept"}
        | {"files": {name: state["bytes"] for name, state in line["files"].items()}}
        for line in lines
    ]
    (output / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)))
    assert prepare(recipe, output).taken_over == 2
    edit(output / "a.txt")
    corrected = (output / "a.txt").read_bytes()
    assert prepare(replace(recipe, sources=(2,)), output).kept == ("a.txt",)
    assert (output / "a.txt").read_bytes() == corrected


def test_a_killed_run_finds_its_own_file_again(tmp_path):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b")), output)
    lines = (output / JOURNAL).read_text().splitlines(keepends=True)
    (output / JOURNAL).write_text("".join(lines[:-1]))  # killed between the file and its line
    assert prepare(WriteRecipe(("a", "b")), output).kept == ()


def test_a_copied_layout_is_taken_over(tmp_path):
    prepare(WriteRecipe(("a", "b")), tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    assert prepare(WriteRecipe(("a", "b")), tmp_path / "copy").taken_over == 2


def test_photos_that_are_gone_from_the_source_are_named_and_kept(tmp_path):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b")), output)
    assert prepare(WriteRecipe(("b",)), output).gone == ("a",)
    assert (output / "a.txt").read_text() == "a"


def test_a_file_that_a_photo_no_longer_has_is_deleted_unless_a_person_changed_it(tmp_path):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b"), sources=(1,)), output)
    (output / "b.txt").write_text("mine")
    summary = prepare(WriteRecipe(("a", "b"), sources=(2,), text="nothing"), output)
    assert (summary.kept, sorted(path.name for path in output.glob("*.txt"))) == (("b.txt",), ["b.txt"])


def test_a_journal_without_the_state_of_sources_is_taken_over(tmp_path):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a",), sources=(1,)), output)
    head, line = map(json.loads, (output / JOURNAL).read_text().splitlines())
    del line["source"]
    (output / JOURNAL).write_text(f"{json.dumps(head)}\n{json.dumps(line)}\n")
    assert prepare(WriteRecipe(("a",), sources=(2,)), output).taken_over == 1


def test_two_runs_at_once_are_refused(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    with locked(output), pytest.raises(PartCLIPSegError, match=r"another run is writing to .*out: wait for it"):
        prepare(WriteRecipe(("a",)), output)
    assert prepare(WriteRecipe(("a",)), output).photos["train"] == 1


def test_a_journal_that_breaks_off_costs_one_photo(tmp_path):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b")), output)
    journal = (output / JOURNAL).read_bytes()
    (output / JOURNAL).write_bytes(journal[:-20])
    (output / ".partclipseg-99999999-0123abcd.tmp.txt").touch()
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 1
    assert re.sub(rb"[0-9]{10,}", b"", (output / JOURNAL).read_bytes()) == re.sub(rb"[0-9]{10,}", b"", journal)
    assert not list(output.glob(".*.tmp*"))


@pytest.mark.parametrize(
    "line",
    [
        '{"key": "a", "spl',
        "[1]",
        "7",
        '{"other": 1}',
        '{"key": "a", "split": "train", "new": 0}',
        '{"key": ["a"], "split": "train"}',
        '{"key": "a", "split": null, "files": {"a.txt": 1}}',
        '{"key": "a", "split": "train", "files": ["a.txt"]}',
        '{"key": "a", "split": "train", "files": {"a.txt": 1}, "kept": 1}',
        '{"key": "a", "split": "train", "files": {"a.txt": 1}, "parts": [[1]]}',
        "",
    ],
)
def test_a_damaged_line_of_the_journal_costs_one_photo(tmp_path, line):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b")), output)
    head, _, second = (output / JOURNAL).read_text().splitlines()
    (output / JOURNAL).write_text("\n".join([head, line, second]) + "\n")
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 1
    assert log(output) == ["a", "b", "a"]
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 2


def test_a_folder_of_an_earlier_release_goes_on(tmp_path):
    """Its journal escapes every letter that is not ASCII."""
    output = tmp_path / "out"
    first = prepare(WriteRecipe(("ä", "b")), output)
    lines = [json.loads(line) for line in (output / JOURNAL).read_text(encoding="utf-8").splitlines()]
    (output / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")
    second = prepare(WriteRecipe(("ä", "b")), output)
    assert (second.photos, second.taken_over) == (first.photos, 2)


def test_failures_are_named_and_tried_again(tmp_path):
    output = tmp_path / "out"
    summary = prepare(WriteRecipe(("a", "bad", "c")), output)
    assert summary.failures == ("bad.jpg is broken",)
    assert summary.photos["train"] == 2
    assert prepare(WriteRecipe(("a", "bad", "c")), output).failures == ("bad.jpg is broken",)
    assert log(output) == ["a", "c"]


def test_a_killed_run_goes_on(tmp_path):
    output = tmp_path / "out"
    keys = tuple(f"k{i}" for i in range(6))
    command = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_prepare_runner import WriteRecipe, prepare\n"
        f"prepare(WriteRecipe({keys!r}), Path({str(output)!r}))"
    )
    killed = subprocess.run([sys.executable, "-c", command], env={**os.environ, DIES_AT: "k3"})
    assert killed.returncode == -signal.SIGKILL
    assert log(output) == ["k0", "k1", "k2"]
    assert prepare(WriteRecipe(keys), output).taken_over == 3
    assert json.loads((output / "list.json").read_text()) == list(keys)
    assert sorted(set(log(output))) == list(keys)


def test_a_dead_worker_is_an_error_that_says_how_to_go_on(tmp_path):
    with pytest.raises(PartCLIPSegError, match="run again"):
        prepare(WriteRecipe(("a", "dead")), tmp_path / "out", workers=2)


@pytest.mark.parametrize("change", [{"option": "b"}, {"name": "other"}])
def test_a_run_with_other_options_is_refused(tmp_path, change):
    prepare(WriteRecipe(("a",)), tmp_path)
    with pytest.raises(UsageError, match="another split"):
        prepare(WriteRecipe(("a",), **change), tmp_path)


def test_an_output_with_other_things_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        prepare(WriteRecipe(("a",)), tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        prepare(WriteRecipe(("a",)), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(PartCLIPSegError, match="no photo"):
        prepare(WriteRecipe(()), tmp_path / "out")


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_photos_are_placed(tmp_path, mode):
    source = tmp_path / "a.jpg"
    source.write_bytes(b"photo")
    layout = Layout(tmp_path / "out")
    layout.place_photo(source, "a.jpg", mode)
    assert (tmp_path / "out/a.jpg").read_bytes() == b"photo"
    assert (tmp_path / "out/a.jpg").samefile(source) == (mode == "link")
    with pytest.raises(PartCLIPSegError, match=r"missing\.jpg"):
        layout.place_photo(tmp_path / "missing.jpg", "b.jpg", mode)
