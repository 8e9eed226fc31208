"""Predicts the losses of merges that were not scored: a Gaussian process for each term of the objective.

The objective is a sum: the safety loss rises with a weight while a domain's loss falls, so that the sum has curved
valleys that a model of the sum learns slowly. Each loss alone is smooth, and its logarithm nearly straight. So each
term's logarithm has its own process over the unit cube (a composite model: Astudillo and Frazier, ICML 2019); the sum's
mean and spread follow to first order. The processes are scikit-learn's: Matern 5/2 kernel, one length scale for each
axis, noise, all fitted by maximum likelihood.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LENGTHS = (0.2, 10.0)
"""Bounds of the kernel's length scales, in sides of the unit cube: shorter ones would fit noise."""
LEAST = 1e-9
"""Nats: smallest term whose logarithm is modelled, and smallest gain that is worth a candidate."""


class Prediction(NamedTuple):
    """Objectives of n points, (n,) each, in nats per token.

    Attributes:
        median: expected value, without noise.
        spread: standard deviation of the median.
        noise: standard deviation of scores around the median.
    """

    median: Array
    spread: Array
    noise: Array

    def improvement(self, best: float) -> Array:
        """(n,) expected improvement on `best` in nats (Jones, Schonlau and Welch 1998)."""
        from scipy.stats import norm

        gain = best - self.median
        units = gain / self.spread
        expected: Array = gain * norm.cdf(units) + self.spread * norm.pdf(units)
        return expected


class LossModel:
    """Gaussian processes fitted to scored points.

    Args:
        points: (n, axes) in the unit cube.
        terms: (n, m) losses in nats per token, whose sum over m is the objective.
    """

    def __init__(self, points: Sequence[Sequence[float]], terms: Sequence[Sequence[float]]) -> None:
        places, logs = np.asarray(points, dtype=float), np.log(np.maximum(np.asarray(terms, dtype=float), LEAST))
        self._processes = [_Process(places, logs[:, term]) for term in range(logs.shape[1])]

    def predict(self, points: Array) -> Prediction:
        """The objective at (k, axes) points."""
        median, variance, noise = (np.zeros(len(points)) for _ in range(3))
        for process in self._processes:
            mean, deviation = process.predict(points)
            term = np.exp(mean)
            median += term
            variance += (term * deviation) ** 2
            noise += (term * process.noise) ** 2
        return Prediction(median, np.sqrt(np.maximum(variance, LEAST**2)), np.sqrt(noise))


class _Process:
    """A Gaussian process of one term's logarithm.

    Args:
        points: (n, axes).
        logs: (n,).

    Attributes:
        noise: standard deviation of the logarithms around the process.
    """

    def __init__(self, points: Array, logs: Array) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        smooth = Matern(np.full(points.shape[1], 0.7), LENGTHS, nu=2.5)
        kernel = ConstantKernel(1.0, (0.1, 1e3)) * smooth + WhiteKernel(1e-5, (1e-6, 1e-2))
        self._mean, self._scale = float(logs.mean()), float(logs.std()) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a length scale at its bound: the term does not depend on that axis
            self._regressor = GaussianProcessRegressor(kernel).fit(points, (logs - self._mean) / self._scale)
        self._variance = float(self._regressor.kernel_.k2.noise_level)
        self.noise = self._scale * math.sqrt(self._variance)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation without noise, (k,) each; scikit-learn's deviation includes the noise."""
        mean, deviation = self._regressor.predict(points, return_std=True)
        spread = np.sqrt(np.maximum(deviation**2 - self._variance, 0.0))
        return self._mean + self._scale * mean, self._scale * spread
