"""Timestep schedule and the UniPC solver in closed form. Pure functions.

The solver is UniPC (Zhao et al. 2023, arXiv 2302.04867) of order 2 with B(h) = e^h − 1 ("bh2") and x0 prediction, on
the flow matching path x = (1 − σ) x0 + σ noise. The solver is linear in the noise and the flows. Each step is therefore
one linear combination of them, whose coefficients depend on the noise levels σ only.
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
    """Noise levels and solver coefficients of N steps.

    sigmas: the N + 1 noise levels, the last one 0. timesteps: the N model inputs, 0 … 999. rows: row i holds the
    coefficients of (noise, v0 … vi) whose linear combination is the sample after step i.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[int, ...]
    rows: tuple[tuple[float, ...], ...]

    def advance(self, noise: Tensor, flows: Sequence[Tensor]) -> Tensor:
        """The sample after `len(flows)` steps, float32. noise, each flow and the result have the same shape `[...]`."""
        row = self.rows[len(flows) - 1]
        sample = row[0] * noise.float()
        for weight, flow in zip(row[1:], flows, strict=True):
            sample = sample.add(flow.float(), alpha=weight)
        return sample


def unipc(steps: int, shift: float = 5.0) -> Schedule:
    """Schedule with σ = shift · b / (1 + (shift − 1) · b), b evenly spaced from 0.999 down to 0.

    The coefficients are computed in float64. Raises ValueError for steps outside 1 … 1000 or a shift of 0 or less.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"steps {steps} is outside 1 … {MAX_STEPS}; distilled models use 2 or 4")
    if not shift > 0:
        raise ValueError(f"shift {shift} must be above 0; the models were trained with 5")
    # Rounded to float32 where the reference implementation rounds: the models were distilled at these values.
    top = _as_float32(0.999)
    base = [top * (1 - step / steps) for step in range(steps)]
    levels = [shift * b / (1 + (shift - 1) * b) for b in base]
    sigmas = (*(_as_float32(level) for level in levels), 0.0)
    return Schedule(sigmas, tuple(int(1000 * level) for level in levels), _rows(sigmas))


Form = list[float]
"""A linear form: the coefficients of (noise, v0 … vN-1)."""


def _rows(sigmas: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """`Schedule.rows`: runs the solver on linear forms instead of tensors.

    `predicted` is the model's input (UniP). `sample` is the same point after correction by its flow (UniC); the next
    prediction starts from it. λ = ln((1 − σ) / σ) is half the log signal-to-noise ratio.
    """
    steps = len(sigmas) - 1
    lambdas = [log((1 - sigma) / sigma) for sigma in sigmas[:-1]]
    clean: list[Form] = []
    predicted = sample = _unit(steps, 0)
    rows: list[tuple[float, ...]] = []
    for i in range(steps):
        clean.append(_sum((1.0, predicted), (-sigmas[i], _unit(steps, i + 1))))
        if i > 0:
            sample = _correct(sample, clean, sigmas, lambdas, i)
        predicted = clean[i] if i == steps - 1 else _predict(sample, clean, sigmas, lambdas, i)
        rows.append(tuple(predicted[: i + 2]))
    return tuple(rows)


def _predict(sample: Form, clean: list[Form], sigmas: Sequence[float], lambdas: Sequence[float], i: int) -> Form:
    """UniP, from σ_i to σ_i+1; of order 1 in the first step."""
    h = lambdas[i + 1] - lambdas[i]
    b = exp(-h) - 1
    forms = [(sigmas[i + 1] / sigmas[i], sample), (-(1 - sigmas[i + 1]) * b, clean[i])]
    if i > 0:
        ratio = (lambdas[i - 1] - lambdas[i]) / h
        slope = -(1 - sigmas[i + 1]) * b / (2 * ratio)
        forms += [(slope, clean[i - 1]), (-slope, clean[i])]
    return _sum(*forms)


def _correct(sample: Form, clean: list[Form], sigmas: Sequence[float], lambdas: Sequence[float], i: int) -> Form:
    """UniC, from σ_i-1 to σ_i with the flow at σ_i; of order 1 in the first correction."""
    h = lambdas[i] - lambdas[i - 1]
    b = exp(-h) - 1
    scale = -(1 - sigmas[i]) * b
    forms = [(sigmas[i] / sigmas[i - 1], sample), (scale, clean[i - 1])]
    if i == 1:
        return _sum(*forms, (scale / 2, clean[1]), (-scale / 2, clean[0]))
    ratio = (lambdas[i - 2] - lambdas[i - 1]) / h
    g = -b / h - 1
    # The solution of rho1 + rho2 = g / b and ratio · rho1 + rho2 = 2 (−g / h − 1/2) / b.
    first, second = g / b, 2 * (-g / h - 0.5) / b
    rho1 = (first - second) / (1 - ratio)
    rho2 = first - rho1
    past, new = scale * rho1 / ratio, scale * rho2
    return _sum(*forms, (past, clean[i - 2]), (new, clean[i]), (-past - new, clean[i - 1]))


def _as_float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def _unit(steps: int, index: int) -> Form:
    """The form of one variable: coefficient 1 at `index`, 0 elsewhere."""
    return [1.0 if i == index else 0.0 for i in range(steps + 1)]


def _sum(*terms: tuple[float, Form]) -> Form:
    """Σ weight · form."""
    return [sum(weight * form[i] for weight, form in terms) for i in range(len(terms[0][1]))]
