"""Where a healing stands, written so that a run that was cut off goes on bit by bit as if it had not been.

A folder with `state.json` (plain data, written last) and the safetensors file that it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trueprune._support.errors import RepairError

SCHEMA = 1
# All that a store writes: nothing else in its folder is ever replaced or removed.
OWN = ("state.json", ".state.json.part", "step-*.safetensors", ".step-*.safetensors.part")


@dataclass(frozen=True, eq=False)
class Store:
    """The folder of one healing.

    **Arguments:**

    - `folder`: beside the output, `OUT.healing`.
    - `settings`: all that decides the result, as plain data.
    - `notes`: plain data to be found again.
    """

    folder: Path
    settings: Mapping[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def begun(self) -> bool:
        """Whether a state was written."""
        return (self.folder / "state.json").is_file()

    def read(self) -> dict[str, Any] | None:
        """What was written last, without its tensors; `None` where nothing was.

        **Raises:** `RepairError` that names the first setting that differs, a damaged file, or one that is not ours.
        """
        if other := self._others():
            raise RepairError(
                f"{self.folder}, where a healing keeps its state, is or holds something else ({other[0].name})",
                "Move it away, or choose another folder with -o",
            )
        file = self.folder / "state.json"
        if not self.begun:
            return None
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            known = {"schema": state["schema"], **state["settings"]}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise RepairError(f"{file} cannot be read ({error})", f"Remove {self.folder} to start again") from error
        # As they would come back from JSON: tuples are lists there.
        for name, value in json.loads(json.dumps({"schema": SCHEMA, **self.settings})).items():
            if known.get(name) != value:
                raise RepairError(
                    f"{self.folder} holds a healing that was cut off, with {name} {known.get(name)!r}, not {value!r}",
                    "Go on with the same settings, or remove that folder to start again",
                )
        return state

    def tensors(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors that belong to what `read` gave.

        **Raises:** `RepairError` for a damaged file.
        """
        file = self.folder / str(state["tensors"])
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise RepairError(f"{file} cannot be read ({error})", f"Remove {self.folder} to start again") from error

    def write(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Keep a state; the one before stays until this one is whole.

        **Raises:** `RepairError` if it cannot be written.
        """
        name = f"step-{state['step']:06d}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f".{name}.part"
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, part)
            _settle(part, self.folder / name)
            text = {"schema": SCHEMA, "settings": dict(self.settings), "notes": self.notes, "tensors": name, **state}
            part = self.folder / ".state.json.part"
            part.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            _settle(part, self.folder / "state.json")
            for old in self.folder.glob("step-*.safetensors"):
                if old.name != name:
                    old.unlink()
        except (OSError, SafetensorError) as error:
            raise RepairError(f"cannot write {self.folder} ({error})", "Free some space; run again to go on") from error

    def remove(self) -> None:
        """Take away what was written, once the model is saved."""
        with suppress(OSError):
            for pattern in OWN:
                for file in self.folder.glob(pattern):
                    file.unlink()
            self.folder.rmdir()

    def _others(self) -> list[Path]:
        if self.folder.exists() and not self.folder.is_dir():
            return [self.folder]
        found = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        return [path for path in found if not any(path.match(pattern) for pattern in OWN)]


def _settle(part: Path, file: Path) -> None:
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.replace(file)
