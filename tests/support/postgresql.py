"""A PostgreSQL server for tests, in a folder and on a port of its own."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from ports import free_port


def programs():
    """Return the folder of the newest server's programs; None where none is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


@contextmanager
def postgresql(folder):
    """Start a server and yield the address of its database."""
    bin_folder = programs()
    folder.mkdir()
    data = folder / "data"
    as_user = []
    if os.geteuid() == 0:  # the server refuses to be root
        shutil.chown(folder, "postgres")
        for parent in folder.parents:
            if parent.owner() == "root" and parent.stat().st_mode & 0o777 == 0o700:
                parent.chmod(0o711)
        as_user = ["runuser", "-u", "postgres", "--"]
    port = free_port()
    secret = folder / "password"
    secret.write_text("secret")
    secret.chmod(0o644)
    initdb = [bin_folder / "initdb", "-D", data, "-U", "tester", "-A", "scram-sha-256", "--pwfile", secret]
    subprocess.run([*as_user, *initdb], check=True, capture_output=True, cwd="/")
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with (folder / "log").open("w") as log:
        command = [*as_user, bin_folder / "postgres", "-D", data, *options]
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
    try:
        while "ready to accept connections" not in (folder / "log").read_text():
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql://tester:secret@127.0.0.1:{port}/postgres"
    finally:
        # a terminated server waits for its clients, and a worker may keep a connection
        stop = [bin_folder / "pg_ctl", "stop", "-m", "fast", "-D", data]
        subprocess.run([*as_user, *stop], check=True, capture_output=True, cwd="/")
        server.wait()
