"""The administration API as HTTP: a thin skin around `administration`."""

from aiohttp import web

from ocispec.errors import InvalidArgument, PermissionDenied
from registry.api.admin.administration import CHANGING, MAX_BODY, Administration, Request
from registry.api.admin.operation import Asked
from registry.api.answers import COMMON, JSON, empty
from registry.api.bodies import Bodies
from registry.api.call import Call

PREFIX = "/api/v1"


class AdminEndpoints:
    def __init__(self, administration: Administration, bodies: Bodies) -> None:
        self._administration = administration
        self._bodies = bodies

    async def handle(self, call: Call) -> web.StreamResponse:
        request = call.request
        path = request.rel_url.raw_path.removeprefix(PREFIX)
        caller = Asked(call.principal, call.access, call.origin)
        self._administration.permit(request.method, path, caller)
        if request.method in CHANGING and request.content_type != JSON:
            # A page of another site can make a browser send forms and plain text, never this type: it would have to
            # ask first (CORS), and nobody answers.
            raise InvalidArgument(f"a body of type {JSON} is needed ({{}} when there is nothing to say)")
        if call.presented.session is not None and request.method not in ("GET", "HEAD") and _foreign(request):
            raise PermissionDenied("another site's page asked for this")
        body = await self._bodies.whole(request, MAX_BODY)
        answer = await self._administration.answer(Request(
            request.method, path, caller, tuple(request.query.items()), body))
        if answer.status == 204:
            return empty(204)
        return web.Response(status=answer.status, body=answer.body,
                            headers={**COMMON, "Content-Type": JSON, "Cache-Control": "no-store"})


def _foreign(request: web.BaseRequest) -> bool:
    """The session's cookie is SameSite=Lax; this is for browsers that forget it, and for pages of other subdomains,
    which are the same site and not us."""
    return request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")
