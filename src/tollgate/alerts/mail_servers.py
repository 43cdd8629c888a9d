"""Sends an email over SMTP, with the standard library in a thread.

The connection goes to an address that the guard has checked, and the certificate is that of the server's name.
"""

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any, Final
from urllib.parse import urlsplit

from tollgate.alerts import rules
from tollgate.upstreams.rules import Resolve

USUAL_PORTS: Final = {"none": 25, "starttls": 587, "tls": 465}
ACCEPTED: Final = 250


class MailRefused(Exception):
    """The server did not take the mail. The text is for operators."""

    def __init__(self, status: int | None, told: str) -> None:
        self.status = status
        super().__init__(told)


async def send(
    server: Mapping[str, Any],
    url: str,
    password: str | None,
    delivery: Mapping[str, Any],
    resolve: Resolve,
    seconds: float,
) -> int:
    """The server's status. Raises MailRefused, OSError, and what `resolve` raises."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or USUAL_PORTS[server["tls"]]
    (address, *_) = await resolve(host, port)
    message = composed(server, delivery)
    return await asyncio.to_thread(_send, server, host, (address, port), password, message, seconds)


def composed(server: Mapping[str, Any], delivery: Mapping[str, Any]) -> EmailMessage:
    content = delivery["content"]
    message = EmailMessage()
    message["Subject"] = rules.headline(content)
    message["From"] = server["sender"]
    message["To"] = ", ".join(server["recipients"])
    message["Message-ID"] = f"<{delivery['id']}@{server['sender'].rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(rules.lines(content)) + "\n")
    return message


def _send(
    server: Mapping[str, Any],
    host: str,
    address: tuple[str, int],
    password: str | None,
    message: EmailMessage,
    seconds: float,
) -> int:
    try:
        with _connected(server["tls"], host, address, seconds) as smtp:
            if password and server["username"]:
                smtp.login(server["username"], password)
            smtp.send_message(message)
    except smtplib.SMTPResponseException as error:
        raise MailRefused(error.smtp_code, f"the mail server answered {error.smtp_code}") from error
    except smtplib.SMTPRecipientsRefused as error:
        raise MailRefused(None, "the mail server refused all recipients") from error
    except (smtplib.SMTPException, ssl.SSLError) as error:
        raise MailRefused(None, f"the mail server failed: {type(error).__name__}") from error
    return ACCEPTED


def _connected(tls: str, host: str, address: tuple[str, int], seconds: float) -> smtplib.SMTP:
    if tls == "tls":
        return _OverTls(address, host, seconds)
    smtp = _Plain(address, host, seconds)
    if tls == "starttls":
        try:
            smtp.starttls(context=ssl.create_default_context())
        except BaseException:
            smtp.close()
            raise
    return smtp


class _Plain(smtplib.SMTP):
    def __init__(self, address: tuple[str, int], host: str, seconds: float) -> None:
        self._address = address
        super().__init__(host, address[1], timeout=seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # of smtplib
        return socket.create_connection(self._address, timeout)


class _OverTls(_Plain):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        plain = super()._get_socket(host, port, timeout)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
