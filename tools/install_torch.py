"""Install torch into a virtual environment: the CPU build, or with CUDA for a machine with an NVIDIA GPU.

On Linux the package index's torch brings gigabytes of CUDA. The CPU build carries a local version (+cpu) and
comes from PyTorch's own index; asking for that exact version means that CUDA can never come in by surprise.
"""

from __future__ import annotations

import subprocess
import sys

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main(python: str, build: str, version: str) -> int:
    """Install and return pip's exit code."""
    if build not in ("cpu", "gpu"):
        print(f"TORCH={build}: expected cpu or gpu", file=sys.stderr)
        return 2
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if build == "gpu" or sys.platform != "linux":
        return subprocess.call([*pip, f"torch=={version}"])
    wanted = f"torch=={version}+cpu"
    # a wheel that pip already knows of (a mirror, a folder) is as good, and needs no other index
    if subprocess.call([*pip, wanted], stderr=subprocess.DEVNULL) == 0:
        return 0
    return subprocess.call([*pip, "--extra-index-url", CPU_INDEX, wanted])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
