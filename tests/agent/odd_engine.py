"""An engine that misbehaves in one way: `odd_engine.py MODE SOCKET`."""

import os
import signal
import socket
import subprocess
import sys
import time

SLOW_SECONDS = 0.7
"""In each phase."""


def main(mode: str, path: str) -> None:
    if mode == "crashes":
        say("loading")
        sys.exit(3)
    if mode == "misconfigured":
        say("error: unrecognized arguments: --no-such-flag")
        sys.exit(2)
    if mode == "mute":
        time.sleep(3600)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "slow":
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(SLOW_SECONDS), os._exit(0)))
        time.sleep(SLOW_SECONDS)
    if mode == "orphans":
        subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL)
    say(f"the key is {os.environ['ENGINE_API_KEY']}")
    if mode == "slow":
        time.sleep(SLOW_SECONDS)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    answers = 0
    while True:
        connection, _ = listener.accept()
        asked = received(connection)
        answers += asked.startswith(b"POST")
        if mode == "hangs" or (mode == "silent" and answers > 1):
            continue  # without an answer, and with the connection open, since it is kept below
        if asked.startswith(b"POST /v1/drips"):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
            connection.recv(1)  # until the client has gone
            connection.close()
            continue
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        connection.close()


def received(connection: socket.socket) -> bytes:
    """A request with its body."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(65536)
    head, _, body = read.partition(b"\r\n\r\n")
    stated = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(stated[0].split(b":")[1]) - len(body) if stated else 0
    while missing > 0:
        missing -= len(connection.recv(65536))
    return read


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
