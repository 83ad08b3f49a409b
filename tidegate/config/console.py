"""deadLetters.console: where `tidegate dlq console` listens, and who may do what there."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from string import Formatter
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tidegate.config.base import Millis, Model, Problem, Whole, refuse

_SHORTEST_TOKEN: Final = 20  # characters: what a person makes up is guessed, what a machine makes up is longer
_HOST: Final = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def _allowed_host(host: str) -> str:
    lower = host.lower()
    if not _HOST.fullmatch(lower):
        refuse(Problem(f"not the name of a host: {host!r}", (), "console.example.org or console.example.org:8443"))
    return lower


def _long_enough(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value()) < _SHORTEST_TOKEN:
        hint = "such as `openssl rand -hex 24` prints"
        refuse(Problem("this token is too short", (), f"at least {_SHORTEST_TOKEN} characters", hint))
    return token


class ConsoleToken(Model):
    """Somebody who may use the console."""

    name: str = Field(min_length=1, max_length=100)
    """Who it is: stands in the history beside everything that is done with the token."""
    role: Literal["viewer", "operator", "admin"] = "viewer"
    """viewer: sees everything, masked. operator: also acknowledges, resolves, replays, mends, parks. admin: also reveals
    what is masked, and reads the audit log."""
    token: Annotated[SecretStr, AfterValidator(_long_enough)]
    """At least 20 characters, for example `openssl rand -hex 24`."""


def _template(*names: str) -> Callable[[str], str]:
    """What checks a template of an address that may have these places in braces."""

    def check(template: str) -> str:
        try:
            found = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        except ValueError as error:
            refuse(Problem(f"not a template: {error}", (), "braces in pairs"))
        allowed = " ".join(f"{{{name}}}" for name in names)
        if unknown := sorted(found - set(names)):
            refuse(Problem(f"there is no {{{unknown[0]}}} to put in", (), allowed))
        if not template.startswith(("https://", "http://")):
            refuse(Problem("not an address that a browser can open", (), "https://…"))
        if not found:
            refuse(Problem("every record would lead to the same page", (), f"some of {allowed}"))
        return template

    return check


class ConsoleLinks(Model):
    """Where else something is to be seen of a record. What is put in is escaped."""

    trace: Annotated[str, AfterValidator(_template("traceId", "spanId"))] | None = None
    """For example `https://tempo.example.org/trace/{traceId}`; also `{spanId}`."""
    origin: Annotated[str, AfterValidator(_template("topic", "partition", "offset"))] | None = None
    """The source record, for example `https://kafka-ui.example.org/topics/{topic}?partition={partition}&offset={offset}`."""


class Console(Model):
    """The console of dead letters. It speaks plain HTTP: put it behind a proxy that speaks TLS where others can listen."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Anything else than loopback needs tokens."""
    port: Whole = Field(default=6062, ge=0, le=65535)
    """0: any free port; it is printed."""
    allowed_hosts: tuple[Annotated[str, AfterValidator(_allowed_host)], ...] = ()
    """Further names under which browsers reach it: a proxy's, or this machine's when `host` is 0.0.0.0."""
    tokens: tuple[ConsoleToken, ...] = ()
    """Without any, whoever can reach it (on loopback) may do everything, under the name of the user who started it."""
    links: ConsoleLinks = ConsoleLinks()
    session: Millis = Field(default=28_800_000, gt=0)
    """How long a browser stays signed in."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @model_validator(mode="after")
    def _guarded(self) -> Console:
        problems: list[Problem] = []
        if not self.is_loopback and not self.tokens:
            hint = "deadLetters.console.tokens: [{name: ada, role: admin, token: '${ADA_TOKEN}'}], or host 127.0.0.1"
            problem = f"the console would listen on {self.host} for everybody"
            problems.append(Problem(problem, ("tokens",), "at least one token", hint))
        for part, values in (
            ("name", [token.name for token in self.tokens]),
            ("token", [token.token.get_secret_value() for token in self.tokens]),
        ):
            if len(set(values)) < len(values):
                problems.append(Problem(f"two tokens have the same {part}", ("tokens",), "one each"))
        refuse(*problems)
        return self
