"""Read what a client takes in an answer from its headers Accept and Accept-Encoding."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

_WEIGHT = re.compile(r";\s*q\s*=\s*([01](?:\.\d*)?)\s*(?:;|$)")


def weight(headers: Headers, header: str, name: str) -> float:
    """Return the weight, 0 to 1, that a header such as Accept gives a name; 0 if it does not list it.

    Names count in lower and upper case alike (RFC 9110, section 12.4.2). Wildcards name nothing: a client that takes
    anything gets the usual answer.
    """
    entries = ",".join(headers.getlist(header)).lower().split(",")
    found = [_WEIGHT.search(entry) for entry in entries if entry.partition(";")[0].strip() == name]
    return max((float(given[1]) if given else 1.0 for given in found), default=0.0)
