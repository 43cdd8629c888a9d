"""An enrolment beside a server: makes a host and its token over the server's own API, as an operator in a browser."""

import asyncio
import contextlib
import secrets
import socket

import httpx

from tollgate.agent.control_loop import NotEnrolled

PATIENCE_SECONDS = 60
"""The server may be starting, too."""


async def by_link(address: str, secret: str, ingress_url: str) -> str:
    """The token of a new host. `secret` is of a sign-in link, which is used up."""
    async with httpx.AsyncClient(base_url=address, headers={"origin": address}, timeout=30, trust_env=False) as http:
        await _signed_in(http, secret)
        name = f"{socket.gethostname()[:60]}-{secrets.token_hex(2)}"
        made = await http.post("/admin/hosts", json={"name": name, "ingress_url": ingress_url})
        await http.post("/auth/sign-out")
    if not made.is_success:
        raise NotEnrolled(f"{address} refused to enrol this machine: {made.text[:300]}")
    token: str = made.json()["enrolment"]["token"]
    return token


async def _signed_in(http: httpx.AsyncClient, secret: str) -> None:
    for _ in range(PATIENCE_SECONDS):
        with contextlib.suppress(httpx.TransportError):
            answer = await http.post("/auth/sign-in", json={"link": secret})
            if not answer.is_success:
                raise NotEnrolled(f"{http.base_url} refused the sign-in: {answer.text[:300]}")
            return
        await asyncio.sleep(1)
    raise NotEnrolled(f"no server answers at {http.base_url}: start it first, or say its PORT")
