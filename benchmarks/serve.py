"""Claim: an exported network is faster and starts within 1.5 s, and a server serves 64 clients correctly.

    python benchmarks/serve.py [--vit] [--seconds 60] [--workers-only] [--first-only]

The bundled ``compact`` as it is, as ONNX, and as ONNX of 8-bit integers: slices a second in batches of 32 on all
cores, how long a single slice takes (median and 99th percentile), both from a decoded slice to its probabilities,
and how long a fresh process takes from its start to its end (median of five). Engines take turns, in one run.
``--vit`` adds a ViT-base for 224 pixels with random weights, in fp32.

Then a server of each model, and of ``compact`` as ONNX, under 1, 8 and 64 clients that ask for one slice after
another and compare each reply with the model's own prediction. Clients and server share the cores.

Then how long a new server takes from the start of its process to the reply to its first request, a slice or a
volume of 1.5 mm (median of five, with the processor time that the server had used by then), beside the same request
again. ``--first-only`` measures nothing else.

Last, servers of 1 and of 2 worker processes under ``wrk`` (a package of Debian), a client that takes little of the
cores itself: it sends one slice again and again on 1, 8 and 64 connections. The servers of a model take turns.
``--workers-only`` likewise.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brainstage.core.arrays import Pixels
from brainstage.core.errors import RunError
from brainstage.core.schema import PROB_PREFIX, STAGES
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SliceTable, slice_id
from brainstage.exports.export import export
from brainstage.inference.predictor import BATCH, Predictor
from brainstage.models.weights import bundled_folder
from brainstage.scans.nifti import as_integers, encode_nifti
from brainstage.scans.registration import grid_points, mapped, mni152, sample

ROUNDS, FIRST = 3, 5
"""Turns of each engine, and fresh processes."""
CLIENTS = (1, 8, 64)
PICTURES = 256
WARM = 10.0
"""Seconds of a load before it is measured."""
PAUSE = 0.2
"""Seconds that a client waits when the server is busy."""
WORKERS = (1, 2)
LIGHT_SECONDS, LIGHT_ROUNDS = 6, 3
"""Length and number of the loads by ``wrk``."""
MILLISECONDS = {"us": 0.001, "ms": 1, "s": 1000}

Query = tuple[bytes, str, NDArray[np.float32]]
"""A slice as PNG, its hash, and the probabilities of its stages."""


@dataclass
class Contender:
    """A model on an engine, and what was measured of it."""

    name: str
    folder: Path
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of single slices."""
    first: list[float] = field(default_factory=list)


def main() -> None:
    """Print the speed of each engine of each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vit", action="store_true", help="also a ViT-base with random weights")
    parser.add_argument("--seconds", type=float, default=60, help="of each load of the server; 0 for none")
    parser.add_argument("--workers-only", action="store_true", help="only servers of several processes, by wrk")
    parser.add_argument("--first-only", action="store_true", help="only the first reply of a new server")
    options = parser.parse_args()
    slices = load_slices()
    sides = slices.rows["split"].to_pylist()
    images = [image for image, side in zip(slices.images, sides, strict=True) if side == "test"]
    print(f"{os.cpu_count()} cores, {len(images):,} test slices, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.first_only:
            first_replies(images[0])
            return
        if options.workers_only:
            export(bundled_folder("compact"), folder / "compact-onnx", int8=False, slices=slices)
            under_wrk(("patient", "compact", str(folder / "compact-onnx")), images[0], folder)
            return
        compact, forms = bundled_folder("compact"), {"onnx": False, "onnx int8": True}
        engines(exported("compact", compact, folder, slices, forms), images, folder, 200)
        if options.vit:
            contenders = exported("ViT-base", random_vit(folder / "vit"), folder, slices, {"onnx": False})
            engines(contenders, images[:64], folder, 10)
        patient = Contender("patient, numpy", bundled_folder("patient"))
        first_answers([patient], images[0], folder)
        print(f"{patient.name:22}{'':44}{statistics.median(patient.first):7.2f}")
        if options.seconds:
            for model in ("patient", "compact", str(folder / "compact-onnx")):
                under_clients(model, images, options.seconds)
        first_replies(images[0])
        under_wrk(("patient", "compact", str(folder / "compact-onnx")), images[0], folder)


# --- engines -----------------------------------------------------------------------------------------------------


def exported(name: str, run: Path, folder: Path, slices: SliceTable, forms: Mapping[str, bool]) -> list[Contender]:
    """Return a run and its exports; ``forms`` names them and says which are of 8-bit integers."""
    found = [Contender(f"{name}, torch", run)]
    for label, int8 in forms.items():
        try:
            done = export(run, folder / f"{name}-{label}".replace(" ", "-"), int8=int8, slices=slices)
        except RunError as error:
            print(f"{name}, {label}: {error}")
            continue
        parity = done.parity
        print(f"{done.title}, {done.megabytes} MB")
        print(
            f"  probabilities within {parity.max_probability_difference:.1e} of PyTorch's "
            f"on {parity.slices} {parity.source}"
        )
        if done.int8:
            print(f"  {done.facts['int8']}")
        found.append(Contender(f"{name}, {label}", done.folder))
    return found


def random_vit(run: Path) -> Path:
    """Make a run folder of a ViT-base with random weights."""
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    numbers = {name: number for number, name in enumerate(STAGES)}
    network = ViTForImageClassification(ViTConfig(id2label=dict(enumerate(STAGES)), label2id=numbers))
    network.save_pretrained(run / "model")
    Preprocessing(224, None, (0.5,) * 3, (0.5,) * 3, resample=2).save(run / "model")
    about = {"recipe": "ViT-base, random", "protocol": "official", "leakage": {"sentence": "fitted on nothing"}}
    (run / "manifest.json").write_text(json.dumps(about), encoding="utf-8")
    return run


def engines(contenders: Sequence[Contender], images: Sequence[Pixels], folder: Path, singles: int) -> None:
    """Measure and print each engine, the first as the measure of the others."""
    for _ in range(ROUNDS):
        for one in contenders:
            measure(one, images, singles)
    first_answers(contenders, images[0], folder)
    print(f"{'':22}{'images/s':>10}{'':9}{'p50 ms':>9}{'p99 ms':>9}{'':7}{'first s':>7}")
    base = statistics.median(contenders[0].rates)
    for one in contenders:
        rate, (middle, late) = statistics.median(one.rates), 1000 * np.quantile(one.seconds, [0.5, 0.99])
        print(
            f"{one.name:22}{rate:10,.1f}{rate / base:7.2f} ×{middle:9.2f}{late:9.2f}"
            f"{'':7}{statistics.median(one.first):7.2f}"
        )


def measure(one: Contender, images: Sequence[Pixels], singles: int) -> None:
    """Add one turn of batches on all cores, and of single slices."""
    predictor = Predictor.open(one.folder)
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    with predictor.pool() as pool:
        list(pool.map(predictor.predict_proba, batches[:2]))  # warm
        start = time.perf_counter()
        list(pool.map(predictor.predict_proba, batches))
        one.rates.append(len(images) / (time.perf_counter() - start))
    for number in range(singles):
        start = time.perf_counter()
        predictor.predict_proba([images[number % len(images)]])
        one.seconds.append(time.perf_counter() - start)


def first_answers(contenders: Sequence[Contender], image: Pixels, folder: Path) -> None:
    """Time fresh processes, from start to end."""
    picture = folder / "one.png"
    Image.fromarray(image).save(picture)
    for _ in range(FIRST):
        for one in contenders:
            command = [sys.executable, "-m", "brainstage", "predict", str(one.folder), str(picture), "--quiet"]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            one.first.append(time.perf_counter() - start)


# --- the server --------------------------------------------------------------------------------------------------


def first_replies(image: Pixels) -> None:
    """Print how long a new server takes from its start to its first reply."""
    print(f"{'':24}{'first s':>9}{'processor s':>13}{'again s':>9}")
    for name, content in (("slice", _png(image)), ("volume", _volume())):
        timed = [_time_first(content) for _ in range(FIRST)]
        first, processor, again = (statistics.median(values) for values in zip(*timed, strict=True))
        print(f"{f'new server, {name}':24}{first:9.2f}{processor:13.2f}{again:9.2f}", flush=True)


def _time_first(content: bytes) -> tuple[float, float, float]:
    """Return seconds to the first reply, the processor time of the server by then, and those of a second reply."""
    start = time.perf_counter()
    with started() as server, httpx2.Client(base_url=server.address, timeout=120, trust_env=False) as client:
        client.post("/v1/predict", files={"files": content}).raise_for_status()
        first, processor = time.perf_counter() - start, server.processor_seconds()
        start = time.perf_counter()
        client.post("/v1/predict", files={"files": content}).raise_for_status()
        return first, processor, time.perf_counter() - start


def _volume() -> bytes:
    """Return the template's brain in voxels of 1.5 mm, as a NIfTI file."""
    template = mni152()
    affine = template.affine @ np.diag([*(1.5 / template.spacing), 1])
    shape = tuple(np.ceil(np.array(template.voxels.shape) * template.spacing / 1.5).astype(int))
    voxels = sample(template, mapped(affine, grid_points(shape))).reshape(shape)
    return encode_nifti(as_integers(voxels), affine)


@dataclass
class Load:
    """What clients measured: how often each outcome occurred, and the seconds of each reply."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


def under_clients(model: str, images: Sequence[Pixels], seconds: float) -> None:
    """Print the speed of a server for 1, 8 and 64 clients."""
    chosen = [images[row] for row in np.random.default_rng(0).permutation(len(images))[:PICTURES]]
    expected = Predictor.open(model).predict_proba(chosen)
    queries = [(_png(one), slice_id(one), known) for one, known in zip(chosen, expected, strict=True)]
    print(f"{'':24}{'slices/s':>9}{'p50 ms':>9}{'p99 ms':>9}")
    with served(model) as address:
        for clients in CLIENTS:
            asyncio.run(_ask_all(address, queries, clients, WARM, Load()))
            load = Load()
            asyncio.run(_ask_all(address, queries, clients, seconds, load))
            middle, late = 1000 * np.percentile(load.seconds, (50, 99))
            outcomes = ", ".join(f"{name} {count:,}" for name, count in sorted(load.outcomes.items()))
            name = f"{Path(model).name}, {clients} clients"
            print(f"{name:24}{len(load.seconds) / seconds:9.1f}{middle:9.1f}{late:9.1f}  {outcomes}", flush=True)


@contextmanager
def served(model: str) -> Iterator[str]:
    """Yield the address of a new server."""
    with started(model) as server:
        yield server.address


@dataclass
class Served:
    """A running server."""

    workers: int
    address: str
    pid: int

    def processor_seconds(self) -> float:
        """Return the processor time that it has used; NaN where there is no /proc."""
        fields = _read(Path(f"/proc/{self.pid}/stat")).rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else float("nan")

    def megabytes(self) -> float:
        """Return the memory of its processes; what they share counts once. NaN where there is no /proc."""
        processes = [self.pid, *map(int, _read(Path(f"/proc/{self.pid}/task/{self.pid}/children")).split())]
        sizes = [re.search(r"^Pss: +(\d+) kB", _read(Path(f"/proc/{pid}/smaps_rollup")), re.M) for pid in processes]
        return sum(int(size[1]) for size in sizes if size) / 1000 if any(sizes) else float("nan")


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


@contextmanager
def started(*models: str, workers: int = 1) -> Iterator[Served]:
    """Yield a new server; without models it serves the bundled ones."""
    command = [sys.executable, "-m", "brainstage", "serve", "--port", "0", "--workers", str(workers), *models]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Served(workers, process.stdout.readline().strip() if process.stdout else "", process.pid)
        finally:
            process.terminate()


def under_wrk(models: Sequence[str], image: Pixels, folder: Path) -> None:
    """Print the speed of servers of one and of several workers for connections of a light client."""
    if shutil.which("wrk") is None:
        print("servers of several workers: not measured, wrk is missing; get it with: apt-get install wrk")
        return
    script = folder / "form.lua"
    _write_script(script, image)
    print(f"wrk, load {os.getloadavg()[0]:.1f} at the start")
    print(f"{'':30}{'workers':>8}{'requests/s':>12}{'of 1':>8}{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}{'MB':>7}")
    for model in models:
        with ExitStack() as stack:
            servers = [stack.enter_context(started(model, workers=workers)) for workers in WORKERS]
            for server in servers:
                light_load(server, CLIENTS[-1], script)  # warms up
            for connections in CLIENTS:
                _print_light(Path(model).name, connections, servers, script)


def _write_script(script: Path, image: Pixels) -> None:
    """Write what wrk sends: a form with one slice."""
    boundary = "a-boundary-of-the-form"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="1"\r\n\r\n'
    body = script.with_suffix(".body")
    body.write_bytes(head.encode() + _png(image) + f"\r\n--{boundary}--\r\n".encode())
    script.write_text(
        f'wrk.method, wrk.body = "POST", io.open("{body}", "rb"):read("*a")\n'
        f'wrk.headers["Content-Type"] = "multipart/form-data; boundary={boundary}"\n',
        encoding="utf-8",
    )


def _print_light(name: str, connections: int, servers: Sequence[Served], script: Path) -> None:
    loads: dict[int, list[LightLoad]] = {server.workers: [] for server in servers}
    for _ in range(LIGHT_ROUNDS):
        for server in servers:
            loads[server.workers].append(light_load(server, connections, script))
    first = statistics.median(load.rate for load in loads[servers[0].workers]) or float("nan")
    for server in servers:
        rate, middle, late, _ = (statistics.median(values) for values in zip(*loads[server.workers], strict=True))
        refused = sum(load.refused for load in loads[server.workers])
        print(
            f"{f'{name}, {connections} connections':30}{server.workers:8}{rate:12.1f}{rate / first:8.2f}"
            f"{middle:9.1f}{late:9.1f}{refused:9.0f}{server.megabytes():7.0f}",
            flush=True,
        )


class LightLoad(NamedTuple):
    """What ``wrk`` measured: requests a second, milliseconds, and how many replies were no prediction."""

    rate: float
    middle: float
    late: float
    refused: float


def light_load(server: Served, connections: int, script: Path) -> LightLoad:
    """Have ``wrk`` send a form on each connection again and again, for some seconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{LIGHT_SECONDS}", "--timeout=60", "--latency", f"-s{script}"]
    printed = subprocess.run(
        [*command, f"{server.address}/v1/predict"], check=True, capture_output=True, text=True
    ).stdout

    def figure(pattern: str) -> float:
        match = re.search(pattern, printed)
        unit = MILLISECONDS.get(match[2], 1) if match and match.lastindex == 2 else 1
        return float(match[1]) * unit if match else 0.0  # a line that wrk leaves out counts nothing

    return LightLoad(
        figure(r"Requests/sec: +([\d.]+)"),
        figure(r"50% +([\d.]+)(us|ms|s)"),
        figure(r"99% +([\d.]+)(us|ms|s)"),
        figure(r"Non-2xx or 3xx responses: (\d+)"),
    )


async def _ask_all(address: str, queries: Sequence[Query], clients: int, seconds: float, load: Load) -> None:
    end = time.perf_counter() + seconds
    await asyncio.gather(*(_ask(address, queries, end, load) for _ in range(clients)))


async def _ask(address: str, queries: Sequence[Query], end: float, load: Load) -> None:
    """Send one picture after another until the end."""
    async with httpx2.AsyncClient(base_url=address, timeout=60, trust_env=False) as client:
        while (start := time.perf_counter()) < end:
            picture, identity, known = random.choice(queries)
            reply = await client.post("/v1/predict", files={"files": picture})
            if reply.status_code == 503:
                load.outcomes["503"] += 1
                await asyncio.sleep(PAUSE)
                continue
            load.seconds.append(time.perf_counter() - start)
            load.outcomes["right" if _right(reply, identity, known) else "wrong"] += 1


def _right(reply: httpx2.Response, identity: str, known: NDArray[np.float32]) -> bool:
    """Return whether a reply is the prediction for the slice that was sent."""
    if reply.status_code != 200:
        return False
    (row,) = reply.json()["predictions"]
    given = [value for name, value in row.items() if name.startswith(PROB_PREFIX)]
    return row["slice_id"] == identity and bool(np.allclose(given, known, atol=1e-3))


def _png(image: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


if __name__ == "__main__":
    main()
