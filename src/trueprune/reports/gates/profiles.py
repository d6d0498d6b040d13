"""The gates that come with the package: three degrees of caution, in TOML files that can be copied and changed."""

from __future__ import annotations

import difflib
from importlib import resources

from trueprune._support.errors import AuditError
from trueprune.reports.gates.contract import Gate
from trueprune.reports.gates.read import gate_from_text

PROFILES = ("strict", "balanced", "lenient")


def profile(name: str) -> Gate:
    """A gate of the package.

    **Arguments:**

    - `name`: `strict`, `balanced` or `lenient`.

    **Raises:** `AuditError` if there is no such profile.
    """
    return gate_from_text(profile_text(name), f"the profile {name}", name)


def profile_text(name: str) -> str:
    """The TOML file of a profile, to begin a gate of one's own with.

    **Raises:** `AuditError` if there is no such profile.
    """
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, 1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise AuditError(f"there is no profile {name!r}", f"{meant}Use one of {', '.join(PROFILES)}, or --gate FILE")
    return (resources.files("trueprune.reports.gates") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
