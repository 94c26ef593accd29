"""The paths of the API by their templates, and the methods that each takes."""

from __future__ import annotations

from collections.abc import Mapping, Set

from starlette.responses import JSONResponse
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from partclipseg.apps.serve.access import drain


class Paths:
    """Finds the template of a path, such as ``/v1/examples/{name}``."""

    def __init__(self, methods: Mapping[str, Set[str]]) -> None:
        self.methods = methods
        """Methods that each template takes."""
        self._patterns = {template: compile_path(template)[0] for template in methods if "{" in template}

    def template(self, path: str) -> str | None:
        """Return the template of a path; None if there is none."""
        if path in self.methods:
            return path
        return next((name for name, pattern in self._patterns.items() if pattern.match(path)), None)


class OwnMethods:
    """Answers HEAD for paths that take GET, and 405 with a sentence for methods that a path does not take."""

    def __init__(self, app: ASGIApp, paths: Paths) -> None:
        self.app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        template = self._paths.template(scope["path"]) if scope["type"] == "http" else None
        taken = self._paths.methods[template] if template else set()
        if template is None or scope["method"] in taken:
            await self.app(scope, receive, send)
        elif scope["method"] == "HEAD" and "GET" in taken:
            await self.app({**scope, "method": "GET"}, receive, send)  # servers send no body to HEAD
        else:
            await drain(receive)
            sentence = f"{template} takes {' and '.join(sorted(taken))}, not {scope['method']}"
            allowed = taken | ({"HEAD"} if "GET" in taken else set())
            await JSONResponse({"detail": sentence}, 405, {"Allow": ", ".join(sorted(allowed))})(scope, receive, send)
