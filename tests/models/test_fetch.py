"""Models by name, against a server on this machine: fetched once, checked, and every failure with its sentence."""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import json
import logging
import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
import urllib3
from PIL import Image
from tests.conftest import small_config
from tests.models.hosts import (
    DRIVE_ID,
    Hosts,
    leftovers,
    redirect,
    released_file,
    tokenizer_on_hub,
)
from tests.models.partcatseg.small import build
from tests.models.partcatseg.small import small_config as small_catseg
from tests.models.partcatseg.test_foreign import released as catseg_tensors

from partclipseg import PartSegmenter
from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.models import download
from partclipseg.models.fetch import add, fetch, find_model, remove
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.registry import load_model
from partclipseg.models.released import catalogue, find_release, home

NAME = "partclipseg-pascal"


def test_predict_from_an_empty_cache(hosts: Hosts, cache: Path, content: bytes, capsys: Any, caplog: Any):
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save("photo.jpg")
    call = ["predict", "photo.jpg", "--vocabulary", "dog: ear, tail; bus: wheel", "--model", NAME]
    assert main(call) == 0
    size = f"about {len(content) / 1e6:,.3g} MB"
    fetching = [record.getMessage() for record in caplog.records if record.getMessage().startswith("fetching")]
    assert fetching == [f"fetching {NAME}, {size}, from https://drive.google.com/file/d/{DRIVE_ID}/view, to {cache}"]
    assert hashlib.sha256(content).hexdigest() in caplog.text
    assert list(Path("parts").glob("photo*"))
    assert leftovers(cache) == []  # the original is deleted
    asked = len(hosts.asked)
    assert main([*call, "--overwrite"]) == 0
    assert len(hosts.asked) == asked, "nothing is fetched a second time"
    capsys.readouterr()
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert [line.split()[-1] for line in table.splitlines() if line.strip().startswith(f"{NAME} ")] == ["yes"]
    assert str(cache) in table


def test_the_catalogue_says_what_is_known(cache: Path, capsys: Any):
    (cache / "models.json").unlink()
    names = {
        *("partshapes", "clipseg", NAME, "partclipseg-ade20k", "clipseg-pascal", "clipseg-ade20k"),
        *("clipseg-pascal-16shot", "clipseg-ade20k-16shot", "clipseg-ade20k-cross"),
        *("partcatseg-pascal", "partcatseg-ade20k", "partcatseg-partimagenet", "catseg-pascal", "catseg-ade20k"),
    }
    assert catalogue().keys() == names
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in names)
    assert "no licence file" in said
    row = next(line for line in said.splitlines() if line.startswith("clipseg-pascal "))
    assert row.split() == ["clipseg-pascal", "clipseg-baseline", "Pascal-Part-116", "unknown", "no"]
    row = next(line for line in said.splitlines() if line.startswith("clipseg-pascal-16shot "))
    assert row.endswith("  no    16 photos of each object")
    assert "Pascal-Part-116: parts of animals" in said


def test_keep_remove_and_the_checksum(hosts: Hosts, cache: Path, content: bytes, capsys: Any):
    assert main(["models", "--fetch", NAME, "--keep-original"]) == 0
    digest = hashlib.sha256(content).hexdigest()
    assert digest in capsys.readouterr().out
    release = find_release(NAME)
    assert release.original.read_bytes() == content
    assert json.loads((release.directory / "origin.json").read_text())["sha256"] == digest
    assert main(["models", "--remove", NAME]) == 0
    assert not release.directory.exists()
    assert not release.original.exists()
    # Another file under the same id is not taken without a word.
    hosts.drive[DRIVE_ID] = released_file(small_config(), seed=1)
    with pytest.raises(PartCLIPSegError, match=f"another one than at the first fetch .*then {digest}.*accept-changed"):
        fetch(NAME)
    assert leftovers(cache) == []
    assert main(["models", "--fetch", NAME, "--accept-changed"]) == 0


def test_a_file_fetched_by_hand(hosts: Hosts, cache: Path, content: bytes, tmp_path: Path):
    path = tmp_path / "by hand.pth"
    path.write_bytes(content)
    assert main(["models", "--add", NAME, str(path)]) == 0
    assert path.read_bytes() == content
    assert find_model(NAME) == find_release(NAME).directory
    assert not any("/uc" in request for request, _ in hosts.asked)
    with pytest.raises(UsageError, match=f"here already: give `partclipseg models --remove {NAME}`"):
        add(NAME, path)


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def another() -> bytes:
    return released_file(small_config(reduce_dim=12))


TROUBLES: dict[str, tuple[Callable[[Hosts], None], str]] = {
    "quota": (
        lambda hosts: setattr(hosts, "trouble", "quota"),
        r"does not give the file .*\(Too many users have viewed .*\): try again in a day, or fetch the file by hand "
        rf"from https://drive.google.com/file/d/{DRIVE_ID}/view, then give `partclipseg models --add {NAME} FILE.pth`",
    ),
    "confirmation page for ever": (
        lambda hosts: setattr(hosts, "trouble", "confirmation"),
        "gives a page in place of the file",
    ),
    "page under the file's name": (
        lambda hosts: setattr(hosts, "trouble", "page"),
        "is not kept: .* is a web page in place",
    ),
    "busy": (lambda hosts: setattr(hosts, "trouble", "busy"), "answers 503 .*try again later"),
    "deleted": (lambda hosts: hosts.drive.clear(), "has no file .*moved or deleted.*kaist-cvml/part-clipseg"),
    "too long": (lambda hosts: hosts.drive.update({DRIVE_ID: bytes(10**6)}), "has 1 MB, and the file of .* has about"),
    "too short": (lambda hosts: hosts.drive.update({DRIVE_ID: b"short"}), "is another file, or cut off"),
    "stops": (
        lambda hosts: setattr(hosts, "trouble", "stops"),
        "the download of .* broke off at 0 MB: give the same command again",
    ),
    "damaged": (
        lambda hosts: hosts.drive.update({DRIVE_ID: damaged(hosts.drive[DRIVE_ID])}),
        "that was fetched for .* is not kept: .*(damaged|not a readable)",
    ),
    "another checkpoint": (
        lambda hosts: hosts.drive.update({DRIVE_ID: another()}),
        "that was fetched for .* is not kept: .* does not fit the model",
    ),
    "no tokenizer on the hub": (
        lambda hosts: hosts.hub.clear(),
        "CLIP's tokenizer is not here, and .* by hand, .*, also fetch the file by hand from https://drive.google.com",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_what_goes_wrong_is_said_and_mended(
    name: str, hosts: Hosts, cache: Path, content: bytes, tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(download, "PATIENCE", 0.3 if name.startswith("confirmation") else 20)
    prepare, message = TROUBLES[name]
    prepare(hosts)
    with pytest.raises(PartCLIPSegError, match=message) as caught:
        fetch(NAME)
    assert "\n" not in str(caught.value)
    assert not find_release(NAME).directory.exists(), "nothing wrong is kept"
    # Once the host is well again, the same call ends well.
    hosts.trouble, hosts.drive[DRIVE_ID] = None, content
    hosts.hub |= tokenizer_on_hub(tokenizer_directory)
    assert fetch(NAME) == find_release(NAME).directory
    assert leftovers(cache) == []


def test_a_broken_download_goes_on_where_it_broke(hosts: Hosts, cache: Path, content: bytes):
    hosts.trouble = "breaks"  # half of the rest each time

    def mend() -> None:
        while len([True for _, span in hosts.asked if span]) < 3:
            threading.Event().wait(0.01)
        hosts.trouble = None

    threading.Thread(target=mend, daemon=True).start()
    fetch(NAME)
    spans = [int(span.removeprefix("bytes=").removesuffix("-")) for _, span in hosts.asked if span]
    assert spans == sorted(spans)
    assert spans[0] > len(content) // 3


def test_no_network(cache: Path, tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    shutil.copytree(tokenizer_directory, cache / "tokenizer")
    redirect(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(PartCLIPSegError) as caught:
        fetch(NAME)
    assert str(caught.value) == (
        f"{NAME} is not here, and Google Drive cannot be reached: fetch the file by hand from "
        f"https://drive.google.com/file/d/{DRIVE_ID}/view, then give `partclipseg models --add {NAME} FILE.pth`"
    )
    with pytest.raises(PartCLIPSegError, match=r"hub cannot be reached: fetch config.json, .* --model"):
        fetch("clipseg")
    assert main(["predict", str(cache / "models.json"), "--model", NAME]) != 0


@pytest.mark.parametrize("name", [NAME, "clipseg"])
@pytest.mark.parametrize(
    "proxy", ["http://someone:secret@127.0.0.1:9", "http://secret:port", "ftp://secret", "secret proxy", " "]
)
def test_a_proxy_that_does_not_answer_is_named(
    name: str, proxy: str, cache: Path, tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(tokenizer_directory, cache / "tokenizer")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(PartCLIPSegError, match="the proxy that HTTPS_PROXY names does not let through") as caught:
        fetch(name)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [NAME, "clipseg"])
def test_a_proxy_that_is_no_address_is_named_with_an_older_urllib3(
    name: str, cache: Path, tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: Any, **kwargs: Any) -> Any:
        inner = http.client.InvalidURL("URL can't contain control characters. 'a proxy' (found at least ' ')")
        raise requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", inner))

    shutil.copytree(tokenizer_directory, cache / "tokenizer")
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", refuse)
    with pytest.raises(PartCLIPSegError, match=r"the proxy that .* names does not let through"):
        fetch(name)


@pytest.mark.parametrize(("name", "host"), [(NAME, "Google Drive"), ("clipseg", "the Hugging Face hub")])
def test_a_certificate_that_is_not_trusted_is_named(
    name: str, host: str, cache: Path, tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise requests.exceptions.SSLError("certificate verify failed: self-signed certificate")

    shutil.copytree(tokenizer_directory, cache / "tokenizer")
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", refuse)
    with pytest.raises(PartCLIPSegError, match=f"the certificate of {host} is not trusted here .REQUESTS_CA_BUNDLE"):
        fetch(name)


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example"])
def test_an_endpoint_that_is_no_address_is_named(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch):
    redirect(monkeypatch, endpoint)
    with pytest.raises(PartCLIPSegError, match="clipseg is not here, and HF_ENDPOINT names no address"):
        fetch("clipseg")


def test_without_the_hub_once_the_tokenizer_is_here(
    hosts: Hosts, cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
):
    fetch(NAME)
    redirect(monkeypatch, "http://127.0.0.1:9")
    Path("file.pth").write_bytes(content)
    config = {**small_config().to_dict(), "reference_object_lookup": True}
    Path("config.json").write_text(json.dumps(config))
    call = ["convert", "file.pth", "--output", "converted", "--vocabulary", "dog: ear", "--config", "config.json"]
    assert main(call) == 0
    assert {path.name for path in Path("converted").iterdir()} >= {"tokenizer.json", "model.safetensors"}
    remove(NAME)
    add(NAME, Path("file.pth"))
    assert PartSegmenter.from_pretrained(NAME).vocabulary is not None


def test_offline_mode_fetches_nothing(hosts: Hosts, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (NAME, "clipseg"):
        with pytest.raises(PartCLIPSegError, match="HF_HUB_OFFLINE says that nothing may be fetched: unset it, or"):
            fetch(name)
    assert hosts.asked == []


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk(hosts: Hosts, cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
        with pytest.raises(
            PartCLIPSegError, match=r"needs .* MB in .*0 MB are free: make room, or let PARTCLIPSEG_HOME"
        ):
            fetch(NAME)
    assert not any("/uc" in request for request, _ in hosts.asked), "said before the download"
    with monkeypatch.context() as full:  # filled by another program meanwhile

        def no_room(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full.setattr("gdown.download", no_room)
        with pytest.raises(PartCLIPSegError, match=r"No space left on device.*make room"):
            fetch(NAME)
    with monkeypatch.context() as full:
        full.setattr("transformers.PreTrainedModel.save_pretrained", no_room)
        with pytest.raises(PartCLIPSegError, match=r"No space left on device.*make room"):
            fetch(NAME)
    assert leftovers(cache) == [f"{NAME}.pth"], "what was fetched is not fetched again"
    hosts.drive.clear()
    fetch(NAME)


def test_a_cache_that_cannot_be_written_to(
    hosts: Hosts, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
):
    here = fetch(NAME)
    with monkeypatch.context() as read_only:

        def refuse(path: Any, *_: Any, **__: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

        read_only.setattr(Path, "mkdir", refuse)
        read_only.setattr(Path, "unlink", refuse)
        assert fetch(NAME) == here  # what is here is used
    monkeypatch.setenv("PARTCLIPSEG_HOME", "/dev/null/cache")
    with pytest.raises(PartCLIPSegError, match=r"/dev/null/cache.* PARTCLIPSEG_HOME names another folder"):
        fetch(NAME)


def test_two_processes_at_once(hosts: Hosts, cache: Path, caplog: Any):
    hosts.limit = 1000
    found: list[Path] = []
    both = [threading.Thread(target=lambda: found.append(fetch(NAME))) for _ in range(2)]
    both[0].start()
    assert hosts.reached.wait(60)
    both[1].start()
    while "another process is fetching" not in caplog.text and both[1].is_alive():
        threading.Event().wait(0.01)
    hosts.going_on.set()
    for thread in both:
        thread.join(60)
    assert found == [find_release(NAME).directory] * 2
    assert len([True for request, _ in hosts.asked if request.startswith("/uc")]) == 1


def test_clipseg_comes_from_the_hub(
    hosts: Hosts, cache: Path, tokenizer_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from partclipseg.models.clipseg_weights import to_clipseg
    from partclipseg.models.partclipseg.model import PartCLIPSegModel

    to_clipseg(PartCLIPSegModel(small_config(image_size=352))).save_pretrained(tmp_path / "plain")
    files = [*(tmp_path / "plain").iterdir(), *tokenizer_directory.iterdir()]
    hub = {f"CIDAS/clipseg-rd64-refined/{path.name}": path.read_bytes() for path in files}
    with pytest.raises(
        PartCLIPSegError,
        match=r"no model CIDAS/clipseg-rd64-refined exists .*: fetch config.json",
    ):
        fetch("clipseg")
    hosts.hub |= hub
    with pytest.raises(PartCLIPSegError, match=r"is another file, or cut off; fetch config.json"):
        fetch("clipseg")
    entry = {"method": "clipseg", "data": "PhraseCut", "source": "clipseg", "hub": "CIDAS/clipseg-rd64-refined"}
    (cache / "models.json").write_text(json.dumps({"models": {"clipseg": entry}}))
    directory = fetch("clipseg")
    assert {"config.json", "model.safetensors", "origin.json"} <= {path.name for path in directory.iterdir()}
    assert not (directory / ".cache").exists()
    asked = len(hosts.asked)
    assert fetch("clipseg") == directory
    assert len(hosts.asked) == asked
    remove("clipseg")
    hosts.hub["CIDAS/clipseg-rd64-refined/model.safetensors"] = b"x" * 100
    with pytest.raises(PartCLIPSegError, match="what was fetched for clipseg is not kept"):
        fetch("clipseg")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fetch("partclipsg-pascal"), "did you mean partclipseg-pascal"),
        (lambda: fetch("partcatseg-pascal"), "needs the method partcatseg, which this version does not have"),
        (lambda: remove("partshapes"), "cannot be removed"),
        (lambda: remove("clipseg"), "is not here: there is nothing to remove"),
        (lambda: add("clipseg", Path("a.pth")), "clipseg is no single file: fetch config.json"),
        (lambda: add("partshapes", Path("a.pth")), "it is built in"),
        (lambda: add(NAME, Path("nothing.pth")), "there is no file nothing.pth"),
    ],
)
def test_wrong_calls(call: Callable[[], Any], message: str, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("partclipseg.models.fetch.FAMILIES", {"partclipseg": "", "clipseg-baseline": ""})
    with pytest.raises(PartCLIPSegError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "family", "drive"),
    [
        ("partcatseg-pascal", PartCATSegConfig, "1JUJjJQLMKE96H5SLNs4EMm4jiU6fPgRb"),
        ("catseg-ade20k", CATSegConfig, "1jvGQtftwRuzbFnphQXftosdL_YDwMWAx"),
    ],
)
def test_files_of_other_families(name: str, family: type[CATSegConfig], drive: str, hosts: Hosts, cache: Path):
    model = build(small_catseg(family, reference=True))
    file = io.BytesIO()
    torch.save({"model": catseg_tensors(model)}, file)
    entry = {"method": family.model_type, "drive": drive, "vocabulary": "dog: ear", "config": model.config.to_dict()}
    (cache / "models.json").write_text(json.dumps({"models": {name: entry}}))
    hosts.drive[drive] = file.getvalue()
    found = PartSegmenter.from_pretrained(name)
    assert found.model.config.model_type == family.model_type
    assert found.model.config.reference
    assert found.vocabulary is not None
    assert [pair.name for pair in found.vocabulary.object_parts] == ["dog's ear"]
    assert torch.equal(found.model.background.cpu(), model.background), "the file's own background vector"
    # A file of another method under that name is not kept.
    remove(name)
    hosts.drive[drive] = released_file(small_config())
    message = f"is not kept: .*'partclipseg', and {name} is of type '{family.model_type}'"
    with pytest.raises(PartCLIPSegError, match=message):
        fetch(name, accept_changed=True)
    assert leftovers(cache) == []


def test_a_folder_of_that_name_comes_first(cache: Path, model_directory: Path):
    shutil.copytree(model_directory, NAME)
    assert find_model(NAME) == NAME


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["pridict"], "there is no command 'pridict', did you mean predict? The commands are: demo, models, predict"),
        (["models", "--log-level", "loud"], "--log-level must be one of debug, info, warning, error, not 'loud'"),
        (["models", "--keep-original"], "--keep-original goes with --fetch NAME"),
        (["models", "--accept-changed"], "--accept-changed goes with --fetch NAME or --add NAME FILE.pth"),
        (["models", "--fetch", "a", "--remove", "a"], "--fetch, --add and --remove are three calls: give one of them"),
        (
            ["models", "--remove", "partclipsegpascal"],
            "did you mean partclipseg-pascal? `partclipseg models` lists all",
        ),
    ],
)
def test_wrong_usage(call: list[str], message: str, cache: Path, capsys: Any):
    assert main(call) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_mistyped_model_is_told_the_nearest_name(cache: Path):
    with pytest.raises(PartCLIPSegError, match=r"no directory 'partclipseg-pascl'; did you mean partclipseg-pascal\?"):
        load_model("partclipseg-pascl")


def test_the_log_level(cache: Path, monkeypatch: pytest.MonkeyPatch):
    logger = logging.getLogger("partclipseg")
    before = logger.level
    try:
        assert main(["--log-level=error", "models"]) == 0
        assert logger.level == logging.ERROR
        assert main(["models", "--log-level", "debug"]) == 0
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "your own catalogue .*is not valid JSON .*: replace it, or move it away"),
        ("[]", "has no table 'models'"),
        ('{"models": {"mine": 7}}', "'mine' has no table"),
        ('{"models": {"mine": {"drive": "1", "colour": "red"}}}', "unknown fields colour"),
        ('{"models": {"../mine": {"drive": "1"}}}', "cannot be a folder's name"),
        ('{"models": {"mine": {}}}', "needs either 'drive' or 'hub'"),
    ],
)
def test_a_damaged_own_catalogue(content: str, message: str, cache: Path):
    (cache / "models.json").write_text(content)
    with pytest.raises(PartCLIPSegError, match=message):
        catalogue()


def test_the_cache_has_a_usual_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("PARTCLIPSEG_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert home() == tmp_path / "partclipseg"
    monkeypatch.setenv("PARTCLIPSEG_HOME", "~/models")
    assert home() == Path("~/models").expanduser()
