"""The page: what the document of an audit says, in one HTML file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trueprune._support.errors import AuditError
from trueprune.reports.html.clean import cleaned
from trueprune.reports.html.views.models import cost_view, not_measured, reproduce_view, touched_view
from trueprune.reports.html.views.overview import models_view, overview_view, verdict_view
from trueprune.reports.html.views.properties import property_view
from trueprune.reports.html.views.table import Measured
from trueprune.reports.html.views.tradeoffs import COST, tradeoffs
from trueprune.reports.html.views.worst import worst_view

READS = 2
_REMEDY = "Give the audit.json that this version of trueprune audit wrote"


def render(document: Mapping[str, Any]) -> str:
    """One self-contained page: no request, no script that it needs, every string of the document escaped.

    **Arguments:**

    - `document`: as `AuditReport.to_json()` gives it, or read from `audit.json`.

    **Raises:** `AuditError` for a document of another schema, or one that is no audit's.
    """
    if document.get("schema") != READS:
        raise AuditError(f"the audit has schema {document.get('schema')!r}, and reports are made of {READS}", _REMEDY)
    try:
        return _environment().get_template("page.html.j2").render(_view(cleaned(document)))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise AuditError(f"the audit cannot be read ({type(error).__name__}: {error})", _REMEDY) from error


def _view(document: Mapping[str, Any]) -> dict[str, Any]:
    measured = Measured(document)
    found = [property_view(measured, about, f"property-{place}") for place, about in enumerate(measured.instruments)]
    style, script = _asset("style.css"), _asset("script.js")
    return {
        "style": Markup(style),
        "script": Markup(script),
        "policy": _policy(style, script),
        "dense": document["dense"],
        "models": models_view(document),
        "verdict": verdict_view(document),
        "overview": overview_view(measured),
        "tradeoffs": tradeoffs(measured),
        "properties": [one for one in found if one["name"] != COST],
        "speed": next((one for one in found if one["name"] == COST), None),
        "worst": worst_view(measured),
        "touched": touched_view(document),
        "costs": cost_view(document),
        "reproduce": reproduce_view(document),
        "missing": not_measured(document),
        "tests": sum(bool(row["headline"] and (row["change"] or {}).get("test")) for row in document["measurements"]),
    }


def _policy(style: str, script: str) -> str:
    """Nothing may be loaded, and no style or script may run but the page's own two."""
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    # Every template is HTML, whatever its name ends in. A name that a view lacks is a mistake, and no empty cell.
    return Environment(
        loader=PackageLoader("trueprune.reports.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _asset(name: str) -> str:
    file = resources.files("trueprune.reports.html") / "assets" / name
    return file.read_text(encoding="utf-8").replace("\r\n", "\n")
