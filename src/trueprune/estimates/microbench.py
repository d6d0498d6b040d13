"""How fast this machine is, by short trials of what runs are made of: products, copies, selections, hashes, files.

Legend: N rows, C columns.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch.nn import functional as F

# A trial is repeated for so long; the median counts.
TRIAL_SECONDS = 0.1
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Cpu:
    """What was measured, each a second: floating-point operations, bytes, or numbers.

    **Arguments:**

    - `products`, `products32`, `products64`: operations of matrix products in the dtype, in float32 and in float64.
    - `attention`: operations of attention in the dtype.
    - `pack`: seconds that a product takes for each weight beside its operations, as on few rows.
    - `factor`: operations of a Cholesky factorisation and the inverse from it, in float32.
    - `moved`, `made`: bytes read and written by a copy, and where the result is a new tensor.
    - `select`, `order`: numbers among which each row's middle is found, and the middle of many.
    - `hash`: bytes through SHA-256.
    - `read`, `write`: bytes of a file in the temporary folder, written through to the disk, read from the page cache.
    - `call`: seconds of an operation on few numbers.
    - `memory`: bytes of this machine.
    - `threads`: of torch.
    """

    products: float
    products32: float
    products64: float
    attention: float
    pack: float
    factor: float
    moved: float
    made: float
    select: float
    order: float
    hash: float
    read: float
    write: float
    call: float
    memory: float
    threads: int


@functools.cache
def measure_cpu(dtype: str) -> Cpu:
    """Measure this machine, in under two seconds; once a process and dtype.

    **Arguments:**

    - `dtype`: `float32`, `bfloat16` or `float16`.
    """
    kind: torch.dtype = getattr(torch, dtype)
    read, write = _file_speed()
    block = bytes(4 * MEGABYTE)
    products = _products(kind)
    return Cpu(
        products=products,
        products32=_products(torch.float32),
        products64=_products(torch.float64, 512),
        attention=_attention(kind),
        pack=_pack(kind, products),
        factor=_factorisation(),
        moved=_moved(),
        made=_made(),
        select=_selection(),
        order=_order(),
        hash=len(block) / _seconds(lambda: hashlib.sha256(block).digest()),
        read=read,
        write=write,
        call=_call(),
        memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        threads=torch.get_num_threads(),
    )


def _seconds(trial: Callable[[], object]) -> float:
    """The median of some repetitions, after one that does not count."""
    trial()
    found: list[float] = []
    while len(found) < 3 or (sum(found) < TRIAL_SECONDS and len(found) < 50):
        start = perf_counter()
        trial()
        found.append(perf_counter() - start)
    return float(np.median(found))


@torch.no_grad()
def _products(dtype: torch.dtype, size: int = 768) -> float:
    x, weight = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    return 2 * size**3 / _seconds(lambda: F.linear(x, weight))


@torch.no_grad()
def _pack(dtype: torch.dtype, rate: float, rows: int = 32, size: int = 1024) -> float:
    x, weight = torch.ones(rows, size, dtype=dtype), torch.ones(2 * size, size, dtype=dtype)
    return max(0.0, _seconds(lambda: F.linear(x, weight)) / weight.numel() - 2 * rows / rate)


@torch.no_grad()
def _attention(dtype: torch.dtype, heads: int = 8, positions: int = 512, width: int = 64) -> float:
    q = torch.ones(1, heads, positions, width, dtype=dtype)
    seconds = _seconds(lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True))
    return 4 * heads * positions**2 * width / seconds


def _factorisation(size: int = 1024) -> float:
    gram = torch.full((size, size), 0.1) + torch.eye(size)
    return size**3 / _seconds(lambda: torch.cholesky_inverse(torch.linalg.cholesky_ex(gram)[0]))


def _made(size: int = 4 * MEGABYTE) -> float:
    x = torch.ones(size)
    return 2 * size * 4 / _seconds(lambda: x * x)


def _moved() -> float:
    # Larger than the caches of a core, as weights and activations are.
    source = torch.ones(8 * MEGABYTE)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / _seconds(lambda: target.copy_(source))


def _selection(rows: int = 256, columns: int = 2048) -> float:
    score_NC = np.random.default_rng(0).random((rows, columns), dtype=np.float32)
    return score_NC.size / _seconds(lambda: np.partition(score_NC, columns // 2, axis=1))


def _order(size: int = 1 << 18) -> float:
    score = torch.rand(size, generator=torch.Generator().manual_seed(0))
    return size / _seconds(lambda: score.kthvalue(size // 2))


@torch.no_grad()
def _call(many: int = 50) -> float:
    layer, x = torch.nn.Linear(16, 16), torch.ones(1, 16)

    def trial() -> None:
        for _ in range(many):
            layer(x).add(x)

    # A module, its product and a sum: what forwards consist of.
    return _seconds(trial) / (2 * many)


def _file_speed(size: int = 32 * MEGABYTE) -> tuple[float, float]:
    block = os.urandom(MEGABYTE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trial"
        start = perf_counter()
        with file.open("wb") as handle:
            for _ in range(size // len(block)):
                handle.write(block)
            handle.flush()
            os.fsync(handle.fileno())
        written = perf_counter() - start
        start = perf_counter()
        file.read_bytes()
        return size / (perf_counter() - start), size / written
