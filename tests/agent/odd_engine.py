"""An engine that misbehaves in one way: `odd_engine.py MODE SOCKET`."""

import os
import signal
import socket
import subprocess
import sys
import time


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
    if mode == "orphans":
        subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL)
    say(f"the key is {os.environ['API_KEY']}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    answers = 0
    while True:
        connection, _ = listener.accept()
        head = connection.recv(65536)
        answers += head.startswith(b"POST")
        if mode == "hangs" or (mode == "silent" and answers > 1):
            continue  # without an answer, and with the connection open, since it is kept below
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        connection.close()


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:3])
