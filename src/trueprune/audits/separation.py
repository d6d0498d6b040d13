"""The separation of true and false statements as an instrument: its curve over blocks, and its height with an interval.

Legend: N statements, L blocks, D residual width, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trueprune._support.errors import AuditError
from trueprune.audits.lie_detection import statement_ids
from trueprune.audits.measurement import Measurement
from trueprune.observe.separation import separation_by_dataset
from trueprune.texts.statements import StatementSet

INSTRUMENT = "separation"


def separation_curve(statements: StatementSet, acts_NLD: Tensor) -> Tensor:
    """Mean over datasets (topic and polarity) of the separation ratio in each block, of shape `(L,)`."""
    return torch.stack(list(separation_by_dataset(acts_NLD, probing_rows(statements, acts_NLD)[0]).values())).mean(0)


def probing_rows(statements: StatementSet, acts_NLD: Tensor) -> tuple[StatementSet, Tensor]:
    """The English affirmative and negated statements and their activations."""
    rows = np.array([index for index, row in enumerate(statements) if row.is_probing], dtype=np.int64)
    if not len(rows):
        raise AuditError(f"{statements.name} holds no English affirmative or negated statement", "Give some")
    return statements.take(rows), acts_NLD[torch.from_numpy(rows)]


def measure_separation(statements: StatementSet, acts_NLD: Tensor, layer: int) -> Measurement:
    """The separation ratio in one block, averaged over datasets, with statements as items.

    **Arguments:**

    - `statements`: N statements.
    - `acts_NLD`: of shape `(N, L, D)`.
    - `layer`: the block, 0-based; the dense model's peak, so that all models are read at one place.
    """
    rows, acts = probing_rows(statements, acts_NLD)
    acts_ND = acts[:, layer].double().numpy()
    ids = statement_ids(rows)
    names = np.array([f"{t}/{p}" for t, p in zip(rows.topics, rows.polarities, strict=True)])
    return SeparationMeasurement(
        INSTRUMENT,
        "ratio-at-dense-peak",
        ids,
        np.linalg.norm(acts_ND, axis=1),
        clusters=[group.split("|")[0] or item for group, item in zip(rows.groups, ids, strict=True)],
        headline=True,
        details={"layer": layer},
        acts_ND=acts_ND,
        labels_N=rows.labels,
        datasets_N=names,
    )


@dataclass(frozen=True, eq=False)
class SeparationMeasurement(Measurement):
    """A ratio of variances: no mean of per-item values, but computed for all resamples at once from weighted moments.

    `values` are the norms of the activations.
    """

    acts_ND: np.ndarray | None = None
    labels_N: np.ndarray | None = None
    datasets_N: np.ndarray | None = None

    def resample(self, counts_Rn: np.ndarray) -> np.ndarray:
        """The separation ratio on resampled statements, of shape `(R,)`."""
        assert self.datasets_N is not None
        ratios = [self._ratio(counts_Rn, self.datasets_N == name) for name in sorted(set(self.datasets_N))]
        # A resample may leave a dataset without a class; it then says nothing about that dataset.
        ratios_SR = np.stack(ratios)
        known_SR = np.isfinite(ratios_SR)
        return np.where(known_SR, ratios_SR, 0).sum(0) / np.where(known_SR.any(0), known_SR.sum(0), np.nan)

    def _ratio(self, counts_Rn: np.ndarray, dataset: np.ndarray) -> np.ndarray:
        assert self.acts_ND is not None and self.labels_N is not None
        means, variances, totals = [], [], []
        centre_D = self.acts_ND[dataset].mean(0)
        for label in (0, 1):
            where = dataset & (self.labels_N == label)
            # Centred, so that the variance is no small difference of large numbers.
            counts, acts = counts_Rn[:, where], self.acts_ND[where] - centre_D
            total_R = counts.sum(1)
            safe_R = np.maximum(total_R, 1)
            mean_RD = counts @ acts / safe_R[:, None]
            square_R = counts @ (acts**2).sum(1) / safe_R
            spread_R = (square_R - (mean_RD**2).sum(1)) * safe_R / np.maximum(total_R - 1, 1)
            means.append(mean_RD)
            # One statement drawn many times has no variance, only rounding.
            variances.append(np.where((counts > 0).sum(1) > 1, spread_R, np.nan))
            totals.append(total_R)
        both_R = np.maximum(totals[0] + totals[1], 1)
        overall_RD = (means[0] * totals[0][:, None] + means[1] * totals[1][:, None]) / both_R[:, None]
        between_R = sum(((mean_RD - overall_RD) ** 2).sum(1) for mean_RD in means) / 2
        within_R = (variances[0] + variances[1]) / 2
        # Statements that all end in the same activation are not separated, as in `separation_ratio`.
        noise = 1e-20 * max(float((self.acts_ND[dataset] ** 2).sum(1).max()), 1e-300)
        return np.where(within_R <= noise, 0.0, between_R / np.maximum(within_R, noise))
