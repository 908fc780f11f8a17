"""Typical wrong answers to the exercises of lesson 09, and words of what their checks must say."""


def few(body: str) -> str:
    return f"def my_few_of_each(labels, k):\n    classes = labels.unique().tolist()\n    return {body}\n"


def split(body: str) -> str:
    return (
        "def my_split_by_scene(scenes, share):\n"
        "    names = scenes.unique()\n"
        "    n = round(share * len(names))\n"
        f"    return {body}\n"
    )


def balanced(body: str) -> str:
    return (
        "def my_balanced_accuracy(predicted, labels):\n"
        "    right = (predicted == labels).float()\n"
        "    recalls = torch.stack([right[labels == c].mean() for c in labels.unique()])\n"
        f"    return {body}\n"
    )


MISTAKES = {
    "few_of_each": [
        (few("torch.arange(len(classes) * k)"), "first pictures of the folder"),
        (few("torch.arange(k)"), "k pictures in all"),
        (few("torch.cat([torch.where(labels == c)[0][: k + 1] for c in classes]).sort().values"), "one too many"),
        (few("torch.cat([torch.where(labels == c)[0][-k:] for c in classes]).sort().values"), "these are the last k"),
        (few("torch.cat([torch.where(labels == c)[0][:k] for c in classes])"), "sort the places"),
        (few("labels[torch.cat([torch.where(labels == c)[0][:k] for c in classes]).sort().values]"), "return their places"),
        (
            few("torch.isin(torch.arange(len(labels)), torch.cat([torch.where(labels == c)[0][:k] for c in classes]))"),
            "this is a mask",
        ),
    ],
    "split_by_scene": [
        (split("torch.arange(len(scenes)) >= len(scenes) - round(share * len(scenes))"), "splits the pictures"),
        (
            split("torch.isin(torch.arange(len(scenes)), scenes.argsort()[-round(share * len(scenes)):])"),
            "cuts one scene in two",
        ),
        (split("~torch.isin(scenes, names[-n:])"), "training side"),
        (split("torch.isin(scenes, names[:n])"), "first scenes"),
        (split("scenes == names[-1]"), "only the last scene"),
        (split("scenes >= (1 - share) * names[-1]"), "of the largest number"),
        (split("torch.isin(scenes, names[n:])"), "has the rest"),
        (split("torch.rand(len(scenes)) < share"), "stands on both sides"),
        (split("torch.where(torch.isin(scenes, names[-n:]))[0]"), "these are places"),
        (split("names[-n:]"), "these are the scenes"),
    ],
    "balanced_accuracy": [
        (balanced("right.mean()"), "the large class decides"),
        (balanced("torch.stack([right[predicted == c].mean() for c in labels.unique()]).mean()"), "precision"),
        (balanced("recalls.sum()"), "added up"),
        (balanced("recalls"), "one by one"),
        (balanced("recalls.min()"), "worst class"),
    ],
}
