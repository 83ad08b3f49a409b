"""Tokens, browsers that are signed in, and how often a token may be wrong. All of it in memory: a restart signs everybody out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from dlq.console.rights import Principal
from tidegate.clock import Clock
from tidegate.config.console import Console

_MOST_SESSIONS = 10_000
_MOST_ADDRESSES = 10_000
_WRONG = 5  # tokens from one address,
_WINDOW = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class _Session:
    principal: Principal
    until: float


class Sessions:
    """Safe under threads."""

    def __init__(self, settings: Console, local_user: str, clock: Clock) -> None:
        """`local_user`: who everybody is when there are no tokens."""
        self._clock, self._lasts = clock, settings.session / 1000
        self._tokens = [
            (_digest(token.token.get_secret_value()), Principal(token.name, token.role)) for token in settings.tokens
        ]
        self._local = None if self._tokens else Principal(local_user, "admin")
        self._secret = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def local(self) -> Principal | None:
        """Who everybody is; None when there are tokens."""
        return self._local

    def of_token(self, token: str) -> Principal | None:
        """Compares with every token, in the same time whatever is given."""
        given, found = _digest(token), None
        for known, principal in self._tokens:
            if hmac.compare_digest(given, known):
                found = principal
        return found

    def of_session(self, session: str) -> Principal | None:
        if self._local is not None:
            return self._local
        with self._lock:
            found = self._sessions.get(session)
            if found is not None and found.until <= self._clock.monotonic():
                del self._sessions[session]
                return None
        return None if found is None else found.principal

    def sign_in(self, principal: Principal) -> str:
        """A new session's id: one that was there before anybody signed in is worth nothing afterwards."""
        session = self.new_id()
        with self._lock:
            self._sessions[session] = _Session(principal, self._clock.monotonic() + self._lasts)
            while len(self._sessions) > _MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return session

    def sign_out(self, session: str) -> None:
        with self._lock:
            self._sessions.pop(session, None)

    def new_id(self) -> str:
        return secrets.token_urlsafe(32)

    def csrf_token(self, session: str) -> str:
        """What a form of this session's pages carries."""
        return hmac.new(self._secret, session.encode(), hashlib.sha256).hexdigest()

    def is_csrf_token(self, session: str, given: str) -> bool:
        return hmac.compare_digest(self.csrf_token(session).encode(), given.encode())


class WrongTokens:
    """How often each address gave a wrong token lately. Safe under threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._times: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0: now. Right tokens wait, too, or guessing would go on."""
        with self._lock:
            times = self._recent(address)
            return 0.0 if len(times) < _WRONG else times[-_WRONG] + _WINDOW - self._clock.monotonic()

    def add(self, address: str) -> None:
        with self._lock:
            self._times[address] = [*self._recent(address), self._clock.monotonic()][-_WRONG:]
            self._times.move_to_end(address)
            while len(self._times) > _MOST_ADDRESSES:
                self._times.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self._clock.monotonic() - _WINDOW
        return [at for at in self._times.get(address, ()) if at > since]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
