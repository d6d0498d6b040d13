"""Logistic regression by Newton's method, because generic solvers take minutes on raw activations and stop early.

Legend: N rows, D features, U unknowns (D in the primal, N in the dual).
"""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

from trueprune._support.errors import AuditError
from trueprune.audits.probes.base import LinearProbe, ProbeData, ProbeOptions, require_both_classes
from trueprune.audits.probes.reference import fit_reference

# Keeps a regression on one or two features finite when they separate the classes perfectly; on overlapping classes of
# a thousand rows it moves the coefficients by a few millionths.
SMALL_PENALTY = 1e-3


def fit(data: ProbeData, options: ProbeOptions) -> LinearProbe:
    """Logistic regression of the label on raw activations.

    **Arguments:**

    - `data`: the training rows.
    - `options`: the penalty; or `reference=True` for scikit-learn without one, as in arXiv 2407.12831.

    **Returns:**

    The probe.
    """
    return LinearProbe(*solve(data.acts_ND, data.labels_N, options.penalty, options.reference))


def solve(x_ND: torch.Tensor, y_N: torch.Tensor, penalty: float, reference: bool) -> tuple[torch.Tensor, float]:
    """`fit_logistic`, or with `reference` the papers' unpenalised scikit-learn fit; same arguments and returns."""
    return fit_reference(x_ND, y_N) if reference else fit_logistic(x_ND, y_N, penalty)


def fit_logistic(
    x_ND: torch.Tensor, y_N: torch.Tensor, penalty: float, *, tolerance: float = 1e-9, max_steps: int = 100
) -> tuple[torch.Tensor, float]:
    """L2-penalised logistic regression on standardised features, to convergence in float64.

    Minimises Σ_i [log(1 + exp f_i) - y_i f_i] + penalty/2 · ‖w‖² with f = Z w + b, where Z is x standardised and b is
    not penalised. Newton's method (IRLS) with a backtracking line search; about ten steps. Where N < D it solves
    for the N numbers α of w = Zᵀα instead (the penalty makes every optimum of that form), through the Gram matrix
    K = Z Zᵀ, at one N x N Cholesky factorisation a step.

    **Arguments:**

    - `x_ND`: raw features, of shape `(N, D)`; constant ones get weight 0.
    - `y_N`: 0 or 1, of shape `(N,)`, both present.
    - `penalty`: above 0.
    - `tolerance`: the last step is the one with a squared Newton decrement (twice the decrease that is left) below
        this.
    - `max_steps`: give up converging after so many steps.

    **Returns:**

    Coefficients on the *raw* features, of shape `(D,)`, float64, and the intercept.
    """
    require_both_classes(y_N)
    if not penalty > 0:
        raise AuditError(f"the penalty of a logistic regression is {penalty}", "Give a penalty above 0")
    mean_D, scale_D, z_ND = standardise(x_ND)
    y_N = y_N.double()
    dual = z_ND.shape[0] < z_ND.shape[1]
    f_NU = z_ND @ z_ND.T if dual else z_ND  # logits are f_NU @ u + b in both forms
    u_U, b = f_NU.new_zeros(f_NU.shape[1]), torch.logit(y_N.mean())
    fu_N = f_NU @ u_U

    def objective(u_U: torch.Tensor, fu_N: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        squared_norm = u_U @ (fu_N if dual else u_U)
        return (softplus(fu_N + b, threshold=40) - y_N * (fu_N + b)).sum() + penalty / 2 * squared_norm

    value = objective(u_U, fu_N, b)
    for _ in range(max_steps):
        p_N = torch.sigmoid(fu_N + b)
        residual_N, curvature_N = p_N - y_N, p_N * (1 - p_N)
        # In the dual every equation has a common factor K on its left, dropped here: K may be singular.
        gradient_U = (residual_N if dual else f_NU.T @ residual_N) + penalty * u_U
        coupling_U = curvature_N if dual else f_NU.T @ curvature_N
        newton = _solve_dual if dual else _solve_primal
        down_U, along_U = newton(f_NU, curvature_N, penalty, torch.stack([-gradient_U, coupling_U], 1)).unbind(1)
        # Eliminate the unpenalised intercept from the bordered Newton system.
        row_U = f_NU.T @ curvature_N
        step_b = (-residual_N.sum() - row_U @ down_U) / (curvature_N.sum() - row_U @ along_U)
        step_U = down_U - step_b * along_U
        step_N = f_NU @ step_U
        slope = gradient_U @ (step_N if dual else step_U) + residual_N.sum() * step_b
        if -slope <= tolerance:  # one more full step: so close to the optimum it squares the error
            u_U, b = u_U + step_U, b + step_b
            break
        size = 1.0
        while size > 1e-8:
            candidate = (u_U + size * step_U, fu_N + size * step_N, b + size * step_b)
            new_value = objective(*candidate)
            if new_value <= value + 1e-4 * size * slope:
                break
            size /= 2
        else:
            break  # no decrease left that float64 can see
        (u_U, fu_N, b), value = candidate, new_value
    weight_D = (z_ND.T @ u_U if dual else u_U) / scale_D
    return weight_D, float(b - mean_D @ weight_D)


def standardise(x_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, scale (population standard deviation; 1 where a feature is constant) and standardised features.

    **Returns:**

    Float64 tensors of shapes `(D,)`, `(D,)` and `(N, D)`.
    """
    x_ND = x_ND.double()
    mean_D = x_ND.mean(0)
    centred_ND = x_ND - mean_D
    std_D = centred_ND.square().mean(0).sqrt()
    # A constant feature has a standard deviation of rounding error only: dividing by it would blow that error up.
    constant_D = std_D <= 1e-12 * x_ND.abs().amax(0)
    scale_D = torch.where(constant_D, 1.0, std_D)
    return mean_D, scale_D, centred_ND.masked_fill_(constant_D, 0.0).div_(scale_D)


def _solve_primal(z_ND: torch.Tensor, c_N: torch.Tensor, penalty: float, rhs_D2: torch.Tensor) -> torch.Tensor:
    """(Zᵀ C Z + penalty I)⁻¹ rhs with C = diag(c)."""
    hessian_DD = z_ND.T @ (z_ND * c_N[:, None])
    hessian_DD.diagonal().add_(penalty)
    return torch.cholesky_solve(rhs_D2, torch.linalg.cholesky(hessian_DD))


def _solve_dual(k_NN: torch.Tensor, c_N: torch.Tensor, penalty: float, rhs_N2: torch.Tensor) -> torch.Tensor:
    """(C K + penalty I)⁻¹ rhs in the symmetric form (I - C^½ (penalty I + C^½ K C^½)⁻¹ C^½ K) rhs / penalty."""
    root_N1 = c_N.sqrt()[:, None]
    b_NN = k_NN * root_N1 * root_N1.T
    b_NN.diagonal().add_(penalty)
    inner_N2 = torch.cholesky_solve(root_N1 * (k_NN @ rhs_N2), torch.linalg.cholesky(b_NN))
    return (rhs_N2 - root_N1 * inner_N2) / penalty
