"""Check the wheel and the source distribution: what they hold, and that the wheel works without the repository.

    python -m build
    python tools/smoke_test.py dist

compares both with src/brainstage, installs the wheel with its extra ``all`` into a virtual environment of its own
and runs there what ``brainstage data example`` says to try, a request to ``serve`` and a small ``train``. The wheel
that ``python -m build`` makes is built from the source distribution, so both are tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MAX_WHEEL_BYTES = 10_000_000
METADATA = {
    *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"),
    "licenses/src/brainstage/scans/templates/README.md",
    "licenses/src/brainstage/serve/static/vendor/LICENSES.txt",
}
"""Files of the wheel's ``dist-info``."""
TORCH = ("cpu", "2.13.0")
SMALL_TRAINING = (
    *("train", "--data", "phantom", "--recipe", "compact-fast", "--name", "first", "--quiet"),
    *("--set", "epochs=1", "--set", "image_size=32"),
)
BOUNDARY = "brainstage-smoke-test"


def main(folder: str) -> None:
    """Check what lies in a folder; the first thing that is wrong ends the program with a sentence."""
    wheel, sdist = single(Path(folder), "*.whl"), single(Path(folder), "*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        python = install(wheel, work / "venv")
        try_out(python, work)
    print("The wheel works without the repository.")


def single(folder: Path, pattern: str) -> Path:
    """Return the one file of a folder that matches."""
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        sys.exit(f"{folder}: {len(files)} files {pattern}, expected one; empty it and run: python -m build")
    return files[0]


def package_files() -> set[str]:
    """Return the files of the package below ``src``, as they are in the repository."""
    files = (file for file in SOURCE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(SOURCE).as_posix() for file in files}


def check_wheel(wheel: Path) -> None:
    """Check that a wheel is small, and holds the package, its metadata and nothing else."""
    size = wheel.stat().st_size
    if size >= MAX_WHEEL_BYTES:
        sys.exit(f"{wheel}: {size:,} bytes, expected less than {MAX_WHEEL_BYTES:,}")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    information = "-".join(wheel.name.split("-")[:2]) + ".dist-info/"
    report_difference(wheel, names, package_files() | {information + name for name in METADATA})
    print(f"{wheel.name}: {size / 1e6:.1f} MB, {len(names)} files")


def check_sdist(sdist: Path) -> None:
    """Check that a source distribution holds the whole package, and no picture or table beside it but the docs'."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    report_difference(
        sdist, {name for name in names if name.startswith("src/")}, {f"src/{name}" for name in package_files()}
    )
    images = [
        name
        for name in names
        if name.endswith((".jpg", ".jpeg", ".png", ".parquet")) and not name.startswith(("src/", "docs/"))
    ]
    if images:
        sys.exit(f"{sdist}: holds {', '.join(images[:5])}, which could be scans of people")
    print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB, {len(names)} files")


def report_difference(archive: Path, names: set[str], expected: set[str]) -> None:
    """End the program where an archive lacks a file or holds one too many."""
    if lacking := sorted(expected - names):
        sys.exit(f"{archive}: lacks {', '.join(lacking[:5])} ({len(lacking)} in all)")
    if surplus := sorted(names - expected):
        sys.exit(f"{archive}: holds {', '.join(surplus[:5])} ({len(surplus)} in all), which should not be shipped")


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel with its extra ``all`` into a new virtual environment; return the Python of that."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    subprocess.run([sys.executable, str(ROOT / "tools/install_torch.py"), str(python), *TORCH], check=True)
    pip = [str(python), "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", f"{wheel.resolve()}[all]"], check=True)
    subprocess.run([*pip, "check"], check=True)
    return python


def try_out(python: Path, work: Path) -> None:
    """Run commands in an empty folder, by a Python that knows nothing of the repository."""
    where = output(python, work, "-c", "import brainstage; print(brainstage.__file__)").strip()
    if not Path(where).resolve().is_relative_to(work):
        sys.exit(f"{where}: is imported, expected the package that was installed below {work}")
    printed = brainstage(python, work, "data", "example", "--out", "example")
    commands = [line.split()[1:] for line in printed.splitlines() if line.startswith("  brainstage ")]
    for command in commands:
        if command != ["serve"]:
            brainstage(python, work, *command)
    with served(python, work) as address:
        check_server(address, next((work / "example/slices").glob("*.png")))
    brainstage(python, work, "data", "phantom", "--out", "phantom", "--patients", "8")
    brainstage(python, work, *SMALL_TRAINING)
    brainstage(python, work, "evaluate", "runs/first", "--quiet")


def brainstage(python: Path, work: Path, *arguments: str) -> str:
    """Run a command of brainstage and return what it prints; anything but exit code 0 ends the program."""
    start = time.perf_counter()
    printed = output(python, work, "-m", "brainstage", *arguments)
    print(f"brainstage {' '.join(arguments)} ({time.perf_counter() - start:.0f} s)", flush=True)
    return printed


def output(python: Path, work: Path, *arguments: str) -> str:
    """Run Python and return what it prints."""
    result = subprocess.run(
        [str(python), *arguments], cwd=work, env=environment(work), capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"{' '.join(arguments)}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def environment(work: Path) -> dict[str, str]:
    """Return this environment without what leads to the repository, to data of this machine or to a network.

    Each library works in one thread: beside other work, threads that spin while they wait take minutes for seconds.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "BRAINSTAGE_"))}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**kept, **threads, "BRAINSTAGE_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


@contextmanager
def served(python: Path, work: Path) -> Iterator[str]:
    """Give the address of a server as long as the block runs."""
    command = [str(python), "-m", "brainstage", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=work, env=environment(work), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield (process.stdout.readline() if process.stdout else "").strip()
        finally:
            process.terminate()


def check_server(address: str, picture: Path) -> None:
    """Ask a server for its page and for the stage of a picture."""
    with urlopen(address, timeout=60) as page:  # noqa: S310 - of the server that was just started
        if "brainstage" not in page.read().decode():
            sys.exit(f"{address}: is not the page")
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{picture.name}"\r\n\r\n'
    body = part.encode() + picture.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    with urlopen(Request(f"{address}/v1/predict", body, headers), timeout=120) as answer:  # noqa: S310
        statuses = [row["status"] for row in json.load(answer)["predictions"]]
    if statuses != ["predicted"]:
        sys.exit(f"{address}/v1/predict: {statuses} for {picture.name}, expected it predicted")
    print(f"serve: the page, and a prediction of {picture.name}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
