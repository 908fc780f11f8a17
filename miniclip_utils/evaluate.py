"""Measures of a trained model: zero-shot accuracy, retrieval, linear probe, modality gap; and what guessing reaches."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .checkpoint import Run
from .data import ImageTextDataset, normalize
from .model import MiniCLIP, evaluating
from .prompts import check_templates, fill
from .tokenizer import WordTokenizer


@torch.inference_mode()
def encode_images(model: MiniCLIP, images: Tensor, batch_size: int = 500) -> Tensor:
    """uint8 images (N, 3, H, W) → L2-normalised image features (N, embed_dim), on the model's device."""
    batches = (normalize(batch.to(model.logit_scale.device)) for batch in images.split(batch_size))
    with evaluating(model):
        return torch.cat([F.normalize(model.encode_image(batch), dim=-1) for batch in batches])


@torch.inference_mode()
def class_features(
    model: MiniCLIP, tokenizer: WordTokenizer, class_names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """The zero-shot classifier: one L2-normalised vector for each class (paper §3.1.2).

    With several templates it is the mean of their features, normalised again: an ensemble in embedding space,
    which costs nothing once it is made (§3.1.4).

    Returns:
        (len(class_names), embed_dim), on the model's device.

    Raises:
        UserError: no template, or one without `{}`; or a caption is longer than the model reads.
    """
    check_templates(templates)
    captions = [caption for template in templates for caption in fill(template, class_names)]
    tokens = tokenizer(captions).to(model.logit_scale.device)
    with evaluating(model):
        features = torch.cat([F.normalize(model.encode_text(part), dim=-1) for part in tokens.split(1_000)])
    return F.normalize(features.view(len(templates), len(class_names), -1).mean(dim=0), dim=-1)


def zero_shot_accuracy(run: Run, dataset: ImageTextDataset, templates: Sequence[str] | None = None) -> float:
    """Fraction of images whose own class has the most similar text, among all of the dataset's classes.

    Args:
        templates: an ensemble of them; without, the first template that the run was trained with.

    Returns:
        top-1 accuracy in [0, 1].
    """
    templates = run.config.templates[:1] if templates is None else templates
    classifier = class_features(run.model, run.tokenizer, dataset.class_names, templates)
    image_features = encode_images(run.model, dataset.images)
    predicted = (image_features @ classifier.T).argmax(dim=1)
    return (predicted.cpu() == dataset.labels).float().mean().item()


def recall_at_k(similarity: Tensor, query_labels: Tensor, candidate_labels: Tensor, k: int) -> float:
    """Fraction of queries with a candidate of their own class among the k most similar.

    By class and not by index: when several candidates say the same, each is a right answer.

    Args:
        similarity: (queries, candidates).
        query_labels, candidate_labels: int64 (queries,) and (candidates,).
    """
    nearest = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    hits = (candidate_labels[nearest] == query_labels[:, None]).any(dim=1)
    return hits.float().mean().item()


def mean_average_precision(similarity: Tensor, query_labels: Tensor, candidate_labels: Tensor) -> float:
    """Mean over the queries of the average precision: 1 if all candidates of its class come first. Shapes as above."""
    order = similarity.argsort(dim=1, descending=True)
    relevant = (candidate_labels[order] == query_labels[:, None]).float()
    precision = relevant.cumsum(dim=1) / torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    average = (precision * relevant).sum(dim=1) / relevant.sum(dim=1)
    return average[relevant.any(dim=1)].mean().item()  # a query without a candidate of its class does not count


def linear_probe(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor, c: float = 1.0
) -> float:
    """Test accuracy of a logistic regression on frozen features (paper §3.2), fitted by scikit-learn's L-BFGS.

    Args:
        train_features, test_features: (N, D) and (M, D).
        c: inverse strength of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    probe = LogisticRegression(C=c, max_iter=1_000)
    probe.fit(train_features.cpu().numpy(), train_labels.cpu().numpy())
    return float(probe.score(test_features.cpu().numpy(), test_labels.cpu().numpy()))


def modality_gap(image_features: Tensor, text_features: Tensor) -> float:
    """Distance between the mean image feature and the mean text feature (Liang et al. 2022), both L2-normalised sets."""
    return (image_features.mean(dim=0) - text_features.mean(dim=0)).norm().item()


def above_guessing(guessing: float, images: int, chance: float = 0.01) -> float | None:
    """The lowest accuracy on so many images that guessing reaches in fewer than one of a hundred cases.

    How many of them guessing gets right is binomial. None: so few that it gets even all right more often than that.

    Args:
        guessing: the probability that it gets one right, below 1.
    """
    from scipy.stats import binom  # takes a moment to import

    right = int(binom.isf(chance, images, guessing))  # the most that guessing gets right with this probability or more
    return None if right == images else (right + 1) / images
