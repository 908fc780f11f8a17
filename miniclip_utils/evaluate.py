"""Measures of a trained model: zero-shot accuracy, `retrieval`, linear probe, modality gap; and what guessing reaches."""

from collections.abc import Sequence
from typing import Any

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


def retrieval(run: Run, dataset: ImageTextDataset) -> dict[str, Any]:
    """How often pictures find their sentences and sentences their pictures, in a dataset whose class names are sentences.

    Distinct pictures are compared with the distinct sentences of this dataset. A picture may have several sentences, and a
    sentence several pictures: a query finds what it looks for if one of its own is among the k most similar.

    Returns:
        how many "pictures" and "sentences" there are, and for each of the ways "image_to_text" and "text_to_image" its
        "recall@1", "recall@5" and "recall@10" in [0, 1], and those of "guessing", the mean of all random orders.
    """
    images, image = dataset.images.unique(dim=0, return_inverse=True)
    labels, sentence = dataset.labels.unique(return_inverse=True)
    sentences = [dataset.class_names[label] for label in labels.tolist()]
    is_own = torch.zeros(len(images), len(sentences), dtype=torch.bool)
    is_own[image, sentence] = True
    image_features = encode_images(run.model, images).cpu()
    text_features = class_features(run.model, run.tokenizer, sentences, dataset.templates).cpu()
    return {
        "pictures": len(images),
        "sentences": len(sentences),
        "image_to_text": _recalls(image_features, text_features, is_own),
        "text_to_image": _recalls(text_features, image_features, is_own.T),
    }


def _recalls(queries: Tensor, candidates: Tensor, is_own: Tensor) -> dict[str, Any]:
    """Recall@1, 5 and 10 of features (Q, D) among others (C, D), and by guessing; `is_own`, bool (Q, C): what is right."""
    most = min(10, len(candidates))
    nearest = torch.cat([(part @ candidates.T).topk(most).indices for part in queries.split(1_000)])
    found = is_own.gather(1, nearest).cummax(dim=1).values.double()  # (Q, most): among the first k
    drawn = torch.arange(most)  # without return: after that many misses, as many wrong ones less are left
    wrong = (~is_own).sum(dim=1, keepdim=True) - drawn
    guessed = 1 - (wrong.clamp(min=0) / (len(candidates) - drawn).double()).cumprod(dim=1)

    def means(hits: Tensor) -> dict[str, float]:
        return {f"recall@{k}": hits[:, min(k, most) - 1].mean().item() for k in (1, 5, 10)}

    return means(found) | {"guessing": means(guessed)}


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
