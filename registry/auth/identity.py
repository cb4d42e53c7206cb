"""Everything that identity needs, put together from settings and an open database, for one event loop."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp

from ocispec.errors import Unauthenticated
from registry.auth.accounts import Accounts
from registry.auth.authenticator import AccountAuthenticator
from registry.auth.certificates import CertificateNames
from registry.auth.challenge import BasicChallenger, Challenge, LoginRequired
from registry.auth.everybody import Everybody
from registry.auth.htpasswd import Htpasswd
from registry.auth.issuers import Issuer, Issuers
from registry.auth.keyring import Keyring
from registry.auth.oidc import Login, Provider
from registry.auth.opaque import Opaque, Purpose
from registry.auth.outbound import Outbound
from registry.auth.passwords import Passwords
from registry.auth.policies import Policies, PolicyMemory
from registry.auth.policy import Access, NoAccounts, OpenPolicy
from registry.auth.robots import ADMIN_NAME, Robots
from registry.auth.sessions import Sessions
from registry.auth.throttle import Throttle
from registry.auth.token_service import TokenService
from registry.auth.tokens import Tokens
from registry.auth.users import DatabaseUsers, Users
from registry.settings import AuthSettings, OidcSettings, Settings
from storage.metadata import accounts as user_rows
from storage.metadata import robots as robot_rows
from storage.metadata import signing_keys
from storage.metadata.engine import Database
from storage.metadata.robots import RobotRow


@dataclass(frozen=True, slots=True)
class Identity:
    """`access` is what the API asks; `tokens` the token server, `login` the provider that browsers log in through,
    `sessions` what they get, where there are such; the others are for administration."""

    access: Access
    tokens: TokenService | None
    accounts: Accounts
    robots: Robots
    policies: Policies
    keyring: Keyring
    sessions: Sessions | None
    login: Login | None


class TokenChallenger:
    """Sends clients to the token server: `realm`, or `/token` where they reached us."""

    def __init__(self, realm: str, service: str) -> None:
        self._realm = realm
        self._service = service

    def challenge(self, failure: Unauthenticated, base: str) -> Challenge:
        parameters = {"realm": self._realm or f"{base}/token", "service": self._service}
        if isinstance(failure, LoginRequired):
            parameters |= {"scope": failure.scope} if failure.scope else {}
            parameters |= {"error": failure.error} if failure.error else {}
        return Challenge("Bearer", parameters)


@asynccontextmanager
async def open_identity(database: Database, everything: Settings) -> AsyncIterator[Identity]:
    """Raises InvalidHtpasswd, and InvalidArgument for an issuer or provider that cannot be."""
    settings = everything.auth
    passwords = Passwords()
    lifetime = timedelta(seconds=settings.token_lifetime)
    keyring = Keyring(database, lifetime)
    services = Accounts(database, passwords), Robots(database), Policies(database), keyring
    async with AsyncExitStack() as stack:
        stack.callback(passwords.close)
        if settings.mode == "none":
            yield Identity(Access(NoAccounts(), OpenPolicy()), None, *services, None, None)
            return
        users: Users = DatabaseUsers(database)
        if settings.mode == "htpasswd":
            users = await stack.enter_async_context(Htpasswd(Path(settings.htpasswd), settings.admin_names).watched())
        policy = PolicyMemory(database)
        tokens = None
        if settings.token_server:
            await keyring.prepare()
            tokens = Tokens(keyring, settings.issuer, settings.service, lifetime, database.now)
        authenticator = AccountAuthenticator(database, users, passwords, Throttle(), tokens)
        service = None
        if tokens:
            service = TokenService(database, tokens, policy, authenticator,
                                   timedelta(seconds=settings.refresh_lifetime))
        challenger = TokenChallenger(settings.realm, settings.service) if tokens else BasicChallenger()
        outbound = Outbound(await stack.enter_async_context(aiohttp.ClientSession()))
        sessions = Sessions(database, authenticator.account, timedelta(seconds=everything.oidc.session_lifetime))
        everybody = Everybody(authenticator, _issuers(everything, outbound), sessions,
                              CertificateNames(everything.tls.client_name))
        yield Identity(Access(everybody, policy, challenger), service, *services, sessions,
                       _login(everything.oidc, outbound))


def _issuers(settings: Settings, outbound: Outbound) -> Issuers:
    return Issuers([Issuer(one.name, one.issuer, one.audience, one.keys, one.algorithms, one.name_claim,
                           one.groups_claim, one.grants) for one in settings.issuers], outbound.get)


def _login(settings: OidcSettings, outbound: Outbound) -> Login | None:
    if not settings.issuer:
        return None
    return Login(Provider(settings.name, settings.issuer, settings.client_id, settings.client_secret, settings.scopes,
                          settings.name_claim, settings.groups_claim, settings.admin_group), outbound)


async def first_start(database: Database, settings: AuthSettings) -> str | None:
    """At the first start with accounts: an administrator's token, which is never shown again. None at any other, and
    when there is somebody already who administers. Of several replicas that start at once, one does it."""
    now = database.now()
    keyring = Keyring(database, timedelta(seconds=settings.token_lifetime))
    token = Opaque.new(Purpose.ADMIN)
    async with database.write() as tx:
        if await signing_keys.all_rows(tx):
            return None
        await keyring.make(tx)
        if settings.admin_names or await user_rows.administrators(tx) or await robot_rows.administrators(tx, now):
            return None
        made = await robot_rows.insert(tx, RobotRow(
            ADMIN_NAME, token.key, token.hash, None, None, admin=True, created=now, expires=None))
    return token.text if made else None
