"""Run benchmarks, and write what they print into pages of the documentation.

    python benchmarks/run.py                    # all but gpu, which needs one: a night on two cores
    python benchmarks/run.py claims patient     # some

``docs/benchmarks/NAME.md`` gets what ``benchmarks/NAME.py`` claims and printed, with the machine, the versions
and the day. A benchmark that fails leaves its page as it was.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from brainstage.core.files import atomic

HERE = Path(__file__).parent
PAGES = HERE.parent / "docs" / "benchmarks"
ALL = (
    *("audit", "calibration", "claims", "cohort", "data", "heads", "kill", "large", "levels", "libraries"),
    *("membership", "official", "patient", "people", "precision", "predict", "processes", "refusal", "scale"),
    *("serve", "stability", "study", "sweep", "tune", "volumes"),
)
ARGUMENTS = {
    "claims": ("--figure", "docs/benchmarks/claims.png"),
    # what Debian's mate-backgrounds, gnome-backgrounds and mricron-data install; heads finds the last by itself
    "refusal": ("--far", "/usr/share/backgrounds", "--near", "/usr/share/mricron/templates"),
    "stability": ("--networks",),
}
LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "transformers")


def main() -> int:
    """Run the benchmarks named, else all; return how many failed."""
    parser = argparse.ArgumentParser(description="Run benchmarks and write their pages.")
    parser.add_argument(
        "names", nargs="*", choices=[*ALL, "gpu", []], metavar="NAME", help=f"{', '.join(ALL)}, gpu"
    )
    names = parser.parse_args().names or ALL
    failed = [name for name in names if not write_page(name, ARGUMENTS.get(name, ()))]
    for name in failed:
        print(f"{name}: failed; its page is as it was", file=sys.stderr)
    return len(failed)


def write_page(name: str, arguments: Sequence[str]) -> bool:
    """Run a benchmark and write its page; return whether it ended well."""
    measured, started = measured_version(), time.perf_counter()
    printed = run_script(name, arguments)
    if printed is None:
        return False
    minutes = max(1, round((time.perf_counter() - started) / 60))
    claim, about = read_claim(name)
    lines = [f"# {name.capitalize()}", "", f"**{claim}.**", "", about, "", "## Result", ""]
    lines += ["```text", *printed, "```", ""]
    if "--figure" in arguments:
        lines += [f"![The figures of the table]({Path(arguments[-1]).name})", ""]
    lines += [
        f"`python benchmarks/{' '.join([f'{name}.py', *arguments])}`, {date.today():%d %B %Y}, {minutes} min, with",
        f"{measured} and {', '.join(f'{library} {version(library)}' for library in LIBRARIES)},",
        f"on {machine()}.",
    ]
    PAGES.mkdir(parents=True, exist_ok=True)
    with atomic(PAGES / f"{name}.md") as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return True


def run_script(name: str, arguments: Sequence[str]) -> list[str] | None:
    """Run a benchmark, pass on what it prints and return it line by line; None if it fails."""
    command = [sys.executable, f"benchmarks/{name}.py", *arguments]
    printed = []
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            printed.append(line.rstrip())
    return printed if process.returncode == 0 else None


def read_claim(name: str) -> tuple[str, str]:
    """Return what a benchmark claims, and the rest of what it says of itself."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))) or name
    title, _, about = text.partition("\n")
    title = title.removeprefix("Claim: ").rstrip(".")
    return title[0].upper() + title[1:], about.strip("\n")


def measured_version() -> str:
    """Return the version of brainstage that is measured, to the commit where there is one."""
    text = f"brainstage {version('brainstage')}"
    described = _git("rev-parse", "--short", "HEAD")
    if not described:
        return text
    return f"{text} ({described}{', changed' if _git('status', '--porcelain', '--', 'src', 'benchmarks') else ''})"


def _git(*words: str) -> str:
    result = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def machine() -> str:
    """Return the processor, its cores, the memory and the system, in words."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), processor)
    memory = ""
    if hasattr(os, "sysconf"):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    return f"{os.cpu_count()} cores of {processor}{memory}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    raise SystemExit(main())
