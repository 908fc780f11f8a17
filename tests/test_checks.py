"""Each check knows what is right and names each typical mistake; what all of them share is tested on small ones."""

import importlib
import pkgutil

import pytest
import torch

from miniclip_utils.classroom import checks
from miniclip_utils.classroom.checks import CHANGED, Check, difference, examined, exercise, solved

from .test_lessons import CALL, EXERCISES, cells_of, check_calls, run_exercise

CHECKS = [
    pytest.param(check, id=f"{module.name.removeprefix('lesson_')}-{name}")
    for module in pkgutil.iter_modules(checks.__path__)
    for name, check in vars(importlib.import_module(f"{checks.__name__}.{module.name}")).items()
    if isinstance(check, Check)
]
MISTAKES = [
    pytest.param(check, message, id=f"{id}-{index}")
    for [check], _, id in CHECKS
    for index, message in enumerate(check.mistakes)
]
each_check = pytest.mark.parametrize("check", CHECKS)


def test_each_check_is_called_in_its_lesson():
    called = set()
    for lesson, index, _ in (cell.values for cell in EXERCISES):
        called |= {f"{lesson.stem[:2]}-{CALL.match(line)[1]}" for line in check_calls(cells_of(lesson)[index].source)[1]}
    assert called == {check.id for check in CHECKS}


def test_a_call_of_a_check_is_recognised():
    code, calls = check_calls("x = 1\nloss = check.loss(my_loss)\ncheck.loss(my_loss)\nprint(check)\n")
    assert code == "x = 1\nprint(check)"
    assert [CALL.match(call).groups() for call in calls] == [("loss", "my_loss")] * 2


@each_check
def test_the_right_function_is_right_and_the_packages_too(check):
    assert check.verdict(check.right) == check.verdict(check.package) == f"✓ {check.name}: right"


@pytest.mark.parametrize("check, message", MISTAKES)
def test_each_typical_mistake_gets_its_own_message(check, message):
    verdict = check.verdict(check.mistakes[message])
    assert verdict.startswith(f"✗ {check.name}: ")
    assert max((words for words in check.mistakes if words in verdict), key=len, default=None) == message, verdict


@each_check
def test_at_least_three_mistakes_are_named(check):
    assert len(check.mistakes) >= 3


@each_check
def test_a_lesson_goes_on_with_the_readers_function_once_it_is_right(check, capsys):
    assert check(check.right) is check.right
    for empty in (None, ...):
        assert check(lambda *arguments, value=empty: value) is check.package
    assert check(next(iter(check.mistakes.values()))) is check.package
    right, *stubs, wrong = capsys.readouterr().out.splitlines()
    assert right == f"✓ {check.name}: right; from here on yours is used"
    assert stubs == 2 * [f"… {check.name}: not solved yet; until then the course's own is used"]
    assert wrong.startswith(f"✗ {check.name}: ") and wrong.endswith(" (until it is right, the course's own is used)")


@each_check
def test_no_constant_is_right(check):
    """Neither a fixed number nor one argument handed back, nor for ever what once was right."""
    kept = []

    def once(*arguments):
        kept or kept.append(check.right(*arguments))
        return kept[0]

    first, last = (lambda *arguments: arguments[0]), (lambda *arguments: arguments[-1])
    for constant in (once, first, last, lambda *_: 0, lambda *_: 1, lambda *_: True):
        assert not check.verdict(constant).startswith("✓")


# Answers as learners write them, by their verdict: through the exercise cell, as a reader would.
ANSWERS = {
    "✗ batch_norm: with training=True, the variance divides by n − 1": """
def my_batch_norm(x, running_mean, running_var, training):
    mean, var = running_mean, running_var
    if training:
        mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3))
    return (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
""",
    "✗ encode: [EOS] stands after the padding": """
def my_encode(text, number, context_length):
    numbers = [SOS]
    for word in split_words(text):
        numbers.append(number.get(word, UNK))
    while len(numbers) < context_length - 1:
        numbers.append(PAD)
    numbers.append(EOS)
    return numbers
""",
    "✗ logit_gradient: this asks autograd": """
def my_logit_gradient(logits):
    logits = logits.clone().requires_grad_()
    targets = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    loss.backward()
    return logits.grad
""",
    "✗ snapshot: 1.running_mean is missing: BatchNorm's running statistics are no parameters": """
def my_snapshot(model):
    kept = {}
    for name, parameter in model.named_parameters():
        kept[name] = parameter.detach().clone()
    return kept
""",
    "✗ recall_at_k: this is the fraction of right ones among the k (precision)": """
def my_recall_at_k(similarity, query_labels, candidate_labels, k):
    hits = 0
    for query, cosines in enumerate(similarity):
        best = cosines.topk(k).indices
        hits += (candidate_labels[best] == query_labels[query]).sum().item()
    return hits / (k * len(similarity))
""",
    "✗ vit_flops: the class token is missing": """
def my_vit_flops(image_size, patch_size, width, layers):
    tokens = (image_size // patch_size) ** 2
    embedding = 2 * tokens * 3 * patch_size**2 * width
    attention = 2 * tokens * 4 * width**2 + 2 * 2 * tokens**2 * width
    mlp = 2 * tokens * 2 * width * 4 * width
    return embedding + layers * (attention + mlp)
""",
    "✗ few_of_each: these are the right pictures class by class": """
def my_few_of_each(labels, k):
    chosen = []
    for label in labels.unique():
        places = torch.where(labels == label)[0]
        chosen.extend(places[:k].tolist())
    return torch.tensor(chosen)
""",
    "✗ fit_score: whether a label fits hardly shows in yours": """
def my_fit_score(similarity):
    return similarity.norm(dim=1)
""",
    "✗ merged_weight: the layer itself is changed": """
def my_merged_weight(layer):
    with torch.no_grad():
        layer.linear.weight += layer.scale * layer.B @ layer.A
    return layer.linear.weight
""",
    "✗ recall_at_k: the answer is right, but it changes its arguments": """
def my_recall_at_k(similarity, query_labels, candidate_labels, k):
    found = torch.zeros(len(query_labels), dtype=torch.bool)
    for _ in range(min(k, similarity.shape[1])):
        best = similarity.argmax(dim=1)
        found |= candidate_labels[best] == query_labels
        similarity[torch.arange(len(best)), best] = -math.inf
    return found.float().mean().item()
""",
    "✗ chunked_logsumexps: the whole matrix exists at once": """
def my_chunked_logsumexps(scaled, text_features, chunk_size):
    chunks = [part @ text_features.T for part in scaled.split(chunk_size)]
    rows = torch.cat([chunk.logsumexp(dim=1) for chunk in chunks])
    return rows, torch.stack([chunk.logsumexp(dim=0) for chunk in chunks]).logsumexp(dim=0)
""",
    "✗ sharded_clip_loss: your code raised NameError: two other processes run this function, and have no `one_way`": """
def one_way(own, other, scale):
    targets = rank() * len(own) + torch.arange(len(own))
    return F.cross_entropy(scale * own @ gather(other).T, targets)


def my_sharded_clip_loss(image_features, text_features, logit_scale):
    there = one_way(image_features, text_features, logit_scale)
    return (there + one_way(text_features, image_features, logit_scale)) / 2
""",
    "✗ sharded_clip_loss: your code raised RuntimeError: not every process calls `gather` as often as the others": """
def my_sharded_clip_loss(image_features, text_features, logit_scale):
    targets = rank() * len(image_features) + torch.arange(len(image_features))
    texts = gather(text_features) if rank() else text_features
    return F.cross_entropy(logit_scale * image_features @ texts.T, targets)
""",
}


@pytest.mark.parametrize("verdict", ANSWERS)
def test_a_learners_answer_is_judged_in_its_cell(verdict, capsys):
    for lesson, index, _ in (cell.values for cell in EXERCISES):
        stub, calls = check_calls(cells_of(lesson)[index].source)
        if calls := [call for call in calls if verdict.startswith(f"✗ {CALL.match(call)[1]}: ")]:
            assert run_exercise(lesson, stub + ANSWERS[verdict], calls, capsys).startswith(verdict)
            return
    raise AssertionError("no lesson has an exercise with this check")


@pytest.mark.parametrize(
    "got, expected, message",
    [
        (torch.ones(2).double(), torch.ones(2), None),
        (torch.tensor([True, False]), torch.tensor([1.0, 0.0]), None),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), None),
        (torch.tensor([float("nan")]), torch.tensor([1.0]), "one number is nan, and should be 1"),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]), "one number is 2, and should be 4"),
        (torch.tensor([1.0]), torch.tensor([1.0004]), "one number is 1, and should be 1.0003999"),
        (torch.ones(2, 3), torch.ones(3, 2), "its shape is (2, 3), and should be (3, 2)"),
        (torch.ones(2, 3).max(dim=1), torch.ones(2), "these are values and indices, both: choose with .values or .indices"),
        (1.0, torch.tensor(1.0), "it is of type float: return a tensor"),
        (torch.tensor([[2.0]]), 2, None),
        (torch.tensor(1), True, None),
        (3, 4.5, "one number is 3, and should be 4.5"),
        ("3", 3, "it is of type str: return a number"),
        (torch.ones(5), 1.0, "it is of type Tensor and shape (5,): return a number"),
        ("cat", "dog", "it is 'cat', and should be 'dog'"),
        (b"cat", "cat", "it is of type bytes: return a string"),
        (("a", 1.0), ["a", 1], None),
        ({"a"}, ["a"], "it is of type set: return a list"),
        (["a"], ["a", "b"], "its length is 1, and should be 2"),
        (["a", 3], ["a", 1], "entry 1: one number is 3, and should be 1"),
        ([1, None], [1, 2], "entry 1: it is of type NoneType: return a number"),
        ([1, 2], [1, None], "entry 1: it is 2, and should be None"),
        ({"a": torch.ones(1)}, {"a": torch.ones(1)}, None),
        ({"a": 1}, {"a": 2}, "'a': one number is 1, and should be 2"),
        ({}, {"a": 1}, "'a' is missing"),
        ({"a": 1, "b": 1}, {"a": 1}, "'b' does not belong there"),
        ([], {}, "it is of type list: return a dict"),
        (KeyError("a"), 1, "your code raised KeyError: 'a'"),
        (KeyError("a"), KeyError("a"), None),
        (KeyError("a"), KeyError("b"), "your code raised KeyError: 'a'"),
    ],
)
def test_a_difference_is_described(got, expected, message):
    assert difference(got, expected) == message


def declared(**changes):
    """A check of how to divide 12 by two numbers, in turn."""

    def divide(a, b):
        return 12 / a / b

    wrong = {"it is multiplied": lambda a, b: 12 * a * b, "0 is left to Python": lambda a, b: 12 / 0}
    settings = {"inputs": lambda: [(2, 3), (3, int(torch.randint(4, 9, ())))], "mistakes": wrong, **changes}
    return exercise(**settings)(divide)


def test_an_error_is_a_mistake_with_a_message_or_shown():
    check = declared()
    assert check.verdict(lambda a, b: a / (b - b)) == "✗ divide: 0 is left to Python"
    assert check.verdict(lambda a: a).startswith("✗ divide: your code raised TypeError: ")
    assert check.verdict(None) == "✗ divide: your code raised TypeError: 'NoneType' object is not callable"


def test_a_mistake_is_one_in_all_calls():
    check = declared()
    assert check.verdict(lambda a, b: 12 * a * b) == "✗ divide: it is multiplied"
    assert check.verdict(lambda a, b: 12 * a * b if a == 2 else 12 / a / b) == "✗ divide: one number is 72, and should be 2"


def test_calls_with_words_are_judged_in_turn():
    check = declared(inputs=lambda: {"below 3": (2, 3), "from 3 on": (3, int(torch.randint(4, 9, ())))})
    assert check.verdict(lambda a, b: 12 * a * b if a == 2 else 0) == "✗ divide: below 3, it is multiplied"
    assert check.verdict(lambda a, b: 12 / a / b if a == 2 else 12 * a * b) == "✗ divide: from 3 on, it is multiplied"
    assert check.verdict(lambda a, b: 12 / a / b if a == 2 else None) == "… divide: not solved yet"


def test_what_is_compared_can_be_chosen():
    check = declared(outcome=lambda function, a, b: abs(solved(function(a, b))))
    assert check.verdict(lambda a, b: -12 / a / b) == "✓ divide: right"
    assert check.verdict(lambda a, b: ...) == "… divide: not solved yet"


def test_the_tolerance_can_be_chosen():
    assert declared().verdict(lambda a, b: 12 / a / b + 1e-5).startswith("✓")
    assert declared(tolerance=1e-6).verdict(lambda a, b: 12 / a / b + 1e-5).startswith("✗")


def test_the_packages_function_is_used_until_the_answer_is_right(capsys):
    check = declared(package=min)
    assert [check(answer) for answer in (None, lambda a, b: ..., check.right)] == [min, min, check.right]


def test_an_answer_cannot_change_what_it_is_compared_with():
    @exercise(inputs=lambda: (torch.randn(3),), mistakes={})
    def double(x):
        return 2 * x

    assert double.verdict(lambda x: x.zero_()).startswith("✗ double: one number is 0")
    assert double.verdict(lambda x: x.mul_(2)) == "✓ double: right"


def test_an_answer_that_changes_its_arguments_can_be_refused():
    @exercise(inputs=lambda: (torch.randn(3),), mistakes={}, keeps_arguments=True)
    def double(x):
        return 2 * x

    assert double.verdict(lambda x: x.zero_()).startswith("✗ double: one number is 0")
    assert double.verdict(lambda x: x.mul_(2)) == f"✗ double: {CHANGED}"
    assert double.verdict(lambda x: x.clone().mul_(2)) == "✓ double: right"


def test_random_numbers_go_on_as_if_there_were_no_check():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    declared().verdict(lambda a, b: torch.rand(1))
    assert torch.equal(torch.rand(1), expected)


def test_an_examined_answer_is_looked_at_with_two_sets_of_numbers():
    drawn = []

    @examined(right=int, mistakes={})
    def look(answer):
        drawn.append(torch.rand(1).item())
        return solved(answer()) and "it is not 0"

    assert look.verdict(int) == "✓ look: right"
    assert drawn[0] != drawn[1]
    assert look.verdict(lambda: 1) == "✗ look: it is not 0"
    assert look.verdict(lambda: None) == "… look: not solved yet"
    assert look.verdict(lambda: 1 / 0) == "✗ look: your code raised ZeroDivisionError: division by zero"
