"""Whoever shows whatever: the ways to be known, side by side.

A header counts before a session, and a session before a certificate: who goes to the trouble of sending a credential
means that one, and a certificate that a machine always shows must not turn its users into the machine.
"""

from registry.auth.authenticator import AccountAuthenticator
from registry.auth.certificates import CertificateNames
from registry.auth.issuers import Issuers
from registry.auth.principal import ANONYMOUS, Presented, Principal
from registry.auth.sessions import Sessions


class Everybody:
    """`policy.Authenticator` of a registry with accounts."""

    def __init__(self, accounts: AccountAuthenticator, issuers: Issuers, sessions: Sessions,
                 certificates: CertificateNames) -> None:
        self._accounts = accounts
        self._issuers = issuers
        self._sessions = sessions
        self._certificates = certificates

    async def identify(self, presented: Presented) -> Principal:
        """Raises what the way that was taken does (all are Unauthenticated), TooManyLogins and Unavailable."""
        if presented.authorization is not None:
            token = _bearer(presented.authorization)
            if token is not None and self._issuers.knows(token):
                return await self._issuers.identify(token)
            return await self._accounts.identify(presented)
        if presented.session is not None:
            return await self._sessions.principal(presented.session)
        if presented.certificate is not None:
            return self._certificates.principal(presented.certificate)
        return ANONYMOUS

    def known(self, presented: Presented) -> Principal | None:
        if presented.authorization is None:
            if presented.session is not None:
                return None
            return None if presented.certificate else ANONYMOUS
        known = self._accounts.known(presented)
        if known is None and self._issuers:
            token = _bearer(presented.authorization)
            known = self._issuers.known(token) if token is not None else None
        return known


def _bearer(header: str) -> str | None:
    scheme, _, value = header.partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None
