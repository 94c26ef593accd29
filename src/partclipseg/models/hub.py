"""Fetch files of models on the Hugging Face hub, into its cache or into a folder; each failure has its sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import requests
from huggingface_hub import constants, hf_hub_download, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from partclipseg.errors import PartCLIPSegError, first_line
from partclipseg.files import refusal

_PATIENCE = 10
"""Seconds to wait for the hub's first answer."""

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weight files, the better first."""

TOKENIZER_WORDS = ("tokenizer.json", "vocab.json")
"""Files with a tokenizer's words: it has at least one of them."""

TOKENIZER_FILES = (*TOKENIZER_WORDS, "tokenizer_config.json", "merges.txt", "special_tokens_map.json")
"""Files that a tokenizer may have."""

PROCESSOR = "preprocessor_config.json"
"""File with the size and normalisation of photos."""

VOCABULARY = "vocabulary.json"
"""File of the model's own words."""

OPTIONAL_FILES = (*TOKENIZER_FILES, PROCESSOR, VOCABULARY, "README.md")
"""Files beside configuration and weights that are fetched where a repository has them."""

HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only")
"""Options of `from_pretrained` that say where and how the hub's library looks for files."""

_CACHE_OPTIONS = ("cache_dir", "revision")


class HubError(PartCLIPSegError):
    """The hub did not give a file; the message says why, and names no remedy."""


class Bar(tqdm):
    """Progress bar of a download; it shows on terminals only, whatever the hub's library was told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("name", None)
        super().__init__(*args, **{**kwargs, "disable": None})


def reach_hub() -> None:
    """Raise `HubError` at once if the hub cannot be reached; its own library tries for half a minute."""
    try:
        requests.head(constants.ENDPOINT, timeout=_PATIENCE)
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema) as error:
        raise HubError("HF_ENDPOINT names no address, which begins with https://") from error
    except requests.exceptions.SSLError as error:
        raise HubError(untrusted("the Hugging Face hub")) from error
    except requests.exceptions.RequestException as error:
        if is_of_proxy(error):
            raise HubError(f"{proxy()} does not let through") from error
        raise HubError("the Hugging Face hub cannot be reached") from error


def hub_file(repository: str, file: str, folder: Path | None = None, **options: Any) -> Path | None:
    """Fetch one file of a repository to `folder`, or to the hub's own cache; None if the repository lacks it.

    `options` are those of `HUB_OPTIONS`. Where the hub
    cannot be reached, the cache is used. Raises `HubError` that says what went wrong.
    """
    if not (is_offline_mode() or options.get("local_files_only")):
        try:
            reach_hub()
        except HubError:
            if folder is None and (found := cached(repository, file, **options)) is not None:
                return found
            raise
    try:
        return Path(hf_hub_download(repository, file, local_dir=folder, tqdm_class=Bar, **options))
    except Exception as error:  # the hub's library passes on whatever its own libraries raise
        if _is_absent(error):
            return None
        of_network = isinstance(error, ConnectionError | FileNotFoundError)
        if isinstance(error, OSError) and error.errno in errno.errorcode and not of_network:
            raise PartCLIPSegError(refusal(error, folder or constants.HF_HUB_CACHE)) from error
        raise HubError(_reason(repository, file, error)) from error


def cached(repository: str, file: str, **options: Any) -> Path | None:
    """Return the path of a file in the hub's own cache; None if it is not there."""
    found = try_to_load_from_cache(repository, file, **{key: options[key] for key in _CACHE_OPTIONS if key in options})
    return Path(found) if isinstance(found, str) else None


def is_of_proxy(error: requests.exceptions.RequestException) -> bool:
    """Return whether an error of requests is about a proxy that does not answer, or about one that is no address.

    Before version 2.8 urllib3 passes on what http.client says of a name with a space.
    """
    wrong = isinstance(error, requests.exceptions.ProxyError | requests.exceptions.InvalidURL)
    return wrong or (isinstance(error, requests.exceptions.ConnectionError) and "control characters" in str(error))


def proxy() -> str:
    """Name the proxy by its variable: the address may hold a password."""
    named = [name for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if os.environ.get(name)]
    return f"the proxy that {' and '.join(named) or 'the environment'} names"


def untrusted(host: str) -> str:
    """Say that the certificate of a host is not trusted, as behind a proxy that reads what passes."""
    return (
        f"the certificate of {host} is not trusted here (REQUESTS_CA_BUNDLE and SSL_CERT_FILE name a file with those "
        "of your network)"
    )


def _is_absent(error: BaseException) -> bool:
    """Whether the hub said that the repository is there and the file is not; 404 without a word is taken for that."""
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return True
    stated = (RepositoryNotFoundError, RevisionNotFoundError)
    return _status(error) == 404 and not any(isinstance(cause, stated) for cause in _causes(error))


def _reason(repository: str, file: str, error: Exception) -> str:
    causes = _causes(error)

    def is_any(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    if is_any(GatedRepoError):
        return (
            f"{repository} on the Hugging Face hub is open to some people only (ask for access on its page, and log in "
            "by `hf auth login`)"
        )
    if is_any(RepositoryNotFoundError):
        return f"no model {repository} exists on the Hugging Face hub (or it is private: log in by `hf auth login`)"
    if is_any(RevisionNotFoundError):
        return f"the model {repository} on the Hugging Face hub has no such revision"
    if (status := _status(error)) is not None:
        return f"the Hugging Face hub answers {status} for {file} of {repository}"
    if is_any(LocalEntryNotFoundError):
        return (
            "HF_HUB_OFFLINE says that nothing may be fetched" if is_offline_mode() else "it is not in the hub's cache"
        )
    return f"the download of {file} broke off ({type(error).__name__}: {first_line(error)[:200]})"


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error or one of its causes tells of."""
    answers: Any = (getattr(cause, "response", None) for cause in _causes(error))
    return next((answer.status_code for answer in answers if answer is not None), None)


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes
