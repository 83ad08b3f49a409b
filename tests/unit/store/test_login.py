"""A login that a server refuses in its own language: real libpq, and a server that says what a test wants."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tidegate.errors import LoginRefused, StoreUnavailable
from tidegate.store.failures import Failure, failure_of, public_error

Serve = Callable[[str, str], psycopg.OperationalError]


@pytest.fixture
def refused() -> Iterator[Serve]:
    """What psycopg raises when a server answers each start of a connection with this SQLSTATE and text."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = {"bytes": b""}

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as sent:
                    while (length := struct.unpack("!i", sent.read(4))[0]) == 8:  # asks for TLS, GSS
                        sent.read(length - 4)
                        connection.sendall(b"N")
                    sent.read(length - 4)
                    connection.sendall(answer["bytes"])

        def connect(state: str, text: str) -> psycopg.OperationalError:
            fields = [f"S{text.partition(':')[0]}", "VFATAL", f"C{state}", f"M{text.partition(':')[2].strip()}"]
            body = b"".join(field.encode() + b"\0" for field in fields) + b"\0"
            answer["bytes"] = b"E" + struct.pack("!i", len(body) + 4) + body
            port = server.getsockname()[1]
            with pytest.raises(psycopg.OperationalError) as caught:
                psycopg.connect(f"postgresql://user:geheim12@127.0.0.1:{port}/db?connect_timeout=5")
            return caught.value

        thread = threading.Thread(target=serve)
        thread.start()
        yield connect
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("28P01", "FATAL: Passwort-Authentifizierung für Benutzer »user« fehlgeschlagen"),
        ("28000", 'ВАЖНО: роль "user" не существует'),
        ("3D000", "FATAL: la base de données « db » n'existe pas"),
        ("42501", "FATAL: keine Berechtigung für Datenbank db"),
        ("08P01", "FATAL: no such user: user"),  # PgBouncer, which has one code for all of it
    ],
)
def test_a_refused_login_is_known_by_its_code(refused: Serve, state: str, text: str) -> None:
    """In any language: not an outage, which would be waited for; and it says what the server says, without the password."""
    error = refused(state, text)
    assert failure_of(error) is Failure.LOGIN
    public = public_error(error, "sink postgres")
    assert isinstance(public, LoginRefused)
    assert text.partition(":")[2].strip() in str(public)
    assert "geheim12" not in str(public)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("57P03", "FATAL: das Datenbanksystem startet"),
        ("53300", "FATAL: tut mir leid, schon zu viele Verbindungen"),
        ("57P03", "FATAL: the database system is shutting down"),
    ],
)
def test_a_server_that_cannot_serve_yet_is_an_outage(refused: Serve, state: str, text: str) -> None:
    """It has answered, and nothing is wrong with the login: waiting mends it."""
    error = refused(state, text)
    assert failure_of(error) is Failure.AWAY
    assert type(public_error(error, "sink postgres")) is StoreUnavailable


def test_a_server_that_is_not_there_is_an_outage() -> None:
    """Said in one line, with the address and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(f"postgresql://user:geheim12@127.0.0.1:{port}/db?connect_timeout=5")
    said = str(public_error(caught.value, "sink postgres")).splitlines()
    assert said[0].startswith("sink postgres takes no connection: ")
    assert f"port {port}" in said[0]
    assert said[1:] == ["  hint:     check that the server is up, and that the address in its URL is the server's"]
