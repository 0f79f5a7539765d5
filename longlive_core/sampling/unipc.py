"""Noise levels of a block and the solver in closed form. Pure functions.

The solver is UniPC (Zhao et al. 2023, arXiv 2302.04867), order 2, B(h) = e^h − 1 ("bh2"), predicting x0, on the flow
matching path x = (1 − σ) x0 + σ noise. Everything it does is linear in the noise and the flows, so a step is one small
linear combination whose coefficients depend on the noise levels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import torch
from torch import Tensor

MAX_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of a block: `sigmas` (one more than steps, the last 0), `timesteps` as the model is told them, and
    `rows`: row i weighs (noise, v0 … vi) to give the sample after step i."""

    sigmas: tuple[float, ...]
    timesteps: tuple[int, ...]
    rows: tuple[tuple[float, ...], ...]

    def advance(self, noise: Tensor, flows: Sequence[Tensor]) -> Tensor:
        """The sample after `len(flows)` steps, float32."""
        row = self.rows[len(flows) - 1]
        sample = row[0] * noise.float()
        for weight, flow in zip(row[1:], flows, strict=True):
            sample = sample.add(flow.float(), alpha=weight)
        return sample


def unipc(steps: int, shift: float = 5.0) -> Schedule:
    """Schedule of any number of steps: σ = shift · b / (1 + (shift − 1) · b) for b evenly from 0.999 to 0.

    Coefficients in float64. Raises ValueError for steps outside 1 … 1000.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"steps {steps} is outside 1 … {MAX_STEPS}; distilled models use 2 or 4")
    if not shift > 0:
        raise ValueError(f"shift {shift} must be above 0; the models were trained with 5")
    # The reference keeps the first level and the finished list in float32; models were distilled at those values.
    most = _as_float32(0.999)
    base = [most * (1 - step / steps) for step in range(steps)]
    levels = [shift * b / (1 + (shift - 1) * b) for b in base]
    sigmas = (*(_as_float32(level) for level in levels), 0.0)
    return Schedule(sigmas, tuple(int(1000 * level) for level in levels), _rows(sigmas))


# Below: linear forms. A form is its weights on (noise, v0 … vN-1); unused ones are 0.

Form = list[float]


def _rows(sigmas: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Solves the recursion on forms instead of tensors.

    `fed` is what the model saw, `sample` the same point corrected once its flow is known; the corrected one is only
    ever the start of the next step. λ = ln((1 − σ) / σ) is half the log signal-to-noise ratio.
    """
    steps = len(sigmas) - 1
    lambdas = [log((1 - sigma) / sigma) for sigma in sigmas[:-1]]
    clean: list[Form] = []
    fed = sample = _unit(steps, 0)
    rows: list[tuple[float, ...]] = []
    for i in range(steps):
        clean.append(_sum((1.0, fed), (-sigmas[i], _unit(steps, i + 1))))
        if i > 0:
            sample = _corrected(sample, clean, sigmas, lambdas, i)
        fed = clean[i] if i == steps - 1 else _predicted(sample, clean, sigmas, lambdas, i)
        rows.append(tuple(fed[: i + 2]))
    return tuple(rows)


def _predicted(sample: Form, clean: list[Form], sigmas: Sequence[float], lambdas: Sequence[float], i: int) -> Form:
    """UniP from σ_i to σ_i+1."""
    h = lambdas[i + 1] - lambdas[i]
    b = exp(-h) - 1
    forms = [(sigmas[i + 1] / sigmas[i], sample), (-(1 - sigmas[i + 1]) * b, clean[i])]
    if i > 0:
        ratio = (lambdas[i - 1] - lambdas[i]) / h
        slope = -(1 - sigmas[i + 1]) * b / (2 * ratio)
        forms += [(slope, clean[i - 1]), (-slope, clean[i])]
    return _sum(*forms)


def _corrected(sample: Form, clean: list[Form], sigmas: Sequence[float], lambdas: Sequence[float], i: int) -> Form:
    """UniC from σ_i-1 to σ_i, with the flow at σ_i known."""
    h = lambdas[i] - lambdas[i - 1]
    b = exp(-h) - 1
    scale = -(1 - sigmas[i]) * b
    forms = [(sigmas[i] / sigmas[i - 1], sample), (scale, clean[i - 1])]
    if i == 1:
        return _sum(*forms, (scale / 2, clean[1]), (-scale / 2, clean[0]))
    ratio = (lambdas[i - 2] - lambdas[i - 1]) / h
    g = -b / h - 1
    # Solves rho1 + rho2 = g / b, ratio · rho1 + rho2 = 2 (−g / h − 1/2) / b.
    first, second = g / b, 2 * (-g / h - 0.5) / b
    rho1 = (first - second) / (1 - ratio)
    rho2 = first - rho1
    past, new = scale * rho1 / ratio, scale * rho2
    return _sum(*forms, (past, clean[i - 2]), (new, clean[i]), (-past - new, clean[i - 1]))


def _as_float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def _unit(steps: int, place: int) -> Form:
    return [1.0 if i == place else 0.0 for i in range(steps + 1)]


def _sum(*terms: tuple[float, Form]) -> Form:
    return [sum(weight * form[i] for weight, form in terms) for i in range(len(terms[0][1]))]
