"""Which pages of other origins may read answers (the Fetch standard's CORS protocol).

None, unless a setting names them. An origin is compared whole and never reflected because it asks; `*` is not to be
had, and neither are credentials that a browser sends by itself: a page sets `Authorization`, or reads what everybody
may.
"""

from collections.abc import Collection, Mapping

from aiohttp import web

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
SENT = "Authorization, Accept, Content-Type, Content-Range, Range, If-None-Match"
READ = ("Content-Range, Docker-Content-Digest, ETag, Link, Location, OCI-Filters-Applied, OCI-Subject, OCI-Tag, Range, "
        "Retry-After, Warning, WWW-Authenticate")
MAX_AGE = "600"


class Cors:
    def __init__(self, origins: Collection[str] = ()) -> None:
        self._origins = frozenset(origins)

    def headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """What the answer to `request` has to say."""
        if not self._origins:
            return {}
        origin = request.headers.get("Origin")
        if origin is None or origin not in self._origins:
            return {"Vary": "Origin"}
        found = {"Vary": "Origin", "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": READ}
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            found |= {"Access-Control-Allow-Methods": METHODS, "Access-Control-Allow-Headers": SENT,
                      "Access-Control-Max-Age": MAX_AGE}
        return found
