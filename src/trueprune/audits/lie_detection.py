"""Lie detection: can a probe on the residual stream still tell true statements from false ones after pruning?

Legend: N statements, L layers (outputs of the decoder blocks), D width.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement
from trueprune.audits.probes import DEFAULT_OPTIONS, Probe, ProbeData, ProbeOptions, check_probe, fit_probe
from trueprune.audits.protocols import Split, grouped_splits, leave_one_topic_out, link_units, transfer_splits
from trueprune.observe.separation import separation_by_dataset
from trueprune.texts.statements import StatementSet

INSTRUMENT = "lie-detection"
PROTOCOLS = ("grouped", "leave-one-topic-out", "transfer")


def measure_lie_detection(
    statements: StatementSet,
    dense_NLD: torch.Tensor,
    pruned_NLD: torch.Tensor | None = None,
    *,
    probes: Sequence[str] = ("logistic", "mass-mean", "ttpd"),
    protocols: Sequence[str] = PROTOCOLS,
    layer: int | str = "dense",
    repeats: int = 5,
    options: ProbeOptions = DEFAULT_OPTIONS,
    seed: int = 0,
    balance: bool = True,
) -> list[Measurement]:
    """Accuracy of truth probes on statements whose facts they were not trained on, per statement.

    A *retrained* probe is trained and tested on the audited model: is truth still linearly readable? A *frozen* one is
    trained on the dense model and tested on the audited one: would a lie detector already in use still work? On the
    dense model both are the same.

    **Arguments:**

    - `statements`: N labelled statements.
    - `dense_NLD`: residual stream of the dense model at each statement's last token, after every block, of shape
        `(N, L, D)`.
    - `pruned_NLD`: the same of the audited model, at the same L places; `None` audits the dense model itself.
    - `probes`: keys of `trueprune.audits.probes.PROBES`.
    - `protocols`: any of `"grouped"`, `"leave-one-topic-out"`, `"transfer"`. One for which `statements` has nothing
        to test on (one topic; no other kinds) gives no measurements.
    - `layer`: `"dense"` takes, for every split, the layer at which true and false separate best on the *dense* training
        rows (mean over datasets of B/W, arXiv 2407.12831 and 2509.00096); `"own"` the same on the audited model; a
        number is that block, from 0; `"sweep"` is `"dense"`, and adds the logistic probe at every layer, grouped.
    - `repeats`: number of grouped splits.
    - `options`: how probes are solved.
    - `seed`: seed of the splits.
    - `balance`: train on equally many rows of every dataset (topic x polarity).

    **Returns:**

    One measurement a metric. Metrics are `protocol/probe/retrained` and `/frozen`, with a further `/affirmative` and
    `/negated` for the first two protocols; `transfer-KIND/probe/...`; and `grouped/logistic/retrained/layer-07` in a
    sweep. The value of an item is the share of the splits that tested it in which it was judged rightly; items are
    clustered by the first part of their group.
    """
    _check(statements, dense_NLD, pruned_NLD, probes, protocols, layer)
    audited_NLD = dense_NLD if pruned_NLD is None else pruned_NLD
    bench = _Bench(statements, dense_NLD, audited_NLD, layer, options, _headlines(probes, protocols))
    tasks: list[tuple[str, list[Split], bool]] = []
    grouped = grouped_splits(statements, repeats, seed=seed, balance=balance) if _needs_groups(protocols, layer) else []
    if "grouped" in protocols:
        tasks.append(("grouped", grouped, True))
    if "leave-one-topic-out" in protocols:
        tasks.append(("leave-one-topic-out", leave_one_topic_out(statements, balance=balance, seed=seed), True))
    if "transfer" in protocols:
        tasks += [(f"transfer-{s.name}", [s], False) for s in transfer_splits(statements, balance=balance, seed=seed)]

    measurements = []
    for protocol, splits, by_polarity in tasks:
        layers = [bench.choose_layer(split) for split in splits]
        for probe in probes:
            for training in ("retrained", "frozen") if splits else ():
                subsets = ("", "affirmative", "negated") if by_polarity else ("",)
                measurements += bench.measure(protocol, probe, training, splits, layers, subsets)
    if layer == "sweep":
        for number in range(dense_NLD.shape[1]):
            at = [number] * len(grouped)
            measurements += bench.measure("grouped", "logistic", "retrained", grouped, at, (f"layer-{number:02d}",))
    if not measurements:
        raise AuditError(
            f"{statements.name}: nothing to test under {', '.join(protocols)}",
            "Add statements of more topics or kinds, or the protocol 'grouped'",
        )
    return measurements


@dataclass(eq=False)
class _Bench:
    """Statements with the activations of both models; fits every (model, rows, probe, layer) once."""

    statements: StatementSet
    dense_NLD: torch.Tensor
    audited_NLD: torch.Tensor
    layer: int | str
    options: ProbeOptions
    headlines: frozenset[str]
    fits: dict[tuple, Probe] = field(default_factory=dict)
    layers: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self):
        rows = self.statements.rows
        self.labels_N = torch.from_numpy(self.statements.labels)
        sign = {"affirmative": 1, "negated": -1}
        # Translations count as neither polarity: CCS centres rows by the English means (arXiv 2407.12831).
        self.polarity_N = torch.tensor([sign.get(s.polarity, 0) if s.language == "en" else 0 for s in rows])
        self.polarities, self.topics, self.groups = (
            self.statements.polarities,
            self.statements.topics,
            self.statements.groups,
        )
        self.item_ids = np.array(statement_ids(self.statements), dtype=object)
        first_parts = [s.group.split("|")[0] for s in rows]
        self.clusters = np.array([g or i for g, i in zip(first_parts, self.item_ids, strict=True)], dtype=object)

    def choose_layer(self, split: Split) -> int:
        """The layer at which a split is probed."""
        if not isinstance(self.layer, str):
            return int(self.layer)
        key = split.train.tobytes()
        if key not in self.layers:
            acts_NLD = self.audited_NLD if self.layer == "own" else self.dense_NLD
            self.layers[key] = int(self._mean_separation(acts_NLD, split.train).argmax())
        return self.layers[key]

    def measure(
        self,
        protocol: str,
        probe: str,
        training: str,
        splits: Sequence[Split],
        layers: Sequence[int],
        subsets: Sequence[str],
    ) -> list[Measurement]:
        """Score one probe under one protocol; one measurement a subset that has items."""
        right_N, tested_N = np.zeros(len(self.statements)), np.zeros(len(self.statements))
        for split, layer in zip(splits, layers, strict=True):
            fitted = self._fit(probe, training == "frozen", split.train, layer)
            test = torch.from_numpy(split.test)
            logits = fitted.logits(self.audited_NLD[test, layer].float().cpu(), self.polarity_N[test])
            right_N[split.test] += ((logits > 0) == (self.labels_N[test] == 1)).numpy()
            tested_N[split.test] += 1
        details = {
            "protocol": protocol,
            "probe": probe,
            "training": training,
            "splits": [split.name for split in splits],
            "layers": list(layers),
            "n_train": [len(split.train) for split in splits],
            "penalty": None if self.options.reference else self.options.penalty,
        }
        measurements = []
        for subset in subsets:
            keep = tested_N > 0
            if subset in ("affirmative", "negated"):
                keep &= self.polarities == subset
            metric = "/".join(part for part in (protocol, probe, training, subset) if part)
            if keep.any():
                measurements.append(self._measurement(metric, keep, right_N[keep] / tested_N[keep], details))
        return measurements

    def _measurement(self, metric: str, keep: np.ndarray, values: np.ndarray, details: Mapping[str, Any]):
        return Measurement(
            instrument=INSTRUMENT,
            metric=metric,
            item_ids=self.item_ids[keep].tolist(),
            values=values,
            clusters=self.clusters[keep].tolist(),
            headline=metric in self.headlines,
            details=details,
        )

    def _fit(self, probe: str, on_dense: bool, train: np.ndarray, layer: int) -> Probe:
        acts_NLD = self.dense_NLD if on_dense else self.audited_NLD
        key = (acts_NLD is self.dense_NLD, probe, train.tobytes(), layer)
        if key not in self.fits:
            rows = torch.from_numpy(train)
            data = ProbeData(
                acts_NLD[rows, layer].float().cpu(),
                self.labels_N[rows],
                self.polarity_N[rows],
                self.topics[train],
                self.groups[train],
            )
            self.fits[key] = fit_probe(probe, data, self.options)
        return self.fits[key]

    def _mean_separation(self, acts_NLD: torch.Tensor, train: np.ndarray) -> torch.Tensor:
        by_dataset = separation_by_dataset(acts_NLD[torch.from_numpy(train)].cpu(), self.statements.take(train))
        return torch.stack(list(by_dataset.values())).mean(0)


def statement_ids(statements: StatementSet) -> list[str]:
    """Stable identifiers: 16 hex digits of SHA-256 of text and label; repeated statements get `-1`, `-2` and so on.

    **Arguments:**

    - `statements`: the statements.

    **Returns:**

    One identifier a statement, all different.
    """
    seen: Counter[str] = Counter()
    ids = []
    for statement in statements:
        digest = hashlib.sha256(f"{statement.text}\n{statement.label}".encode()).hexdigest()[:16]
        ids.append(f"{digest}-{seen[digest]}" if seen[digest] else digest)
        seen[digest] += 1
    return ids


def _headlines(probes: Sequence[str], protocols: Sequence[str]) -> frozenset[str]:
    """What tables show: the first probe, retrained under every protocol, and frozen under the first."""
    shown = [f"{protocol}/{probes[0]}/retrained" for protocol in protocols if protocol != "transfer"]
    if "transfer" in protocols:
        kinds = ("conjunction", "disjunction", "scenario") if len(protocols) == 1 else ()
        shown += [f"transfer-{kind}/{probes[0]}/retrained" for kind in kinds]
    frozen = protocols[0] if protocols[0] != "transfer" else "transfer-conjunction"
    return frozenset([*shown, f"{frozen}/{probes[0]}/frozen"])


def _needs_groups(protocols: Sequence[str], layer: int | str) -> bool:
    return "grouped" in protocols or layer == "sweep"


def _check(
    statements: StatementSet,
    dense_NLD: torch.Tensor,
    pruned_NLD: torch.Tensor | None,
    probes: Sequence[str],
    protocols: Sequence[str],
    layer: int | str,
) -> None:
    name, n = statements.name, len(statements)
    if not probes or not protocols:
        raise AuditError("no probe or no protocol of lie detection is named", "Name e.g. logistic and grouped")
    for probe in probes:
        check_probe(probe)
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise AuditError(f"there is no lie-detection protocol {protocol!r}", f"Choose from {', '.join(PROTOCOLS)}")
    if dense_NLD.ndim != 3 or len(dense_NLD) != n:
        raise AuditError(
            f"{name}: dense activations have shape {tuple(dense_NLD.shape)} for {n} statements",
            "Give a tensor of shape (statements, layers, width)",
        )
    if pruned_NLD is not None and pruned_NLD.shape != dense_NLD.shape:
        raise AuditError(
            f"{name}: activations of the audited model have shape {tuple(pruned_NLD.shape)}, "
            f"those of the dense model {tuple(dense_NLD.shape)}",
            "Measure both on the same statements and at the same blocks (a dropped block passes its input through)",
        )
    for model, acts_NLD in (("dense", dense_NLD), ("audited", pruned_NLD)):
        if acts_NLD is not None and not bool(torch.isfinite(acts_NLD).all()):
            raise AuditError(
                f"{name}: activations of the {model} model are not all finite",
                "Run the model in float32 or bfloat16; if it still overflows, it was pruned beyond use",
            )
    n_layers = dense_NLD.shape[1]
    if layer not in (*range(n_layers), "dense", "own", "sweep"):
        raise AuditError(
            f"there is no layer {layer!r} among {n_layers} layers",
            f"Give a number from 0 to {n_layers - 1}, or 'dense', 'own' or 'sweep'",
        )
    if len(set(statements.labels.tolist())) < 2:
        raise AuditError(f"{name}: all {n} statements have one label", "Give both true and false statements")
    plain = [i for i, s in enumerate(statements) if s.is_probing]
    if len(set(link_units(statements, np.array(plain, dtype=np.int64)).tolist())) < 2:
        raise AuditError(
            f"{name}: fewer than two groups among its {len(plain)} English affirmative and negated statements",
            "Give statements about more facts, or set their `group`",
        )
