"""The folder of a sweep: cells, what was observed on dense models, and what failed, each whole or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueprune._support.errors import OutputError
from trueprune._support.files import whole_file
from trueprune._support.folders import check_output, whole_folder
from trueprune.audits.measurement import Measurement
from trueprune.audits.stored import read_measurements, write_measurements
from trueprune.reports.audit import AuditedModel

CELL, DENSE, MEASURED = "cell.json", "dense.json", "measurements.parquet"
FOLDERS = ("cells", "dense", "failed", "running")


@dataclass(frozen=True)
class Store:
    """A folder that holds the results of a sweep, or of several.

    **Arguments:**

    - `folder`: where.
    """

    folder: Path

    def prepare(self, models: Sequence[str | Path]) -> None:
        """Make the folders.

        **Raises:** `OutputError` for a folder that holds something else, or a model of the grid.
        """
        folder = self.folder
        check_output(folder, True, [model for model in models if Path(model).exists()])
        # Each cell would change the model's fingerprint.
        for model in models:
            if Path(model).is_dir() and Path(model).resolve() in folder.resolve().parents:
                raise OutputError(f"the output {folder} lies in the model {model}", "Choose another folder with -o")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "cells").is_dir():
            raise OutputError(f"the output {folder} is no folder of a sweep", "Choose another with -o")
        for name in (*FOLDERS, "dense/index"):
            try:
                (folder / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"cannot make the folder {folder / name} ({error.strerror})", "Choose another"
                ) from error

    def cell(self, name: str) -> Path:
        """The folder of a cell."""
        return self.folder / "cells" / name

    def dense(self, name: str) -> Path:
        """The folder of what was measured or observed on a dense model."""
        return self.folder / "dense" / name

    def has(self, name: str) -> bool:
        """Whether a cell is complete."""
        return (self.cell(name) / CELL).is_file()

    def publish(self, folder: Path, write: Callable[[Path], None]) -> None:
        """Write a folder whole, unless another sweep was first."""
        known = CELL if folder.parent.name == "cells" else DENSE
        try:
            with whole_folder(folder) as work:
                write(work)
        except OSError:
            if not (folder / known).is_file():
                raise
        except OutputError:
            if not (folder / known).is_file():
                raise

    def fail(self, name: str, data: Mapping[str, Any]) -> None:
        """Record a cell that failed."""
        write_json(self.folder / "failed" / f"{name}.json", data)

    def failure(self, name: str) -> dict[str, Any] | None:
        """Why a cell failed when it was last tried, or `None`."""
        return read_json(self.folder / "failed" / f"{name}.json")

    def succeed(self, name: str) -> None:
        """Forget that a cell failed before."""
        (self.folder / "failed" / f"{name}.json").unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what a sweep that was killed left unfinished; only when no other one runs in the folder."""
        for folder in (self.folder, *(self.folder / name for name in FOLDERS), self.folder / "dense" / "index"):
            for left in folder.glob(".*"):
                if left.suffix in (".partial", ".old"):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        for claim in (self.folder / "running").glob("*.json"):
            claim.unlink(missing_ok=True)


def write_audited(audited: AuditedModel, work: Path, about: Mapping[str, Any], *, resamples: int, seed: int) -> None:
    """Write what was measured, and what it was measured on last: it says that the folder is complete.

    **Arguments:**

    - `audited`: the measurements.
    - `work`: an existing folder.
    - `about`: what goes into the JSON file beside the names and curves; its `file` is the name of that.
    - `resamples`, `seed`: of the bootstrap that compares them.
    """
    write_measurements(audited.measurements, work / MEASURED, resamples=resamples, seed=seed)
    data = {**about, "about": audited.about, "curves": audited.curves}
    write_json(work / data.pop("file"), data)


def read_audited(folder: Path, name: str) -> tuple[AuditedModel, dict[str, Any]]:
    """What `write_audited` wrote, under a name, and the JSON beside it.

    **Raises:** `AuditError` if the measurements cannot be read.
    """
    data = read_json(folder / CELL) or read_json(folder / DENSE) or {}
    measurements: list[Measurement] = read_measurements(folder / MEASURED)
    return AuditedModel(name, measurements, data.get("about", {}), data.get("curves", {})), data


def write_json(file: Path, data: Any) -> None:
    """Write plain data, whole or not at all."""
    with whole_file(file) as work:
        work.write_text(json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """Plain data, or `None` if there is none that can be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
