"""Receivers of what is told, on real sockets: one that answers HTTP as it is told, and a mail server."""

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
ERROR = b"HTTP/1.1 500 Oops\r\ncontent-length: 6\r\nconnection: close\r\n\r\nbroken"
GONE = b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
NEVER_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegin"
HANGS = b""


class Received(NamedTuple):
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer = OK
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    def hang_up(self) -> None:
        """On all who wait for an answer."""
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            self.received.append(Received(headers, await reader.readexactly(int(headers["content-length"]))))
            writer.write(self.answer)
            if self.answer in (HANGS, NEVER_WHOLE):
                await reader.read()  # until the sender gives up
        writer.close()


@contextlib.asynccontextmanager
async def receiver(answer: bytes = OK) -> AsyncIterator[Receiver]:
    made = Receiver()
    made.answer = answer
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield made


class Mail(NamedTuple):
    login: str | None
    encrypted: bool
    recipients: list[str]
    text: str


class MailReceiver:
    """The part of SMTP that a sender needs: STARTTLS, AUTH PLAIN, one mail."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.mails: list[Mail] = []
        self.refusal = b""
        self.port = 0
        self.port_of_tls = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        login, encrypted, recipients = None, False, list[str]()
        writer.write(b"220 mail.test\r\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while line := (await reader.readline()).decode().strip():
                word = line.split()[0].upper()
                if word == "EHLO":
                    writer.write(b"250-mail.test\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n")
                elif word == "STARTTLS":
                    writer.write(b"220 go on\r\n")
                    await writer.drain()
                    await writer.start_tls(self._context)
                    encrypted = True
                elif word == "AUTH":
                    login = base64.b64decode(line.split()[2]).decode().replace("\0", ":")
                    writer.write(b"235 welcome\r\n")
                elif word == "RCPT":
                    recipients.append(line.partition("<")[2].partition(">")[0])
                    writer.write(self.refusal or b"250 ok\r\n")
                elif word == "DATA":
                    writer.write(b"354 go on\r\n")
                    text = (await reader.readuntil(b"\r\n.\r\n")).decode()
                    self.mails.append(Mail(login, encrypted, recipients, text))
                    writer.write(b"250 taken\r\n")
                else:
                    writer.write(b"221 bye\r\n" if word == "QUIT" else b"250 ok\r\n")
        writer.close()


@contextlib.asynccontextmanager
async def mail_receiver(folder: Path) -> AsyncIterator[MailReceiver]:
    """With a certificate of its own for localhost, in `folder`/cert.pem."""
    await asyncio.to_thread(
        subprocess.run,
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    made = MailReceiver(context)
    plain = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    over_tls = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    async with plain, over_tls:
        made.port, made.port_of_tls = (server.sockets[0].getsockname()[1] for server in (plain, over_tls))
        yield made
