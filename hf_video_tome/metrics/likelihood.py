"""Log-probabilities, likelihood and divergence of class distributions."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def log_probabilities(scores: torch.Tensor, from_probabilities: bool = False) -> torch.Tensor:
    """Returns the log-probabilities of logits or of probabilities.

    Args:
        scores: (N, C) logits, or probabilities.
        from_probabilities: Whether they are probabilities.

    Returns:
        (N, C) log-probabilities in nats; -inf where the probability is 0.

    Examples:
        >>> log_probabilities(torch.tensor([[1.0, 0.0]]), from_probabilities=True)
        tensor([[0., -inf]])
    """
    return scores.log() if from_probabilities else scores.log_softmax(dim=1)


def negative_log_likelihood(logs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the negative log-likelihood of the correct class of each sample.

    Args:
        logs: (N, C) log-probabilities.
        labels: (N,) correct class ids, 0 to C - 1.

    Returns:
        (N,) negative log-likelihoods in nats; inf where the correct class has probability 0.

    Examples:
        >>> negative_log_likelihood(log_probabilities(torch.tensor([[0.0, 0.0]])), torch.tensor([1]))
        tensor([0.6931])
    """
    return F.nll_loss(logs, labels, reduction="none") + 0.0  # turns -0.0 (probability 1) into 0.0


def kl_divergence(reference: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """Returns KL(reference || prediction) of each sample.

    Args:
        reference: (N, C) log-probabilities.
        prediction: (N, C) log-probabilities.

    Returns:
        (N,) divergences in nats, at least 0; inf where the prediction excludes a class that the reference does not.

    Examples:
        >>> reference, prediction = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> kl_divergence(reference.log(), prediction.log())
        tensor([0.1438])
    """
    possible = reference > -torch.inf  # 0 log 0 is 0
    gaps = F.kl_div(prediction.where(possible, 0), reference.where(possible, 0), reduction="none", log_target=True)
    # Rounding, and probabilities that do not quite add up to 1, may give slightly negative values.
    return gaps.sum(dim=1).clamp(min=0)
