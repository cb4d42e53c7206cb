"""`/login`, `/login/callback`, `/logout`: a browser becomes somebody, and stops being it."""

from aiohttp import web

from ocispec.errors import Unimplemented
from registry.api.answers import COMMON
from registry.api.call import Call
from registry.api.reached import Reached
from registry.auth.oidc import ATTEMPT_LASTS, Attempt, Login, LoginFailed, local
from registry.auth.sessions import Sessions

ATTEMPT = "seawall_login"
SESSION = "seawall_session"
CALLBACK = "/login/callback"


class LoginEndpoints:
    """`login` and `sessions` None: no provider is configured. `lifetime`: seconds a browser keeps its cookie."""

    def __init__(self, login: Login | None, sessions: Sessions | None, reached: Reached, lifetime: float) -> None:
        self._login = login
        self._sessions = sessions
        self._reached = reached
        self._lifetime = int(lifetime)

    async def begin(self, call: Call) -> web.StreamResponse:
        """To the provider, and then back to `next`, a path of ours."""
        login = self._provider()
        attempt = login.begin(call.query("next") or "/")
        base = self._reached.base(call.request)
        response = _go(await login.address(attempt, f"{base}{CALLBACK}"))
        # Lax: the browser must send it along when the provider sends it back, and with nothing that a page does.
        response.set_cookie(ATTEMPT, attempt.to_cookie(), max_age=ATTEMPT_LASTS, path="/login", httponly=True,
                            secure=_secure(base), samesite="Lax")
        return response

    async def finish(self, call: Call) -> web.StreamResponse:
        login, sessions = self._provider(), self._sessions
        assert sessions is not None
        base = self._reached.base(call.request)
        attempt = Attempt.from_cookie(call.request.cookies.get(ATTEMPT, ""), login.now())
        query = call.request.query
        if any(len(query.getall(name)) > 1 for name in set(query)):
            raise LoginFailed("the provider's answer says things twice")
        principal = await login.finish(attempt, dict(query), f"{base}{CALLBACK}")
        # Always a new session: one that was there before the login may be somebody else's (session fixation).
        secret = await sessions.begin(principal)
        response = _go(local(attempt.go))
        response.del_cookie(ATTEMPT, path="/login")
        response.set_cookie(SESSION, secret, max_age=self._lifetime, path="/", httponly=True, secure=_secure(base),
                            samesite="Lax")
        return response

    async def end(self, call: Call) -> web.StreamResponse:
        secret = call.request.cookies.get(SESSION)
        if secret and self._sessions is not None:
            await self._sessions.end(secret)
        response = _go("/")
        response.del_cookie(SESSION, path="/")
        return response

    def _provider(self) -> Login:
        if self._login is None:
            raise Unimplemented("no login provider is configured for this registry")
        return self._login


def _go(where: str) -> web.Response:
    return web.Response(status=303, headers={**COMMON, "Location": where, "Cache-Control": "no-store",
                                             "Referrer-Policy": "no-referrer"})


def _secure(base: str) -> bool:
    return base.startswith("https://")
