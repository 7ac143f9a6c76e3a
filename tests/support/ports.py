"""Ports for servers that are given one before they start."""

import random
import socket
from contextlib import suppress


def free_port():
    """Return a port that is free on this machine, of those that no program gets without asking for it by number.

    A port of the system's own choice could be given to another program before the server is up.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
