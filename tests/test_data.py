"""Datasets: folders, archives, captions.csv, CIFAR-10 and its download, and the batches made of them."""

import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from miniclip_utils import cifar10
from miniclip_utils.data import MEAN, STD, BatchLoader, ImageTextDataset, augment, load_dataset, load_splits, normalize
from miniclip_utils.errors import UserError
from miniclip_utils.image_files import ImageFiles
from miniclip_utils.prompts import TEMPLATES
from miniclip_utils.shapes import SPLITS as SHAPES_SPLITS

SPLITS = ("train", "validation", "test")


def png(number):
    """A picture in a colour of its own, from which the number can be read again."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number // 256, number % 256, 99)).save(buffer, "PNG")
    return buffer.getvalue()


def make_images(folder, counts):
    """{"cat": 3} → cat/0.png, cat/1.png, cat/2.png. Returns {number of the picture: its folder}."""
    numbers = {}
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (folder / name / f"{index}.png").write_bytes(png(len(numbers)))
            numbers[len(numbers)] = name
    return numbers


def numbers_in(dataset):
    first_pixel = dataset.images[:, :, 0, 0].int()
    return (256 * first_pixel[:, 0] + first_pixel[:, 1]).tolist()


def load_all(source, **options):
    return {split: load_dataset(source, split, image_size=4, **options) for split in SPLITS}


def pictured(dataset):
    """{number of the picture: its class name}"""
    return {
        number: dataset.class_names[label]
        for number, label in zip(numbers_in(dataset), dataset.labels.tolist(), strict=True)
    }


# Class folders


def test_folders_with_splits_keep_them(tmp_path):
    counts = {"train/cat": 5, "train/dog": 4, "validation/cat": 2, "validation/dog": 1, "test/cat": 3, "test/dog": 2}
    folder_of = make_images(tmp_path, counts)
    for split, dataset in load_all(tmp_path).items():
        assert pictured(dataset) == {n: f.split("/")[1] for n, f in folder_of.items() if f.startswith(split)}


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_validation_has_many_names(tmp_path, name):
    make_images(tmp_path, {"train/cat": 4, "train/dog": 4, f"{name}/cat": 2, f"{name}/dog": 2, "test/cat": 1, "test/dog": 1})
    assert sorted(numbers_in(load_dataset(tmp_path, "validation", 4))) == [8, 9, 10, 11]


def test_capitals_in_split_names_make_no_classes_of_them(tmp_path):
    make_images(tmp_path, {"Train/cat": 4, "Train/dog": 4, "TEST/cat": 2, "TEST/dog": 2})
    assert load_dataset(tmp_path, "test", 4).class_names == ("cat", "dog")


def test_without_splits_a_share_of_each_class_is_put_aside(tmp_path):
    folder_of = make_images(tmp_path, {"cat": 40, "dog": 20})
    datasets = load_all(tmp_path)
    by_class = {split: Counter(pictured(dataset).values()) for split, dataset in datasets.items()}
    assert by_class == {"test": {"cat": 4, "dog": 2}, "validation": {"cat": 2, "dog": 1}, "train": {"cat": 34, "dog": 17}}
    assert pictured(datasets["train"]) | pictured(datasets["validation"]) | pictured(datasets["test"]) == folder_of


@pytest.mark.parametrize(
    "counts",
    [
        {"cat": 3, "dog": 3},
        {"cat": 31, "dog": 7, "owl": 3},
        {"train/cat": 20, "train/dog": 9, "test/cat": 3, "test/dog": 2},
        {"train/cat": 20, "train/dog": 9, "val/cat": 3, "val/dog": 2},
    ],
)
def test_no_image_is_lost_or_used_twice(tmp_path, counts):
    folder_of = make_images(tmp_path, counts)
    used = [number for dataset in load_all(tmp_path).values() for number in numbers_in(dataset)]
    assert sorted(used) == sorted(folder_of)


def test_the_splits_are_the_same_every_time_and_others_for_another_seed(tmp_path):
    make_images(tmp_path, {"cat": 60, "dog": 60})
    first, again, other = (numbers_in(load_dataset(tmp_path, "test", 4, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_the_splits_do_not_depend_on_the_order_in_an_archive(tmp_path):
    numbers = make_images(tmp_path / "folder", {"cat": 30, "dog": 30})
    files = sorted(file for file in (tmp_path / "folder").rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in reversed(files):
            archive.write(file, file.relative_to(tmp_path / "folder"))
    assert len(numbers) == 60
    for split in SPLITS:
        from_folder, from_zip = (load_dataset(tmp_path / name, split, 4) for name in ("folder", "x.zip"))
        assert from_folder.images.equal(from_zip.images) and from_folder.labels.equal(from_zip.labels)


@pytest.mark.parametrize("inside", ["train/", ""])
@pytest.mark.parametrize("extra", [[], ["README.md"]])
def test_one_folder_around_everything_is_seen_through(tmp_path, inside, extra):
    make_images(tmp_path, {f"my-data/{inside}cat": 4, f"my-data/{inside}dog": 4})
    for name in extra:
        (tmp_path / "my-data" / name).write_text("about these pictures")
    assert load_dataset(tmp_path, "train", 4).class_names == ("cat", "dog")


def test_folders_that_differ_in_capitals_are_not_one_folder_around_everything(tmp_path):
    make_images(tmp_path, {"A/cat": 4, "a/dog": 4})
    with pytest.raises(UserError, match="names read the same: 'A', 'a'"):
        load_dataset(tmp_path, "train", 4)


def test_a_folder_that_is_itself_only_one_class_is_seen_as_one(tmp_path):
    make_images(tmp_path, {"cat": 5})
    assert load_dataset(tmp_path, "train", 4).class_names == ("cat",)


def test_underscores_in_folder_names_are_read_as_spaces(tmp_path):
    make_images(tmp_path, {"polar_bear": 3, "fire_truck_red": 3})
    assert load_dataset(tmp_path, "train", 4).class_names == ("fire truck red", "polar bear")


def test_two_folders_of_one_name_are_refused(tmp_path):
    make_images(tmp_path, {"polar_bear": 3, "polar bear": 3})
    with pytest.raises(UserError, match="'polar bear'.*'polar_bear'|'polar_bear'.*'polar bear'"):
        load_dataset(tmp_path, "train", 4)


@pytest.mark.parametrize("twin", ["Polar bear", "polar  bear"])
def test_two_folders_that_read_the_same_are_refused(tmp_path, twin):
    make_images(tmp_path, {"polar bear": 3, twin: 3})
    with pytest.raises(UserError, match="class folders whose names read the same"):
        load_dataset(tmp_path, "train", 4)


@pytest.mark.parametrize("names", [("train", "car", "bus"), ("car", "test")])
def test_a_train_among_cars_is_a_class_and_no_split(tmp_path, names):
    folder_of = make_images(tmp_path, dict.fromkeys(names, 4))
    datasets = load_all(tmp_path)
    assert datasets["train"].class_names == tuple(sorted(names))
    assert {number: name for dataset in datasets.values() for number, name in pictured(dataset).items()} == folder_of


def test_class_folders_bring_the_templates(tmp_path):
    make_images(tmp_path, {"cat": 3, "dog": 3})
    assert load_dataset(tmp_path, "train", 4).templates == TEMPLATES


def test_unicode_and_spaces_in_paths(tmp_path):
    folder = tmp_path / "Bilder für Übung 🐈"
    make_images(folder, {"große_Katze": 3, "小犬": 3})
    assert load_dataset(str(folder), "train", 4).class_names == ("große Katze", "小犬")


@pytest.mark.parametrize("where", ["owl", "train/owl"])
def test_class_folder_without_images_is_named(tmp_path, where):
    inside = where.removesuffix("owl")
    make_images(tmp_path, {f"{inside}cat": 4, f"{inside}dog": 4, where: 0})
    with pytest.raises(UserError, match=f"class folders without images: '{where}'"):
        load_dataset(tmp_path, "train", 4)


def test_class_only_in_test_is_named(tmp_path):
    make_images(tmp_path, {"train/cat": 4, "train/dog": 4, "test/cat": 1, "test/owl": 1})
    with pytest.raises(UserError, match="without training images: 'owl'"):
        load_dataset(tmp_path, "train", 4)


@pytest.mark.parametrize("files", [[], ["a.png"], ["train/a.png", "test/b.png"], [".hidden/a.png"]])
def test_folder_without_class_folders_is_refused(tmp_path, files):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(0))
    with pytest.raises(UserError, match="no class-named folders of images and no captions.csv"):
        load_dataset(tmp_path, "train", 4)


def test_too_few_images_for_a_split_is_said(tmp_path):
    make_images(tmp_path, {"cat": 2, "dog": 2})
    assert len(load_dataset(tmp_path, "train", 4)) == 4
    with pytest.raises(UserError, match="too few images for a test split"):
        load_dataset(tmp_path, "test", 4)


def test_missing_path_is_named():
    with pytest.raises(UserError, match="no file or folder 'nowhere'"):
        load_dataset("nowhere")


def test_unknown_split_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="no split 'held_out': choose one of train, validation, test"):
        load_dataset(tmp_path, "held_out")


@pytest.mark.parametrize("source", ["shapes", "cifar10", "."])
@pytest.mark.parametrize("image_size", [0, -1])
def test_image_sizes_that_mean_nothing_are_refused(source, image_size):
    with pytest.raises(UserError, match="choose an image_size of 1 or more"):
        load_dataset(source, image_size=image_size)


@pytest.mark.parametrize("seed", [2**64, -(2**200)])
def test_a_seed_that_torch_cannot_take_is_refused(tmp_path, seed):
    make_images(tmp_path, {"cat": 3, "dog": 3})
    for source in ("shapes", tmp_path):
        with pytest.raises((ValueError, RuntimeError), match="Overflow"):  # torch's own, of one or the other kind
            load_dataset(source, image_size=32, seed=seed)


@pytest.mark.parametrize("source", ["shapes", "cifar10"])
def test_ready_made_images_come_in_their_own_size_only(source):
    with pytest.raises(UserError, match="this model wants 64"):
        load_dataset(source, image_size=64)


def test_bad_images_are_refused_or_skipped_with_the_right_labels(tmp_path):
    make_images(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1, "test/cat": 1, "test/dog": 1})
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="1 of 6 files.*train/cat/1.png"):
        load_dataset(tmp_path, "train", 4)
    with pytest.warns(UserWarning, match="1 of 6 files.*train/cat/1.png"):
        dataset = load_dataset(tmp_path, "train", 4, skip_bad_images=True)
    assert pictured(dataset) == {0: "cat", 2: "cat", 3: "dog", 4: "dog", 5: "dog"}


@pytest.mark.parametrize(
    "counts, stray",
    [
        ({"cat": 4, "dog": 4}, ["top.png"]),
        ({"train/cat": 4, "train/dog": 4, "test/cat": 1}, ["extra/cat/1.JPG", "train/lost.png"]),
    ],
)
def test_pictures_outside_of_the_pattern_are_named(tmp_path, counts, stray):
    numbers = make_images(tmp_path, counts)
    for name in [*stray, "README.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(999))
    with pytest.warns(UserWarning) as said:
        splits = load_splits(tmp_path, 4)
    (message,) = [str(warning.message) for warning in said]
    total = len(numbers) + len(stray)
    names = ", ".join(map(repr, stray))
    assert message == f"left out: {len(stray)} of {total} pictures in {str(tmp_path)!r}, in no folder of a class: {names}"
    assert sorted(number for dataset in splits.values() for number in numbers_in(dataset)) == sorted(numbers)


def test_pictures_that_the_captions_do_not_name_are_named(tmp_path):
    make_captions(tmp_path, six_captions(), count=8)
    with pytest.warns(UserWarning, match=r"2 of 8 pictures .* not named in 'captions.csv': '6.png', '7.png'$"):
        load_splits(tmp_path, 4)


# captions.csv


def make_captions(folder, text, count=6):
    """A folder with 0.png, 1.png, … and a captions.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "captions.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def six_captions():
    return "file,caption\n" + "".join(f"{number}.png,picture {number}\n" for number in range(6))


def test_each_image_comes_with_its_caption(tmp_path):
    seen = {}
    for dataset in load_all(make_captions(tmp_path, six_captions())).values():
        assert dataset.templates == ("{}",)
        seen |= pictured(dataset)
    assert seen == {number: f"picture {number}" for number in range(6)}


def test_the_captions_of_one_image_stay_in_one_split(tmp_path):
    text = "file,caption\n" + "".join(f"{n % 20}.png,caption {n // 20} of {n % 20}\n" for n in range(60))
    datasets = load_all(make_captions(tmp_path, text, count=20)).values()
    images = [set(numbers_in(dataset)) for dataset in datasets]
    assert sum(map(len, images)) == 20 == len(set.union(*images))
    assert sum(map(len, datasets)) == 60


def test_images_with_the_same_caption_share_a_label(tmp_path):
    text = "file,caption\n" + "".join(f"{n}.png,{'a cat' if n < 10 else 'a dog'}\n" for n in range(20))
    dataset = load_dataset(make_captions(tmp_path, text, count=20), "train", 4)
    assert dataset.class_names == ("a cat", "a dog")
    assert all((name == "a cat") == (number < 10) for number, name in pictured(dataset).items())


def test_captions_that_read_the_same_share_a_label(tmp_path):
    text = "file,caption\n" + "".join(f"{n}.png,{('A cat.', 'a cat.', 'a dog.')[n % 3]}\n" for n in range(12))
    dataset = load_dataset(make_captions(tmp_path, text, count=12), "train", 4)
    assert dataset.class_names == ("A cat.", "a dog.")
    assert all((name == "a dog.") == (number % 3 == 2) for number, name in pictured(dataset).items())


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
    ],
    ids=["byte order mark", "Windows line ends"],
)
def test_what_editors_do_to_a_csv_is_understood(tmp_path, change):
    dataset = load_dataset(make_captions(tmp_path, change(six_captions())), "train", 4)
    assert set(pictured(dataset).values()) <= {f"picture {number}" for number in range(6)}


def test_columns_may_stand_in_any_order_among_others(tmp_path):
    text = "caption,licence,file\n" + "".join(f"picture {n},CC0,{n}.png\n" for n in range(6))
    dataset = load_dataset(make_captions(tmp_path, text), "train", 4)
    assert all(name == f"picture {number}" for number, name in pictured(dataset).items())


def test_quoted_captions_keep_commas_quotes_and_emoji(tmp_path):
    text = "file,caption\n" + "".join(f'{n}.png,"a ""big"" cat, 🐈 {n}"\n' for n in range(6))
    dataset = load_dataset(make_captions(tmp_path, text), "train", 4)
    assert all(name == f'a "big" cat, 🐈 {number}' for number, name in pictured(dataset).items())


@pytest.mark.parametrize("prefix", ["", "./", "my-data/"])
def test_an_archive_of_captioned_images(tmp_path, prefix):
    folder = make_captions(tmp_path / "folder", six_captions())
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for file in folder.iterdir():
            archive.add(file, prefix + file.name)
    from_folder, from_archive = (load_dataset(tmp_path / name, "train", 4) for name in ("folder", "x.tar.gz"))
    assert from_folder.images.equal(from_archive.images) and from_folder.class_names == from_archive.class_names


@pytest.mark.parametrize("caption", ["", "   ", '" "'])
@pytest.mark.parametrize("before, line", [("", 3), ("\n\n", 5), ('1.png,"two\nlines"\n', 5)])
def test_blank_caption_is_named_with_its_line(tmp_path, caption, before, line):
    text = f"file,caption\n0.png,cat\n{before}2.png,{caption}\n3.png,dog\n"
    with pytest.raises(UserError, match=f"line {line}: the caption of '2.png' is empty"):
        load_dataset(make_captions(tmp_path, text), "train", 4)


@pytest.mark.parametrize("name", ["gone.png", "", "../secret.png", "{}/secret.png", "a/../../secret.png"])
def test_what_is_not_in_the_folder_is_never_read(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(png(1))
    name = name.format(tmp_path)
    with pytest.raises(UserError, match="line 3: there is no file .* beside it"):
        load_dataset(make_captions(tmp_path / "data", f"file,caption\n0.png,cat\n{name},dog\n"), "train", 4)


@pytest.mark.parametrize(
    "text", ["", "file,caption\n", "file;caption\n0.png;cat\n", "image,text\n0.png,cat\n", "file\n0.png\n", "0.png,cat\n"]
)
def test_missing_columns_are_said(tmp_path, text):
    with pytest.raises(UserError, match="must have a first line 'file,caption'"):
        load_dataset(make_captions(tmp_path, text), "train", 4)


def test_a_quote_that_nobody_closes_loses_no_lines_in_silence(tmp_path):
    text = six_captions().replace("picture 3", '"picture 3')
    with pytest.raises(UserError, match="captions.csv.* cannot be read"):
        load_dataset(make_captions(tmp_path, text), "train", 4)


def test_too_few_captioned_images_are_told_how_many_are_enough(tmp_path):
    with pytest.raises(UserError, match="too few images for a test split: give it at least three$"):
        load_dataset(make_captions(tmp_path, "file,caption\n0.png,cat\n1.png,dog\n"), "test", 4)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_captions_that_are_not_utf_8_are_said(tmp_path, encoding):
    with pytest.raises(UserError, match="captions.csv.* cannot be read .*save it as UTF-8"):
        load_dataset(make_captions(tmp_path, "file,caption\n0.png,für\n".encode(encoding)), "train", 4)


def test_a_damaged_captions_csv_in_an_archive_is_said(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("captions.csv", six_captions())
        archive.writestr("0.png", png(0))
    content = (tmp_path / "x.zip").read_bytes().replace(b"picture 3", b"picture 4", 1)
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match="captions.csv.* cannot be read"):
        load_dataset(tmp_path / "x.zip", "train", 4)


def test_several_captions_csv_are_refused_and_not_half_used(tmp_path):
    make_captions(tmp_path / "train", six_captions())
    make_captions(tmp_path / "test", six_captions())
    with pytest.raises(UserError, match="'test/captions.csv', 'train/captions.csv'"):
        load_dataset(tmp_path, "train", 4)


# All splits at once


def assert_same_as_one_by_one(splits, source, image_size):
    for split, dataset in splits.items():
        alone = load_dataset(source, split, image_size)
        assert dataset.images.equal(alone.images) and dataset.labels.equal(alone.labels)
        assert (dataset.class_names, dataset.templates) == (alone.class_names, alone.templates)


@pytest.fixture
def opened(monkeypatch):
    """Counts how often each file of a source is opened, and each source is listed."""
    counts = Counter()
    open_file, open_source = ImageFiles.open, ImageFiles.__init__

    def count_file(self, name):
        counts[name] += 1
        return open_file(self, name)

    def count_source(self, path):
        counts["the source"] += 1
        open_source(self, path)

    monkeypatch.setattr(ImageFiles, "open", count_file)
    monkeypatch.setattr(ImageFiles, "__init__", count_source)
    return counts


def a_source(folder, kind):
    """A folder, or an archive of it, whose images have classes or captions; and the names of its files."""
    if "captioned" in kind:
        text = "file,caption\n" + "".join(f"{n % 9}.png,caption {n}\n" for n in range(12))
        make_captions(folder, text, count=9)
    else:
        make_images(folder, {"train/cat": 5, "train/dog": 4, "test/cat": 3, "test/dog": 2})
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    if "archive" not in kind:
        return folder, names
    with tarfile.open(folder.parent / "x.tar.xz", "w:xz") as archive:
        archive.add(folder, ".")
    return folder.parent / "x.tar.xz", names


KINDS = ["classes", "classes, archive", "captioned", "captioned, archive"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_splits_together_open_each_file_once(tmp_path, opened, kind):
    source, names = a_source(tmp_path / "data", kind)
    splits = load_splits(source, 4)
    assert opened == dict.fromkeys([*names, "the source"], 1)
    assert list(splits) == list(SPLITS)
    assert_same_as_one_by_one(splits, source, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_one_split_opens_the_images_of_no_other(tmp_path, opened, kind):
    source, _ = a_source(tmp_path / "data", kind)
    images = set(numbers_in(load_dataset(source, "test", 4)))
    assert len([name for name in opened if name.endswith(".png")]) == len(images)


def test_the_shapes_come_in_their_four_splits(monkeypatch):
    for number, split in enumerate(SHAPES_SPLITS, 1):
        monkeypatch.setitem(SHAPES_SPLITS, split, 100 * number)
    splits = load_splits("shapes")
    assert list(splits) == [*SPLITS, "held_out"]
    assert [len(dataset) for dataset in splits.values()] == [100, 200, 300, 400]
    assert_same_as_one_by_one(splits, "shapes", 32)


def test_all_bad_images_are_named_at_once_and_skipped_in_every_split(tmp_path):
    make_images(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 2, "val/dog": 1, "test/cat": 1, "test/dog": 2})
    for name in ("train/dog/0", "val/cat/1", "test/dog/0"):
        (tmp_path / f"{name}.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="3 of 12 files.*test/dog/0.png.*train/dog/0.png.*val/cat/1.png"):
        load_splits(tmp_path, 4)
    with pytest.warns(UserWarning, match="3 of 12 files") as caught:
        splits = load_splits(tmp_path, 4, skip_bad_images=True)
    assert len(caught) == 1
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 5, "validation": 2, "test": 2}


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_split_of_nothing_but_bad_images_is_refused(tmp_path):
    make_images(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 1, "test/cat": 1})
    (tmp_path / "test/cat/0.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="no image that can be read for a test split"):
        load_splits(tmp_path, 4, skip_bad_images=True)


def test_all_splits_of_too_few_images_are_refused(tmp_path):
    make_images(tmp_path, {"cat": 2, "dog": 2})
    with pytest.raises(UserError, match="too few images for a validation split"):
        load_splits(tmp_path, 4)


# CIFAR-10

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar10_archive(per_class=20):
    """A small archive in the official binary layout: five training batches and a test batch of random pixels."""
    generator = np.random.default_rng(0)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        files = {"batches.meta.txt": ("\n".join(CIFAR10_NAMES) + "\n\n").encode()}
        for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
            records = generator.integers(0, 256, (10 * per_class // 5, 1 + 3072), dtype=np.uint8)
            records[:, 0] = np.arange(len(records)) % 10
            files[name] = records.tobytes()
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = cifar10_archive()
REQUESTS: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        REQUESTS.append(self.path)
        if self.path == "/rubbish":
            self.wfile.write(b"what is this\r\n\r\n")
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(ARCHIVE)))
        self.end_headers()
        self.wfile.write(ARCHIVE[:100] if self.path == "/broken-off" else ARCHIVE)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves the small archive, and makes it the one to download. Gives the server's address."""
    REQUESTS.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(cifar10, "CIFAR10_URL", url)
    monkeypatch.setattr(cifar10, "CIFAR10_SHA256", hashlib.sha256(ARCHIVE).hexdigest())
    monkeypatch.setenv("MINICLIP_DATA", str(tmp_path / "data with space"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def archive_path(tmp_path):
    return tmp_path / "data with space" / "cifar-10-binary.tar.gz"


def test_cifar10_is_downloaded_once_and_then_needs_no_network(server, tmp_path, monkeypatch):
    load_dataset("cifar10")
    monkeypatch.setattr(cifar10, "CIFAR10_URL", "http://127.0.0.1:1")
    load_dataset("cifar10", "test")
    assert len(REQUESTS) == 1 and archive_path(tmp_path).read_bytes() == ARCHIVE


def test_cifar10_splits_are_complete_disjoint_and_balanced(server):
    datasets = {split: load_dataset("cifar10", split) for split in SPLITS}
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 190, "validation": 10, "test": 40}
    assert datasets["validation"].labels.bincount().tolist() == [1] * 10
    assert datasets["test"].class_names == tuple(CIFAR10_NAMES)
    distinct = {image.numpy().tobytes() for dataset in datasets.values() for image in dataset.images}
    assert len(distinct) == 240


def test_all_splits_of_cifar10_open_and_check_the_archive_once(server, monkeypatch):
    calls = Counter()
    download, open_archive = cifar10.download_cifar10, tarfile.open

    def count_download():
        calls["download"] += 1
        return download()

    def count_open(path):
        calls["open"] += 1
        return open_archive(path)

    monkeypatch.setattr(cifar10, "download_cifar10", count_download)
    monkeypatch.setattr(cifar10.tarfile, "open", count_open)
    splits = load_splits("cifar10")
    assert calls == {"download": 1, "open": 1} and list(splits) == list(SPLITS)
    assert_same_as_one_by_one(splits, "cifar10", 32)


def test_cifar10_pixels_and_labels_are_those_of_the_file(server):
    dataset = load_dataset("cifar10", "test")
    with tarfile.open(fileobj=io.BytesIO(ARCHIVE)) as archive:
        raw = archive.extractfile("cifar-10-batches-bin/test_batch.bin").read()
    record = raw[3073 * 7 : 3073 * 8]  # a label, then the 1,024 red, green and blue values, row by row
    assert dataset.labels[7] == record[0]
    assert dataset.images[7, 1, 2, 3] == record[1 + 1024 + 2 * 32 + 3]


def test_cifar10_with_the_wrong_hash_is_not_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "CIFAR10_SHA256", "0" * 64)
    with pytest.raises(UserError, match="could not be downloaded .*hash"):
        load_dataset("cifar10")
    assert [file.suffix for file in archive_path(tmp_path).parent.iterdir()] in ([], [".lock"])


@pytest.mark.parametrize("path", ["/broken-off", "/rubbish", "/missing"])
def test_a_download_that_fails_is_said_and_leaves_nothing(server, tmp_path, monkeypatch, path):
    monkeypatch.setattr(cifar10, "CIFAR10_URL", server + path)
    with pytest.raises(UserError, match="(?s)could not be downloaded .*use the dataset 'shapes'"):
        load_dataset("cifar10")
    assert [file.suffix for file in archive_path(tmp_path).parent.iterdir()] in ([], [".lock"])


def test_without_network_the_shapes_are_offered(server, monkeypatch):
    monkeypatch.setattr(cifar10, "CIFAR10_URL", "http://127.0.0.1:1/cifar")
    with pytest.raises(UserError, match="(?s)could not be downloaded .*use the dataset 'shapes'"):
        load_dataset("cifar10")


def test_damaged_cifar10_is_named(server, tmp_path):
    load_dataset("cifar10")
    archive_path(tmp_path).write_bytes(ARCHIVE[:-1])
    with pytest.raises(UserError, match="is damaged: delete it"):
        load_dataset("cifar10")


def test_data_folder_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINICLIP_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(UserError, match="cannot use the data folder .*file.*set MINICLIP_DATA"):
        load_dataset("cifar10")


def test_full_disk_is_said(server, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.hub, "download_url_to_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        load_dataset("cifar10")


def test_read_only_data_folder_with_the_archive_in_it_is_enough(server, tmp_path, monkeypatch):
    archive_path(tmp_path).parent.mkdir()
    archive_path(tmp_path).write_bytes(ARCHIVE)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cifar10, "FileLock", refuse)
    monkeypatch.setattr(cifar10.Path, "mkdir", refuse)
    assert len(load_dataset("cifar10", "test")) == 40


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINICLIP_DATA", "~/pictures")
    assert cifar10.data_folder() == tmp_path / "pictures"


def test_eight_processes_in_one_folder_download_once(server, tmp_path):
    script = """
import os, sys
from miniclip_utils import cifar10, data
cifar10.CIFAR10_URL, cifar10.CIFAR10_SHA256 = sys.argv[1:]
children = []
for _ in range(8):
    children.append(os.fork())
    if children[-1] == 0:
        os._exit(len(data.load_dataset("cifar10", "test")))
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
    command = [sys.executable, "-c", script, cifar10.CIFAR10_URL, cifar10.CIFAR10_SHA256]
    answer = subprocess.run(command, text=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert answer.stdout == f"{[40] * 8}\n", answer.stderr
    assert len(REQUESTS) == 1


# Batches


def random_images(n=12, height=9, width=7):
    return torch.randint(256, (n, 3, height, width), dtype=torch.uint8)


def all_moves(image, shift, flip):
    """Everything that `augment` may make of one image, the slow way."""
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (shift, shift), (shift, shift)], mode="reflect"))
    _, height, width = image.shape
    for top in range(2 * shift + 1):
        for left in range(2 * shift + 1):
            moved = padded[:, top : top + height, left : left + width]
            yield moved
            if flip:
                yield moved.flip(2)


@pytest.mark.parametrize("shift, flip", [(0, True), (1, False), (3, True)])
def test_augment_only_moves_and_mirrors(shift, flip):
    images = random_images()
    for image, moved in zip(images, augment(images, flip, shift), strict=True):
        assert any(moved.equal(candidate) for candidate in all_moves(image, shift, flip))


def test_augment_uses_all_moves_about_equally():
    image = random_images(1)
    results = augment(image.expand(4000, -1, -1, -1), flip=True, shift=1)
    counts = Counter(result.numpy().tobytes() for result in results)
    assert counts.keys() == {move.contiguous().numpy().tobytes() for move in all_moves(image[0], 1, True)}
    assert min(counts.values()) > 130 and max(counts.values()) < 320  # of 18 moves each comes 222 times on average


def test_augment_without_moves_changes_nothing():
    images = random_images()
    assert augment(images, flip=False, shift=0).equal(images)


def test_augment_keeps_its_input():
    images = random_images()
    before = images.clone()
    augment(images, flip=True, shift=2)
    assert images.equal(before)


def test_normalize_against_its_definition():
    images = random_images()
    expected = (images.numpy().astype(np.float64) / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    assert normalize(images).dtype == torch.float32
    torch.testing.assert_close(normalize(images), torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5)


def numbered_dataset(n):
    """Image i is all i, and has the label i."""
    numbers = torch.arange(n)
    return ImageTextDataset(
        numbers.to(torch.uint8)[:, None, None, None].expand(n, 3, 4, 4), numbers, tuple(map(str, numbers))
    )


def make_loader(n, batch_size):
    return BatchLoader(numbered_dataset(n), batch_size, torch.device("cpu"), flip=True, shift=1)


@pytest.mark.parametrize("n, batch_size, batches", [(20, 6, 3), (20, 5, 4), (20, 20, 1), (20, 100, 1), (1, 1, 1)])
def test_an_epoch_has_whole_batches_and_no_image_twice(n, batch_size, batches):
    loader = make_loader(n, batch_size)
    seen = [labels for _, labels in loader]
    assert len(seen) == len(loader) == batches
    assert {len(labels) for labels in seen} == {min(batch_size, n)}
    assert len(torch.cat(seen).unique()) == len(torch.cat(seen))


def test_images_stay_with_their_labels():
    for images, labels in make_loader(20, 6):
        assert images.equal(normalize(labels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)))


def test_batches_follow_the_seed():
    def epoch(seed):
        torch.manual_seed(seed)
        return torch.cat([labels for _, labels in make_loader(100, 10)])

    assert epoch(1).equal(epoch(1)) and not epoch(1).equal(epoch(2))


def test_each_epoch_has_its_own_order():
    loader = make_loader(100, 10)
    first, second = (torch.cat([labels for _, labels in loader]) for _ in range(2))
    assert not first.equal(second)


def test_mirrored_in_alternation():
    photos = replace(numbered_dataset(40), images=torch.randint(256, (40, 3, 4, 4), dtype=torch.uint8))
    loader = BatchLoader(photos, 10, torch.device("cpu"), flip=True, shift=0, alternate=True)

    def epoch():
        images, labels = map(torch.cat, zip(*loader, strict=True))
        return images[labels.argsort()]

    first, second = epoch(), epoch()
    assert torch.equal(first, second.flip(3))
    unchanged = (first == normalize(photos.images)).flatten(1).all(dim=1)
    assert 0 < unchanged.sum() < 40
    loader.next_epoch()  # left out
    assert torch.equal(second, epoch())
