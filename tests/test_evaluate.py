import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from miniclip_utils import UserError, evaluate
from miniclip_utils.checkpoint import RunConfig, new_run
from miniclip_utils.data import ImageTextDataset, normalize

from .conftest import TINY


@pytest.fixture
def run():
    vocabulary = ("a", "blue", "of", "photo", "red")
    return new_run(RunConfig("x", "tiny", 0, TINY, {}, ("red", "blue"), ("a photo of a {}", "a {}"), vocabulary, 8))


def test_encoding_ignores_batches_and_leaves_the_mode_alone(run):
    images = torch.randint(256, (10, 3, 16, 16), dtype=torch.uint8)
    run.model.train()
    in_batches = evaluate.encode_images(run.model, images, batch_size=3)
    assert run.model.training
    run.model.eval()
    with torch.no_grad():
        expected = F.normalize(run.model.encode_image(normalize(images)), dim=1)
    torch.testing.assert_close(in_batches, expected)


@pytest.mark.parametrize("templates", ["a photo of a {}", ["a photo"], []])
def test_templates_that_say_the_same_of_every_class_are_refused(run, templates):
    dataset = ImageTextDataset(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1]), ("red", "blue"))
    with pytest.raises(UserError, match="template"):
        evaluate.zero_shot_accuracy(run, dataset, templates)


def test_ensemble_is_the_normalised_mean_of_normalised_features(run):
    names, templates = ["red", "blue"], ["a photo of a {}", "a {}"]
    run.model.eval()
    with torch.no_grad():
        for index, name in enumerate(names):
            each = run.model.encode_text(run.tokenizer([f"a photo of a {name}", f"a {name}"]))
            expected = F.normalize(F.normalize(each, dim=1).mean(dim=0), dim=0)
            ours = evaluate.class_features(run.model, run.tokenizer, names, templates)[index]
            torch.testing.assert_close(ours, expected)


def test_zero_shot_accuracy_counts_right_answers(run, monkeypatch):
    dataset = ImageTextDataset(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]), ("red", "blue"))
    given = []
    monkeypatch.setattr(evaluate, "class_features", lambda *args: given.append(args[3]) or torch.eye(2).flip(0))
    monkeypatch.setattr(evaluate, "encode_images", lambda *args: torch.tensor([[0, 1.0], [0, 1], [1, 0], [0.8, 0.9]]))
    accuracy = evaluate.zero_shot_accuracy(run, dataset)
    assert accuracy == 0.75 and isinstance(accuracy, float)
    evaluate.zero_shot_accuracy(run, dataset, ["a {}", "the {}"])
    assert given == [("a photo of a {}",), ["a {}", "the {}"]]  # without templates the first one that was trained


def test_recall_is_by_class_and_not_by_index():
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1]])
    queries, candidates = torch.tensor([0, 1]), torch.tensor([1, 0, 0])
    assert isinstance(evaluate.recall_at_k(similarity, queries, candidates, k=1), float)
    assert evaluate.recall_at_k(similarity, queries, candidates, k=1) == 0.5
    assert evaluate.recall_at_k(similarity, queries, candidates, k=2) == 1.0
    assert evaluate.recall_at_k(similarity, queries, candidates, k=99) == 1.0


def test_retrieval_counts_pictures_and_sentences_once_however_often_they_occur(run, monkeypatch):
    """Against sets and sorted lists: a sentence of several pictures, pictures of several sentences, pairs that repeat."""
    pictures = torch.randint(256, (20, 3, 16, 16), dtype=torch.uint8)
    names = tuple("abcdefghijklmno")  # the last two belong to other splits
    pairs = [(index, index % 7) for index in range(20)] + [(index, 7 + index % 6) for index in range(14)] + [(3, 3)] * 2
    rows, labels = (torch.tensor(column) for column in zip(*pairs, strict=True))
    features = {"picture": F.normalize(torch.randn(20, 5), dim=1), "sentence": F.normalize(torch.randn(15, 5), dim=1)}
    number = {picture.numpy().tobytes(): index for index, picture in enumerate(pictures)}
    monkeypatch.setattr(
        evaluate, "encode_images", lambda _, given: features["picture"][[number[p.numpy().tobytes()] for p in given]]
    )
    monkeypatch.setattr(
        evaluate, "class_features", lambda *given: features["sentence"][[names.index(name) for name in given[2]]]
    )
    found = evaluate.retrieval(run, ImageTextDataset(pictures[rows], labels, names, ("{}",)))
    assert (found["pictures"], found["sentences"]) == (20, 13)
    similarity = features["picture"] @ features["sentence"].T
    own = {way: {} for way in ("image_to_text", "text_to_image")}
    for picture, sentence in pairs:
        own["image_to_text"].setdefault(picture, set()).add(sentence)
        own["text_to_image"].setdefault(sentence, set()).add(picture)
    for way, scores, candidates in (("image_to_text", similarity, 13), ("text_to_image", similarity.T, 20)):
        for k in (1, 5, 10):
            hits, guesses = [], []
            for query, right in own[way].items():
                best = sorted(range(candidates), key=lambda candidate: -scores[query, candidate])[:k]
                hits.append(not right.isdisjoint(best))
                guesses.append(1 - scipy.stats.hypergeom.pmf(0, candidates, len(right), k))
            assert found[way][f"recall@{k}"] == pytest.approx(sum(hits) / len(hits))
            assert found[way]["guessing"][f"recall@{k}"] == pytest.approx(sum(guesses) / len(guesses))


def test_with_few_candidates_everything_is_found(run):
    pictures = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    found = evaluate.retrieval(run, ImageTextDataset(pictures, torch.tensor([0, 1, 1]), ("red", "blue"), ("{}",)))
    for way in (found["image_to_text"], found["text_to_image"]):
        assert way["recall@5"] == way["guessing"]["recall@10"] == 1


def test_mean_average_precision_equals_scikit_learn():
    similarity, queries, candidates = torch.randn(6, 40), torch.randint(4, (6,)), torch.randint(4, (40,))
    expected = [average_precision_score(candidates == label, row) for label, row in zip(queries, similarity, strict=True)]
    ours = evaluate.mean_average_precision(similarity, queries, candidates)
    assert ours == pytest.approx(sum(expected) / 6, rel=1e-5) and isinstance(ours, float)
    with_a_stranger = torch.cat([queries, torch.tensor([9])]), torch.cat([similarity, torch.randn(1, 40)])
    assert evaluate.mean_average_precision(with_a_stranger[1], with_a_stranger[0], candidates) == ours


def test_linear_probe_separates_what_is_separable():
    features, labels = torch.randn(200, 4), torch.arange(200) % 2
    features[:, 2] += labels * 20
    assert evaluate.linear_probe(features[:100], labels[:100], features[100:], labels[100:]) == 1.0


def test_modality_gap_is_the_distance_of_the_means():
    gap = evaluate.modality_gap(torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[0.0, 1], [0, 1]]))
    assert gap == pytest.approx(2**0.5) and isinstance(gap, float)


def test_a_refused_caption_leaves_the_model_in_training(run):
    """The caption is longer than the model reads."""
    run.model.train()
    with pytest.raises(UserError, match="shorten it"):
        evaluate.class_features(run.model, run.tokenizer, ["a photo of a red photo of a blue photo"], ["{}"])
    assert run.model.training


@pytest.mark.parametrize("guessing", [1 / 2, 1 / 3, 1 / 20, 0.9])
@pytest.mark.parametrize("images", [1, 4, 5, 60, 600])
def test_above_guessing_is_where_a_binomial_test_begins_to_reject(guessing, images):
    p_values = [scipy.stats.binomtest(right, images, guessing, "greater").pvalue for right in range(images + 1)]
    rejected = [right / images for right, p_value in enumerate(p_values) if p_value < 0.01]
    assert evaluate.above_guessing(guessing, images) == (rejected[0] if rejected else None)


def test_above_guessing_knows_many_images_and_another_chance():
    assert evaluate.above_guessing(0.1, 10_000) == pytest.approx(0.107, abs=0.0005)  # 0.1 + 2.33 standard errors of 0.003
    assert evaluate.above_guessing(0.5, 3) is None and evaluate.above_guessing(0.5, 3, chance=0.2) == 1.0
