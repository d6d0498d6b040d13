"""What a device can do: data sheets of two accelerators, three numbers of your own, or this machine, measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trueprune._support.errors import PlanError
from trueprune.estimates.microbench import measure_cpu
from trueprune.estimates.work import Number

# Ours: what share of a data sheet's numbers programs of this kind reach. Long forwards of dense transformers are
# reported between 0.3 and 0.6; no accelerator was at hand to measure ours.
COMPUTE_SHARE, BANDWIDTH_SHARE = 0.4, 0.7
# Ours, for the host beside an accelerator: SHA-256 and files in bytes a second, float64 products, memory in
# bytes a second, starting a kernel.
HOST_HASH, HOST_READ, HOST_WRITE, HOST_FLOPS64, HOST_MOVED, LAUNCH = 1.5e9, 2.0e9, 1.0e9, 5e11, 2e10, 6e-6
# Ours: a selection reads each float32 so often (a radix selection by two bits of 32).
SELECT_READS = 16
# Ours: a factorisation reaches this share of what products in float32 do.
FACTOR_SHARE = 0.4


@dataclass(frozen=True)
class Device:
    """What a device can do, already at the speed that is expected of it.

    **Arguments:**

    - `name`: `cpu`, `a100`, `h100`, or the numbers that were given.
    - `peak`: floating-point operations a second on the data sheet (or as measured).
    - `rate`, `rate32`: of those in the model's dtype and in float32 that matrix products are expected to reach.
    - `attention`: the same for attention.
    - `pack`: seconds that a product takes for a weight whatever the batch.
    - `bandwidth`: bytes a second between memory and processors on the data sheet (or as measured).
    - `moved`: of those the ones that are expected to be reached.
    - `made`: the same where the result is a new tensor, whose memory must be had first.
    - `memory`: bytes.
    - `select`, `order`: numbers a second among which thresholds are found, row by row and of many at once.
    - `factor`: floating-point operations a second of factorisations in float32.
    - `host64`: floating-point operations a second in float64 on the host.
    - `host_moved`: bytes a second in the memory of the host.
    - `hash`: bytes a second through SHA-256.
    - `read`, `write`: bytes a second of files.
    - `link`: bytes a second by which weights arrive when a model is streamed.
    - `call`: seconds to start an operation.
    - `ahead`: whether operations are started while others run.
    - `how`: where the numbers come from.
    """

    name: str
    peak: Number
    rate: Number
    rate32: Number
    attention: Number
    pack: Number
    bandwidth: Number
    moved: Number
    made: Number
    memory: Number
    select: Number
    order: Number
    factor: Number
    host64: Number
    host_moved: Number
    hash: Number
    read: Number
    write: Number
    link: Number
    call: Number
    ahead: bool
    how: str

    @property
    def batch_tokens(self) -> int:
        """Tokens that go through a block in one call by default, as in the engine."""
        return 8192 if self.ahead else 1024


@dataclass(frozen=True)
class Sheet:
    """A data sheet.

    **Arguments:**

    - `flops`: dense products in bfloat16 or float16 on the tensor cores, a second.
    - `flops32`: in float32 beside the tensor cores, which is what torch uses unless it is told otherwise.
    - `bandwidth`: bytes a second.
    - `memory`: bytes.
    - `link`: bytes a second from the host, one way.
    """

    flops: Number
    flops32: Number
    bandwidth: Number
    memory: Number
    link: Number


# NVIDIA A100 80GB SXM, data sheet of June 2021: 312 TFLOPS bfloat16 dense, 19.5 TFLOPS float32, 2,039 GB/s, PCIe 4.0.
# NVIDIA H100 SXM, data sheet: 1,979 TFLOPS bfloat16 with sparsity, so half of it dense, 67 TFLOPS float32, 3.35 TB/s,
# 80 GB, PCIe 5.0 (64 GB/s each way).
SHEETS = {
    "a100": Sheet(312e12, 19.5e12, 2.039e12, 80e9, 32e9),
    "h100": Sheet(989.5e12, 67e12, 3.35e12, 80e9, 64e9),
}
NUMBERS = ("FLOPS", "BANDWIDTH", "MEMORY")
_REMEDY = f"Use cpu, {', '.join(SHEETS)}, or FLOPS,BANDWIDTH,MEMORY, e.g. 312e12,2.0e12,80e9"


def find_device(name: str, dtype: str = "bfloat16") -> Device:
    """A device by name or by three numbers.

    `cpu` is this machine: its speed is measured in under two seconds, once a process. `a100` and `h100` are NVIDIA's
    data sheets (80 GB, SXM) times shares that are ours: 0.4 of the FLOPS and 0.7 of the bandwidth. Three numbers are
    taken the same way, with the same FLOPS for float32.

    **Arguments:**

    - `name`: `cpu`, `a100`, `h100`, or `FLOPS,BANDWIDTH,MEMORY`: operations a second, bytes a second, bytes.
    - `dtype`: the dtype of the model.

    **Raises:** `PlanError` for anything else.
    """
    text = name.strip().lower()
    if text == "cpu":
        return _measured(dtype)
    if text in SHEETS:
        sheet = SHEETS[text]
        return _accelerator(text, sheet, dtype, "data sheet")
    if "," not in text:
        raise PlanError(f"unknown device {name!r}", _REMEDY)
    flops, bandwidth, memory = _numbers(name)
    return _accelerator(text, Sheet(flops, flops, bandwidth, memory, 32e9), dtype, "given")


def _numbers(name: str) -> list[Number]:
    parts = name.split(",")
    if len(parts) != len(NUMBERS):
        raise PlanError(f"the device {name!r} has {len(parts)} numbers, not {len(NUMBERS)}", _REMEDY)
    found = []
    for what, part in zip(NUMBERS, parts, strict=True):
        try:
            value = float(part)
        except ValueError as error:
            raise PlanError(f"{what} of the device {name!r} is no number: {part.strip()!r}", _REMEDY) from error
        if not (math.isfinite(value) and value > 0):
            raise PlanError(f"{what} of the device {name!r} is {part.strip()}, not above 0", _REMEDY)
        found.append(value)
    return found


def _accelerator(name: str, sheet: Sheet, dtype: str, source: str) -> Device:
    peak = sheet.flops32 if dtype == "float32" else sheet.flops
    moved = sheet.bandwidth * BANDWIDTH_SHARE
    return Device(
        name=name,
        peak=peak,
        rate=peak * COMPUTE_SHARE,
        rate32=sheet.flops32 * COMPUTE_SHARE,
        attention=peak * COMPUTE_SHARE,
        pack=0.0,
        bandwidth=sheet.bandwidth,
        moved=moved,
        made=moved,
        memory=sheet.memory,
        select=moved / (4 * SELECT_READS),
        order=moved / (4 * SELECT_READS),
        factor=sheet.flops32 * COMPUTE_SHARE * FACTOR_SHARE,
        host64=HOST_FLOPS64,
        host_moved=HOST_MOVED,
        hash=HOST_HASH,
        read=HOST_READ,
        write=HOST_WRITE,
        link=sheet.link * BANDWIDTH_SHARE,
        call=LAUNCH,
        ahead=True,
        how=f"{source}; {COMPUTE_SHARE:.0%} of its FLOPS and {BANDWIDTH_SHARE:.0%} of its bandwidth (our assumption)",
    )


def _measured(dtype: str) -> Device:
    found = measure_cpu(dtype)
    return Device(
        name="cpu",
        peak=found.products,
        rate=found.products,
        rate32=found.products32,
        attention=found.attention,
        pack=found.pack,
        bandwidth=found.moved,
        moved=found.moved,
        made=found.made,
        memory=found.memory,
        select=found.select,
        order=found.order,
        factor=found.factor,
        host64=found.products64,
        host_moved=found.moved,
        hash=found.hash,
        read=found.read,
        write=found.write,
        link=found.read,
        call=found.call,
        ahead=False,
        how=f"measured on this machine with {found.threads} threads",
    )
