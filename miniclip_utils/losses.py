"""Contrastive losses. All take L2-normalised features (N, D) and the scale that multiplies their cosines."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .distributed import gather, rank


def clip_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy (paper figure 3): pair i is right, the N − 1 others are wrong.

    Args:
        image_features, text_features: (N, D), L2-normalised, row i of each from the same pair.
        logit_scale: positive scalar, the inverse temperature (`model.logit_scale.exp()`).

    Returns:
        scalar; ln N for features that know nothing.
    """
    logits = logit_scale * image_features @ text_features.T  # (N, N)
    targets = torch.arange(len(logits), device=logits.device)
    image_to_text = F.cross_entropy(logits, targets)
    text_to_image = F.cross_entropy(logits.T, targets)
    return (image_to_text + text_to_image) / 2


def hard_negative_loss(
    image_features: Tensor, text_features: Tensor, negative_features: Tensor, logit_scale: Tensor
) -> Tensor:
    """`clip_loss` with texts that fit no image: further columns of its matrix (NegCLIP, Yuksekgonul et al. 2023).

    Each image is compared with all N + M texts, each of the N texts with all images. The M others have no image.

    Args:
        image_features, text_features: (N, D), L2-normalised, row i of each from the same pair.
        negative_features: (M, D), L2-normalised, of M ≥ 0 further texts.

    Returns:
        scalar; `clip_loss` if M is 0.
    """
    logits = logit_scale * image_features @ text_features.T  # (N, N)
    negative_logits = logit_scale * image_features @ negative_features.T  # (N, M)
    targets = torch.arange(len(logits), device=logits.device)
    image_to_text = F.cross_entropy(torch.cat([logits, negative_logits], dim=1), targets)
    text_to_image = F.cross_entropy(logits.T, targets)
    return (image_to_text + text_to_image) / 2


def chunked_clip_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor, chunk_size: int = 256) -> Tensor:
    """`clip_loss` without the N×N matrix: the same value and gradients, a few rows of logits at a time.

    Each cross-entropy is the logsumexp of a row or column minus the logit of its true pair. Only these logsumexps are
    kept for the backward pass, which computes the logits once more: one matrix product more than `clip_loss`, in
    memory that grows with N · chunk_size.

    Args:
        chunk_size: rows of logits that exist at once.
    """
    return _ChunkedClipLoss.apply(image_features, text_features, logit_scale, chunk_size)


def _chunked_logsumexps(scaled: Tensor, text_features: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    """The logsumexps of all rows and of all columns, (N,) each, of the logits `scaled @ text_features.T`."""
    rows, columns = scaled.new_empty(len(scaled)), scaled.new_full((len(scaled),), -math.inf)
    for start in range(0, len(scaled), chunk_size):
        part = slice(start, start + chunk_size)
        logits = scaled[part] @ text_features.T  # (chunk, N)
        rows[part] = logits.logsumexp(dim=1)
        columns = torch.logaddexp(columns, logits.logsumexp(dim=0))
    return rows, columns


def _chunked_gradients(
    scaled: Tensor, text_features: Tensor, rows: Tensor, columns: Tensor, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """The gradients of the loss with respect to `scaled` and `text_features`, (N, D) each, from logits computed anew."""
    scaled_gradient, text_gradient = torch.empty_like(scaled), torch.zeros_like(text_features)
    for start in range(0, len(scaled), chunk_size):
        part = slice(start, start + chunk_size)
        logits = scaled[part] @ text_features.T  # (chunk, N)
        gradient = (logits - rows[part, None]).exp_()  # softmax of the rows
        gradient += logits.sub_(columns).exp_()  # softmax of the columns
        gradient.diagonal(start).sub_(2)  # a 1 in each direction
        gradient /= 2 * len(scaled)
        scaled_gradient[part] = gradient @ text_features
        text_gradient.addmm_(gradient.T, scaled[part])
    return scaled_gradient, text_gradient


class _ChunkedClipLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image_features: Tensor, text_features: Tensor, logit_scale: Tensor, chunk_size: int) -> Tensor:
        scaled = logit_scale * image_features
        rows, columns = _chunked_logsumexps(scaled, text_features, chunk_size)
        ctx.save_for_backward(image_features, text_features, logit_scale, rows, columns)
        ctx.chunk_size = chunk_size
        return ((rows + columns) / 2 - (scaled * text_features).sum(dim=1)).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        image_features, text_features, logit_scale, rows, columns = ctx.saved_tensors
        scaled = logit_scale * image_features
        of_scaled, of_text = _chunked_gradients(scaled, text_features, rows, columns, ctx.chunk_size)
        of_scale = (of_scaled * image_features).sum()
        return gradient * logit_scale * of_scaled, gradient * of_text, gradient * of_scale, None


def sharded_clip_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """`clip_loss` of the batches of all processes together, of which each computes only its own rows (paper §2.5).

    The mean over the processes is the loss of one process with the whole batch. So are the gradients, once
    `average_gradients` has averaged them.

    Args:
        image_features, text_features: (B, D), L2-normalised, this process's share; B must be the same everywhere.

    Returns:
        scalar: the mean over this process's B pairs, each compared with the features of all processes.
    """
    targets = rank() * len(image_features) + torch.arange(len(image_features), device=image_features.device)
    image_to_text = F.cross_entropy(logit_scale * image_features @ gather(text_features).T, targets)  # (B, P·B)
    text_to_image = F.cross_entropy(logit_scale * text_features @ gather(image_features).T, targets)
    return (image_to_text + text_to_image) / 2


def multi_positive_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """`clip_loss` for batches where several pairs say the same: every text of an image's class is right for it.

    The target of each row is spread evenly over the pairs with its label (UniCL, Yang et al. 2022).

    Args:
        labels: int64 (N,), equal for pairs that mean the same.
        label_smoothing: fraction of each target that is spread over the whole row (Szegedy et al. 2016, §7).
    """
    logits = logit_scale * image_features @ text_features.T  # (N, N)
    same = (labels[:, None] == labels[None, :]).to(logits.dtype)
    targets = same / same.sum(dim=1, keepdim=True)
    image_to_text = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    text_to_image = F.cross_entropy(logits.T, targets, label_smoothing=label_smoothing)
    return (image_to_text + text_to_image) / 2


def loss_floor(labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The least that `clip_loss` or `multi_positive_loss` can reach on a batch with these labels (N,).

    No cross-entropy is below the entropy of its target. A perfect model cannot tell copies of one caption apart: a
    row with k copies costs ln k, and more if its target is smoothed.
    """
    same = (labels[:, None] == labels[None, :]).float()
    targets = (1 - label_smoothing) * same / same.sum(dim=1, keepdim=True) + label_smoothing / len(labels)
    return torch.special.entr(targets).sum(dim=1).mean()


def siglip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, logit_bias: Tensor, labels: Tensor | None = None
) -> Tensor:
    """The sigmoid loss (SigLIP, Zhai et al. 2023): each of the N² cells is a yes-or-no question of its own.

    Args:
        logit_bias: scalar added to each logit; SigLIP starts it at −10, since most cells are "no".
        labels: int64 (N,); cells of equal labels are "yes". Without labels only the diagonal is.

    Returns:
        scalar: the sum over all cells, divided by N.
    """
    logits = logit_scale * image_features @ text_features.T + logit_bias  # (N, N)
    labels = torch.arange(len(logits), device=logits.device) if labels is None else labels
    same = (labels[:, None] == labels[None, :]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, same, reduction="sum") / len(logits)
