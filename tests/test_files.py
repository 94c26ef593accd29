"""Files that are whole or absent, locks, and sentences for what the system refuses."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import (
    full_path,
    is_directory,
    is_file,
    locked,
    refusal,
    remove_temporary,
    same_path,
    temporary_path,
    whole_directory,
    whole_file,
    write_text,
)
from partclipseg.journal import Journal


def test_a_file_of_the_longest_name_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / f"{'长' * 80}.abcdef.json"
    write_text(path, "{}", durable=True)
    assert path.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), whole_file(path) as temporary:
        temporary.write_text((tmp_path / "none").read_text())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("/nowhere/x"), "it is a link that leads nowhere): move away what is there"),
        (lambda path: path.symlink_to(path.name), "it is a link that leads nowhere"),
        (os.mkfifo, "it is no regular file): move away what is there, or name another path"),
        (lambda path: path.symlink_to("/dev/null"), "it is no regular file"),
        (Path.mkdir, "a folder stands where a file should be"),
    ],
    ids=["dangling link", "circle", "pipe", "device", "folder"],
)
def test_what_is_no_file_is_neither_read_nor_replaced(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "a.jsonl"
    make(path)
    kind = path.lstat().st_mode
    ways: tuple[Callable[[], object], ...] = (
        lambda: write_text(path, "x"),
        lambda: Journal(path).read(),
        lambda: Journal(path).append([{}]),
        lambda: Journal(path).rewrite([]),
    )
    for way in ways:
        with pytest.raises(OSError, match=re.escape(str(path))) as caught:
            way()
        assert refusal(caught.value).startswith(f"{path} cannot be read or written (")
        assert reason in refusal(caught.value)
    assert path.lstat().st_mode == kind
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_there_at_every_moment(tmp_path: Path) -> None:
    """A second process looks all the time while the directory is replaced two hundred times."""
    path = tmp_path / "best"
    path.mkdir()
    (path / "x").write_text("0")
    watch = (
        "import sys, pathlib\n"
        "path, stop = map(pathlib.Path, sys.argv[1:])\n"
        "print('ready', flush=True)\n"
        "missing = 0\n"
        "while not stop.exists(): missing += not (path / 'x').exists()\n"
        "print(missing)"
    )
    stop = tmp_path / "stop"
    watcher = subprocess.Popen([sys.executable, "-c", watch, path, stop], stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    watcher.stdout.readline()
    for number in range(200):
        with whole_directory(path) as unfinished:
            (unfinished / "x").write_text(str(number))
    stop.touch()
    missing, _ = watcher.communicate(timeout=60)
    assert missing.strip() == "0" or not sys.platform.startswith("linux")
    assert (path / "x").read_text() == "199"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["best", "stop"]


FOUND: dict[str, Callable[[Path], object]] = {
    "dangling link": lambda path: path.symlink_to("/nowhere/x"),
    "circle": lambda path: path.symlink_to(path.name),
    "file": lambda path: path.write_text("mine"),
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir() or (path / "x").write_text("mine"),
    "linked folder": lambda path: path.symlink_to(path.parent),
}


@pytest.mark.parametrize("meanwhile", [False, True])
@pytest.mark.parametrize("kind", FOUND)
def test_a_new_directory_replaces_nothing(tmp_path: Path, kind: str, meanwhile: bool) -> None:
    path = tmp_path / "model"
    if not meanwhile:
        FOUND[kind](path)

    def write() -> None:
        with whole_directory(path, new=True) as unfinished:
            (unfinished / "x").write_text("new")
            FOUND[kind](path)

    with pytest.raises(UsageError, match="made by another program meanwhile" if meanwhile else "exists already"):
        write()
    assert not path.is_file() or path.read_text() == "mine"
    assert kind != "folder" or (path / "x").read_text() == "mine"
    assert path.is_symlink() == (kind in {"dangling link", "circle", "linked folder"})
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_directory_stays_when_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk/best").mkdir(parents=True)
    path = tmp_path / "best"
    path.symlink_to("disk/best")
    with whole_directory(path) as unfinished:
        (unfinished / "x").write_text("new")
    assert path.is_symlink()
    assert (tmp_path / "disk/best/x").read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["best", "best", "disk", "x"]


@pytest.mark.parametrize("name", [".a.123.tmp.json", "draft.tmp", ".partclipseg.tmp", ".partclipseg-1.tmp", "x.json"])
def test_only_temporary_files_of_processes_that_are_gone_are_removed(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "labelme" / name
    theirs.parent.mkdir()
    theirs.write_text("a person's")
    in_use = temporary_path(theirs.with_name("a.json"))
    in_use.write_text("half")
    dead = theirs.with_name(re.sub(r"-\d+-", "-99999999-", in_use.name))
    dead.write_text("half")
    folder = tmp_path / re.sub(r"-\d+-", "-99999999-", temporary_path(tmp_path / "model").name)
    folder.mkdir()
    remove_temporary(tmp_path)
    assert theirs.read_text() == "a person's"
    assert in_use.exists()
    assert not dead.exists()
    assert not folder.exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the table of processes in /proc")
def test_a_process_that_has_ended_unnoticed_is_gone(tmp_path: Path) -> None:
    """Its parent, such as the first process of a container, may take notice late."""
    ended = subprocess.Popen(["true"])
    while Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    left = tmp_path / f".partclipseg-{ended.pid}-00000000.tmp.png"
    left.touch()
    remove_temporary(tmp_path)
    assert not left.exists()
    ended.wait()


def test_a_locked_folder_is_refused_to_others(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(PartCLIPSegError, match="another run is writing"), locked(tmp_path):
        pass
    with locked(tmp_path):  # free again
        pass


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "can be written to"),
        (errno.EACCES, "permissions"),
        (errno.EISDIR, "a folder stands where a file should be"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EIO, "check the path and the disk"),
    ],
)
def test_a_refusal_names_path_and_remedy(number: int, words: str) -> None:
    named = refusal(OSError(number, "reason", "/photos/a.json"))
    assert "/photos/a.json" in named
    assert words in named
    assert "/other" in refusal(OSError(number, "reason"), Path("/other"))


def test_a_journal_keeps_what_was_appended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.jsonl")
    assert journal.read() == []
    journal.append([{"a": 1}, {"a": "line\u2028end"}])
    journal.append([{"a": "\udcff"}])
    with journal.path.open("ab") as file:
        file.write(b'{"a": 4')  # killed here
    assert [entry["a"] for entry in journal.read()] == [1, "line\u2028end", "\udcff"]
    journal.append([{"a": 5}])
    assert [entry["a"] for entry in journal.read()] == [1, "line\u2028end", "\udcff", 5]
    journal.rewrite([{"a": 6}])
    assert journal.read() == [{"a": 6}]


@pytest.mark.parametrize(
    ("content", "own"),
    [
        (None, True),
        (b"", True),
        (b'{"photo', True),  # killed here
        (b'{"photo": "a.jpg"}\n', True),
        (b'{"audio": "a.wav"}\n{"audio": "b.wav"}', False),
        (b"by hand", False),
        (b"\0" * 20, False),
    ],
)
def test_a_journal_of_another_program_is_told_and_left_alone(tmp_path: Path, content: bytes | None, own: bool) -> None:
    path = tmp_path / "manifest.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert Journal(path).begins_with("photo") == own
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize("line", [b"\0" * 20, b"[1]", b"not json", b"{}}", b"[" * 100_000, b"\xff\xfe", b""])
def test_a_damaged_line_is_named_or_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    journal = Journal(path, "delete it: the labels are kept")
    with pytest.raises(PartCLIPSegError, match=r"manifest\.jsonl is damaged at line 2: delete it: the labels are kept"):
        journal.read()
    assert journal.read("skip") == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize(
    "text",
    ["", "x" * 300, "x" * 100_000, "a\0b", "dog: ear\ncat: tail", "a/" * 3000, "\udc80", "~", "no such file"],
)
def test_text_that_is_no_path_is_neither_file_nor_directory(text: str):
    assert not is_file(text)
    assert not is_directory(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a", "a/", True),
        ("a", "./b/../a", True),
        ("a", "{here}/a", True),
        ("a", "link", True),
        ("a/f.json", "link/f.json", True),
        ("a", "b", False),
        ("a/f.json", "b/f.json", False),
        ("owner/name", "owner/name/", False),
        ("a", None, False),
        (1, 1, False),
        ("\0", "a", False),
        ("", "", False),
    ],
)
def test_spellings_of_a_path(one: object, other: object, same: bool, tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.json").write_text("{}")
    (tmp_path / "link").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    other = other.format(here=tmp_path) if isinstance(other, str) else other
    assert same_path(one, other) == same_path(other, one) == same
    names = ("a/", "link", "a/f.json", "owner/name", "\0", "")
    here = str(tmp_path)
    assert [full_path(name) for name in names] == [
        f"{here}/a", f"{here}/link", f"{here}/a/f.json", "owner/name", "\0", ""
    ]  # fmt: skip


def test_files_and_directories_are_told_apart(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("a")
    assert (is_file(file), is_directory(str(file))) == (True, False)
    assert (is_file(str(tmp_path)), is_directory(tmp_path)) == (False, True)
