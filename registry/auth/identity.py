"""Everything that identity needs, put together from settings and an open database, for one event loop."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ocispec.errors import Unauthenticated
from registry.auth.accounts import Accounts
from registry.auth.authenticator import AccountAuthenticator
from registry.auth.challenge import BasicChallenger, Challenge, LoginRequired
from registry.auth.htpasswd import Htpasswd
from registry.auth.keyring import Keyring
from registry.auth.opaque import Opaque, Purpose
from registry.auth.passwords import Passwords
from registry.auth.policies import Policies, PolicyMemory
from registry.auth.policy import Access, NoAccounts, OpenPolicy
from registry.auth.robots import ADMIN_NAME, Robots
from registry.auth.throttle import Throttle
from registry.auth.token_service import TokenService
from registry.auth.tokens import Tokens
from registry.auth.users import DatabaseUsers, Users
from registry.settings import AuthSettings
from storage.metadata import accounts as user_rows
from storage.metadata import robots as robot_rows
from storage.metadata import signing_keys
from storage.metadata.engine import Database
from storage.metadata.robots import RobotRow


@dataclass(frozen=True, slots=True)
class Identity:
    """`access` is what the API asks; `tokens` the token server, if there is one; the others are for administration."""

    access: Access
    tokens: TokenService | None
    accounts: Accounts
    robots: Robots
    policies: Policies
    keyring: Keyring


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
async def open_identity(database: Database, settings: AuthSettings) -> AsyncIterator[Identity]:
    """Raises InvalidHtpasswd."""
    passwords = Passwords()
    lifetime = timedelta(seconds=settings.token_lifetime)
    keyring = Keyring(database, lifetime)
    services = Accounts(database, passwords), Robots(database), Policies(database), keyring
    async with AsyncExitStack() as stack:
        stack.callback(passwords.close)
        if settings.mode == "none":
            yield Identity(Access(NoAccounts(), OpenPolicy()), None, *services)
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
        yield Identity(Access(authenticator, policy, challenger), service, *services)


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
