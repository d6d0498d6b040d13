"""Truth probes on the residual stream: small classifiers that read "true" or "false" from a statement's last token.

A new probe is one file with `fit(data, options) -> Probe` and one line in `PROBES`.
"""

from __future__ import annotations

from collections.abc import Callable

from trueprune._support.errors import AuditError
from trueprune.audits.probes import ccs, logistic, mass_mean, ttpd
from trueprune.audits.probes.base import LinearProbe, Probe, ProbeData, ProbeOptions
from trueprune.audits.probes.logistic import fit_logistic

PROBES: dict[str, Callable[[ProbeData, ProbeOptions], Probe]] = {
    "logistic": logistic.fit,
    "mass-mean": mass_mean.fit,
    "ccs": ccs.fit,
    "ttpd": ttpd.fit,
}
DEFAULT_OPTIONS = ProbeOptions()


def fit_probe(name: str, data: ProbeData, options: ProbeOptions = DEFAULT_OPTIONS) -> Probe:
    """Fit the probe called `name`.

    **Arguments:**

    - `name`: a key of `PROBES`.
    - `data`: the training rows.
    - `options`: penalty, reference mode, seed.

    **Returns:**

    The fitted probe; its prediction is `probe.logits(acts) > 0`.
    """
    return PROBES[check_probe(name)](data, options)


def check_probe(name: str) -> str:
    """Return `name` if it is a key of `PROBES`, raise `AuditError` if not."""
    if name not in PROBES:
        raise AuditError(f"there is no probe {name!r}", f"Choose from {', '.join(PROBES)}")
    return name


__all__ = [
    "DEFAULT_OPTIONS",
    "PROBES",
    "LinearProbe",
    "Probe",
    "ProbeData",
    "ProbeOptions",
    "check_probe",
    "fit_logistic",
    "fit_probe",
]
