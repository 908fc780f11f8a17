"""The losses against the paper's algorithm in float64, open_clip, their definitions, and finite differences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from miniclip_utils import losses
from miniclip_utils.losses import (
    chunked_clip_loss,
    clip_loss,
    hard_negative_loss,
    loss_floor,
    multi_positive_loss,
    siglip_loss,
)

N, D = 12, 5
SCALE = torch.tensor(10.0, dtype=torch.float64)


def features(n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    image, text = torch.randn(2, n, D, dtype=torch.float64)
    return F.normalize(image, dim=1), F.normalize(text, dim=1)


def paper_loss(image_features: np.ndarray, text_features: np.ndarray, scale: float) -> float:
    """Figure 3 of the paper, in NumPy."""
    logits = image_features @ text_features.T * scale

    def cross_entropy(logits: np.ndarray, axis: int) -> float:
        log_probability = logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True))
        return -np.diag(log_probability).mean()

    return (cross_entropy(logits, axis=0) + cross_entropy(logits, axis=1)) / 2


def test_clip_loss_equals_the_paper():
    image, text = features()
    expected = paper_loss(image.numpy(), text.numpy(), SCALE.item())
    assert clip_loss(image, text, SCALE).item() == pytest.approx(expected, rel=1e-12)


def test_clip_loss_and_gradients_equal_open_clip():
    open_clip = pytest.importorskip("open_clip")
    ours, theirs = features(), None
    theirs = [tensor.clone().requires_grad_() for tensor in ours]
    ours = [tensor.requires_grad_() for tensor in ours]
    clip_loss(*ours, SCALE).backward()
    expected = open_clip.ClipLoss()(*theirs, SCALE)
    expected.backward()
    assert clip_loss(*ours, SCALE).item() == pytest.approx(expected.item(), rel=1e-12)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("m", [0, 3, N])
def test_hard_negative_loss_by_its_definition(m):
    image, text = features()
    negative = F.normalize(torch.randn(m, D, dtype=torch.float64), dim=1)
    wide = (SCALE * image @ torch.cat([text, negative]).T).numpy()
    rows = -np.diag(wide[:, :N] - np.log(np.exp(wide).sum(axis=1, keepdims=True)))
    columns = -np.diag(wide[:, :N] - np.log(np.exp(wide[:, :N]).sum(axis=0, keepdims=True)))
    expected = (rows.mean() + columns.mean()) / 2
    assert hard_negative_loss(image, text, negative, SCALE).item() == pytest.approx(expected, rel=1e-12)


def test_hard_negative_loss_without_negatives_is_clip_loss():
    image, text = features()
    torch.testing.assert_close(hard_negative_loss(image, text, text[:0], SCALE), clip_loss(image, text, SCALE))


def test_gradients_of_hard_negative_loss_equal_finite_differences():
    image, text = (part.requires_grad_() for part in features(4))
    negative = F.normalize(torch.randn(3, D, dtype=torch.float64), dim=1).requires_grad_()
    scale = SCALE.clone().requires_grad_()
    assert torch.autograd.gradcheck(hard_negative_loss, (image, text, negative, scale))


def test_siglip_loss_equals_open_clip():
    open_clip = pytest.importorskip("open_clip")
    image, text = features()
    bias = torch.tensor(-10.0, dtype=torch.float64)
    expected = open_clip.loss.SigLipLoss()(image, text, SCALE, bias)
    assert siglip_loss(image, text, SCALE, bias).item() == pytest.approx(expected.item(), rel=1e-12)


def test_siglip_loss_by_its_definition():
    image, text = features()
    bias, labels = torch.tensor(-3.0, dtype=torch.float64), torch.randint(4, (N,))
    total = 0.0
    for i in range(N):
        for j in range(N):
            sign = 1 if labels[i] == labels[j] else -1
            total += math.log(1 + math.exp(-sign * (SCALE * image[i] @ text[j] + bias).item()))
    assert siglip_loss(image, text, SCALE, bias, labels).item() == pytest.approx(total / N, rel=1e-12)


def test_multi_positive_loss_by_its_definition():
    image, text = features()
    labels = torch.randint(4, (N,))
    logits = (SCALE * image @ text.T).numpy()
    total = 0.0
    for matrix in (logits, logits.T):
        for i in range(N):
            log_probability = matrix[i] - np.log(np.exp(matrix[i]).sum())
            total -= log_probability[(labels == labels[i]).numpy()].mean() / N
    assert multi_positive_loss(image, text, SCALE, labels).item() == pytest.approx(total / 2, rel=1e-12)


def test_label_smoothing_by_its_definition():
    image, text = features(6)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    logits = SCALE * image @ text.T
    away = -(logits.log_softmax(dim=1).mean(dim=1) + logits.log_softmax(dim=0).mean(dim=0)).mean() / 2  # all texts alike
    expected = 0.8 * multi_positive_loss(image, text, SCALE, labels) + 0.2 * away
    torch.testing.assert_close(multi_positive_loss(image, text, SCALE, labels, 0.2), expected)


def test_loss_floor_with_label_smoothing_is_reached_by_the_best_logits():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    logits = torch.zeros(6, 6, dtype=torch.float64, requires_grad=True)  # free numbers, bound to no features
    eye = torch.eye(6, dtype=torch.float64)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = multi_positive_loss(logits, eye, torch.tensor(1.0), labels, 0.1)
        value.backward()
        return value

    optimizer.step(loss)
    assert loss().item() == pytest.approx(loss_floor(labels, 0.1).item(), abs=1e-5)


def test_multi_positive_loss_without_copies_is_clip_loss():
    image, text = features()
    torch.testing.assert_close(multi_positive_loss(image, text, SCALE, torch.randperm(N)), clip_loss(image, text, SCALE))


def test_with_identical_captions_both_losses_and_gradients_agree():
    image, _ = features()
    labels = torch.arange(N) % 3
    table = F.normalize(torch.randn(3, D, dtype=torch.float64), dim=1)
    gradients = []
    for loss in (clip_loss, lambda *args: multi_positive_loss(*args, labels)):
        own_image, own_table = image.clone().requires_grad_(), table.clone().requires_grad_()
        value = loss(own_image, own_table[labels], SCALE)
        gradients.append((value, *torch.autograd.grad(value, (own_image, own_table))))
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_a_perfect_model_reaches_the_floor_and_none_gets_below():
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    floor = loss_floor(labels).item()
    assert floor == pytest.approx((3 * math.log(3) + 0 + 2 * math.log(2)) / 6, rel=1e-6)
    perfect = torch.eye(3, dtype=torch.float64)[labels]
    assert multi_positive_loss(perfect, perfect, torch.tensor(100.0), labels).item() == pytest.approx(floor, abs=1e-6)
    for _ in range(20):
        assert multi_positive_loss(*features(6), SCALE, labels).item() > floor


def test_a_model_that_knows_nothing_scores_ln_n():
    same = torch.ones(N, D) / math.sqrt(D)
    assert clip_loss(same, same, torch.tensor(14.3)).item() == pytest.approx(math.log(N), rel=1e-6)


def test_a_batch_of_one_teaches_nothing():
    assert clip_loss(*features(1), SCALE).item() == 0


def test_both_directions_count():
    """Texts that are all alike: images cannot choose (ln N), and texts choose by the images' own similarity."""
    image, text = features()
    assert clip_loss(image, text, SCALE).item() == pytest.approx(clip_loss(text, image, SCALE).item(), rel=1e-12)
    text = text[:1].expand(N, D)
    logits = SCALE * image @ text.T
    other_direction = -logits.T.log_softmax(dim=1).diag().mean()
    assert clip_loss(image, text, SCALE).item() == pytest.approx((math.log(N) + other_direction.item()) / 2, rel=1e-12)


@pytest.mark.parametrize("n, chunk_size", [(12, 5), (12, 4), (12, 1), (12, 100), (1, 3), (600, 256)])
def test_chunked_loss_and_gradients_equal_those_of_the_paper(n, chunk_size):
    def gradients(loss) -> list[torch.Tensor]:
        torch.manual_seed(0)
        inputs = [*features(n), torch.tensor(100.0, dtype=torch.float64)]  # a scale whose exponentials are large
        value = loss(*(tensor.requires_grad_() for tensor in inputs))
        return [value.detach(), *torch.autograd.grad(value, inputs)]

    def by_definition(image, text, scale):
        logits = scale * image @ text.T
        return -(logits.log_softmax(dim=0).diag() + logits.log_softmax(dim=1).diag()).mean() / 2

    ours = gradients(lambda *inputs: chunked_clip_loss(*inputs, chunk_size=chunk_size))
    for own, expected in zip(ours, gradients(by_definition), strict=True):
        assert (own - expected).norm() <= 1e-9 * max(expected.norm(), 1e-3)  # a batch of one has loss 0


def test_chunked_loss_keeps_no_matrix_for_the_backward_pass():
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    image, text = (tensor.requires_grad_() for tensor in features(512))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        chunked_clip_loss(image, text, SCALE, chunk_size=32)
    assert kept < 512 * 512 / 2


@pytest.mark.parametrize("loss", [clip_loss, chunked_clip_loss, multi_positive_loss, siglip_loss])
def test_gradients_by_finite_differences(loss):
    image, text = (tensor.requires_grad_() for tensor in features(6))
    scale = SCALE.clone().requires_grad_()
    labels = torch.tensor([0, 0, 1, 2, 2, 3])
    bias = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    extra = {"clip_loss": (), "chunked_clip_loss": (4,), "multi_positive_loss": (labels,), "siglip_loss": (bias, labels)}[
        loss.__name__
    ]
    assert torch.autograd.gradcheck(loss, (image, text, scale, *extra))


def test_sharded_loss_is_the_second_half_of_the_rows_for_the_second_process(monkeypatch):
    """What two processes compute live in test_distributed, here with the first one's features put in by hand."""
    image, text = F.normalize(torch.randn(2, 6, 4, dtype=torch.float64), dim=-1)
    others = iter([text[:3], image[:3]])
    monkeypatch.setattr(losses, "rank", lambda: 1)
    monkeypatch.setattr(losses, "gather", lambda rows: torch.cat([next(others), rows]))
    logits = 5 * image @ text.T
    rows = (logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - logits.diag()
    torch.testing.assert_close(losses.sharded_clip_loss(image[3:], text[3:], torch.tensor(5.0)), rows[3:].mean())
