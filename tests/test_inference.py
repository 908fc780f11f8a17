"""Naming and finding images with a trained model, in Python and on the command line."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
import torch
from PIL import Image

from miniclip_utils import inference
from miniclip_utils.checkpoint import RunConfig, load_run, new_run, save_model, write_config
from miniclip_utils.cli import run_command
from miniclip_utils.errors import UserError
from miniclip_utils.inference import classify, search_images, text_query

from .conftest import TINY

LABELS = ("red", "green", "blue")
VOCABULARY = ("a", "blue", "green", "of", "photo", "red")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with an untrained run `run`, an image of each colour, and a folder `many` of images."""
    config = RunConfig("shapes", "tiny", 0, TINY, {}, LABELS, ("a photo of a {}", "{}"), VOCABULARY, 8)
    (tmp_path / "run").mkdir()
    write_config(config, tmp_path / "run")
    save_model(new_run(config).model, tmp_path / "run")
    (tmp_path / "many").mkdir()
    for index, color in enumerate(LABELS):
        Image.new("RGB", (20, 30), color).save(tmp_path / f"{color}.png")
        Image.effect_noise((20, 20), 30 * index).save(tmp_path / "many" / f"noise {index}.png")
        Image.new("RGB", (20, 30), color).save(tmp_path / "many" / f"{color}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder):
    return load_run(folder / "run")


def images(n=3):
    return torch.randint(256, (n, 3, 16, 16), dtype=torch.uint8)


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Calls the command line within this process. Gives exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["inference", "--run", "run", *arguments])
        monkeypatch.setattr("warnings.showwarning", None)
        code = 0
        try:
            run_command(inference.main)
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return call


def assert_error(answer, message):
    """Exit code 2, nothing on stdout, exactly one line `error: …` on stderr, and else only notes."""
    code, out, err = answer
    errors = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert code == 2 and out == ""
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0], err


# In Python


def test_classify_is_the_softmax_of_scaled_cosines(run):
    pictures = images()
    answers = classify(run, pictures, LABELS, ["{}"])
    with torch.no_grad():
        logits, _ = run.model(inference_input(pictures), run.tokenizer(LABELS))
    for row, answer in zip(logits.softmax(dim=1), answers, strict=True):
        assert [best["label"] for best in answer] == [LABELS[k] for k in row.argsort(descending=True)]
        assert [best["probability"] for best in answer] == pytest.approx(sorted(row.tolist(), reverse=True), abs=1e-5)


def inference_input(pictures):
    from miniclip_utils.data import normalize

    return normalize(pictures)


def test_classify_uses_the_first_trained_template(run):
    pictures = images()
    assert classify(run, pictures, LABELS) == classify(run, pictures, LABELS, ["a photo of a {}"])


@pytest.mark.parametrize("top, answers", [(1, 1), (3, 3), (100, 3)])
def test_classify_gives_as_many_labels_as_asked_for(run, top, answers):
    assert {len(best) for best in classify(run, images(), LABELS, top=top)} == {answers}


@pytest.mark.parametrize(
    "labels, message",
    [
        ([], "at least two: there are 0"),
        (["red"], "at least two: there are 1"),
        (["red", "red"], "'red' and 'red' read the same"),
        (["red", "RED"], "'red' and 'RED' read the same"),
        (["red", ""], "a label is empty"),
        (["red", " \t"], "a label is empty"),
        (["zebra", "lion"], "'zebra' and 'lion' read the same"),
        (["🐈", "🐕"], "read the same"),
        (["red", "red " * 500], "reads at most 6: shorten it"),
    ],
)
def test_labels_among_which_the_model_cannot_choose_are_refused(run, labels, message):
    with pytest.raises(UserError, match=message):
        classify(run, images(), labels)


@pytest.mark.parametrize("templates, message", [(["a photo"], "'a photo' has no place for the label"), ([], "template")])
def test_templates_without_a_place_for_the_label_are_refused(run, templates, message):
    with pytest.raises(UserError, match=message):
        classify(run, images(), LABELS, templates)


def test_search_finds_an_image_among_others_first(run):
    pictures = images(6)
    from miniclip_utils.evaluate import encode_images

    query = encode_images(run.model, pictures[4:5])[0]
    found = search_images(run, query, pictures, top=3)
    assert found[0] == (4, pytest.approx(1, abs=1e-5))
    assert len(found) == 3 and found == sorted(found, key=lambda pair: -pair[1])


def test_text_query_has_length_one(run):
    assert text_query(run, "a red photo").norm().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_text_is_refused(run, text):
    with pytest.raises(UserError, match="text to look for is empty"):
        text_query(run, text)


@pytest.mark.parametrize("text", ["zebra", "🐈", "zebra crossing!"])
def test_text_of_which_the_model_knows_nothing_is_refused(run, text):
    with pytest.raises(UserError, match="knows none of the words"):
        text_query(run, text)


# On the command line


def test_images_are_named(command):
    code, out, err = command("red.png", "blue.png")
    assert (code, err) == (0, "")
    assert out.count("%") == 6 and out.startswith("red.png:\n") and "\nblue.png:\n" in out


def test_json_is_one_object_with_probabilities_that_sum_to_one(command):
    code, out, err = command("red.png", "blue.png", "--json")
    answer = json.loads(out)
    assert (code, err) == (0, "") and out.count("\n") == 1
    assert [image["image"] for image in answer["images"]] == ["red.png", "blue.png"]
    for image in answer["images"]:
        assert sum(best["probability"] for best in image["predictions"]) == pytest.approx(1, abs=1e-5)


def test_own_labels_and_templates_are_used(command):
    _, out, _ = command("red.png", "--json", "--labels", "red", "a green", "--template", "photo of {}", "{}")
    assert {best["label"] for best in json.loads(out)["images"][0]["predictions"]} == {"red", "a green"}


def test_unknown_words_are_said_with_the_known_ones(command):
    code, out, err = command("red.png", "--json", "--labels", "red", "zebra")
    assert code == 0 and json.loads(out)["unknown_words"] == ["zebra"]
    assert err.count("\n") == 1 and err.startswith("note: ") and "'zebra'" in err and "green" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "say what to do"),
        (["red.png", "--find", "red"], "say what to do"),
        (["--find", "red"], "search the images of --in"),
        (["red.png", "--in", "many"], "search the images of --in"),
        (
            ["--find", "red", "--in", "many", "--labels", "red", "blue"],
            "--labels and --template are for image files to name",
        ),
        (["--find", "red", "--in", "many", "--template", "a {}"], "--labels and --template are for image files to name"),
        (["--similar-to", "red.png", "--in", "many", "--labels"], "--labels and --template are for image files to name"),
        (["red.png", "--labels"], "there are 0"),
        (["red.png", "--labels", "red"], "there are 1"),
        (["red.png", "--labels", "red", "Red"], "read the same"),
        (["red.png", "--labels", "red", ""], "a label is empty"),
        (["red.png", "--labels", "🐈", "🐕"], "read the same"),
        (["red.png", "--labels", "red", "very " * 99], "shorten it"),
        (["red.png", "--template", "a photo"], "no place for the label"),
        (["red.png", "--template", "a " * 99 + "{}"], "shorten it"),
        (["red.png", "--top", "0"], "--top 0 leaves no answer"),
        (["red.png", "--top", "-3"], "--top -3 leaves no answer"),
        (["gone.png"], "no file 'gone.png'"),
        (["many"], "'many' is not an image"),
        (["run/config.json"], "'run/config.json' is not an image"),
        (["red.png", "--run", "gone"], "there is no run 'gone'"),
        (["red.png", "--run", "many"], "is not the folder of a run"),
        (["red.png", "--device", "toaster"], "device 'toaster' cannot be used"),
        (["red.png", "--device", "meta"], "device 'meta' cannot be used"),
        (["red.png", "--device", "hpu"], "device 'hpu' cannot be used"),
        (["--find", "", "--in", "many"], "text to look for is empty"),
        (["--find", "zebra", "--in", "many"], "knows none of the words"),
        (["--find", "red", "--in", "gone"], "no file or folder 'gone'"),
        (["--find", "red", "--in", "red.png"], "must be a folder or a whole .tar"),
        (["--similar-to", "gone.png", "--in", "many"], "no file 'gone.png'"),
    ],
)
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_bad_input_ends_with_one_sentence_and_exit_code_2(command, arguments, message, as_json):
    assert_error(command(*as_json, *arguments), message)


def test_an_empty_folder_has_nothing_to_search(command, folder):
    (folder / "empty").mkdir()
    assert_error(command("--find", "red", "--in", "empty"), "no images to search in 'empty'")


def test_a_folder_with_nothing_but_bad_files_is_refused_without_options_that_do_not_exist(command, folder):
    (folder / "bad").mkdir()
    (folder / "bad" / "a.png").write_bytes(b"bad")
    answer = command("--find", "red", "--in", "bad")
    assert_error(answer, "1 of 1 files")
    assert "--skip-bad-images" not in answer[2]


def test_errors_of_several_lines_are_shown_as_one(capsys):
    def main():
        raise UserError("this\nand\r\nthat")

    with pytest.raises(SystemExit, match="2"):
        run_command(main)
    assert capsys.readouterr().err == "error: this and that\n"


def test_the_most_similar_image_in_a_folder_is_its_copy(command):
    _, out, _ = command("--similar-to", "red.png", "--in", "many", "--json", "--top", "2")
    found = json.loads(out)["found"]
    assert len(found) == 2
    assert found[0] == {"image": os.path.join("many", "red.png"), "similarity": pytest.approx(1, abs=1e-5)}


def test_an_image_is_not_found_as_similar_to_itself(command):
    _, out, _ = command("--similar-to", "many/red.png", "--in", "many", "--json", "--top", "99")
    assert len(json.loads(out)["found"]) == 5 and "red.png" not in out


def test_bad_files_are_skipped_with_one_note(command, folder):
    (folder / "many" / "bad.png").write_bytes(b"bad")
    (folder / "many" / "note.txt").write_bytes(b"text")
    code, out, err = command("--find", "a red photo", "--in", "many", "--json", "--top", "99")
    assert code == 0 and len(json.loads(out)["found"]) == 6
    assert err.count("\n") == 1 and err.startswith("note: skipped: 2 of 8 files") and "'bad.png', 'note.txt'" in err


def test_the_captions_of_a_folder_are_not_taken_for_a_picture(command, folder):
    (folder / "many" / "captions.csv").write_text("file,caption\nred.png,a red photo\n")
    code, out, err = command("--find", "a red photo", "--in", "many", "--json", "--top", "99")
    assert (code, err) == (0, "") and len(json.loads(out)["found"]) == 6


def test_an_archive_is_searched_as_its_folder(command, folder):
    with zipfile.ZipFile("many.zip", "w") as archive:
        for file in sorted((folder / "many").iterdir()):
            archive.write(file, file.name)
    answers = [command("--find", "a red photo", "--in", source, "--json")[1] for source in ("many", "many.zip")]
    scores = [[found["similarity"] for found in json.loads(out)["found"]] for out in answers]
    assert scores[0] == scores[1] and os.path.join("many.zip", "noise") in answers[1]


# As a process of its own


def start(folder, *arguments, **options):
    command = [sys.executable, "-m", "miniclip_utils.inference", "--run", "run", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | options
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_odd_names_and_labels_are_printed_where_only_ascii_can_be(folder):
    odd = os.fsdecode("grün 🐈 \udcff.png".encode("utf-8", "surrogateescape"))
    os.rename(folder / "red.png", folder / odd)
    answer = start(folder, odd, "--labels", "red", "🐈", PYTHONIOENCODING="ascii")
    assert answer.returncode == 0 and answer.stdout.count("%") == 2, answer.stderr
    assert answer.stderr.startswith("note: ") and answer.stderr.count("\n") == 1


def test_json_of_odd_names_can_be_read_again(command, folder):
    odd = os.fsdecode("grün 🐈 \udcff.png".encode("utf-8", "surrogateescape"))
    os.rename(folder / "red.png", folder / odd)
    code, out, _ = command(odd, "--json")
    assert code == 0 and json.loads(out)["images"][0]["image"] == odd


def test_a_process_ends_with_one_sentence_and_exit_code_2(folder):
    answer = start(folder, "gone.png", "--json")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "error: there is no file 'gone.png': check the path\n"


def test_a_reader_that_has_gone_is_no_reason_to_complain(folder):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "miniclip_utils.inference", "--run", "run", "red.png"]
    environment = os.environ | {"PYTHONUNBUFFERED": ""}  # so that the answer is written at the end
    answer = subprocess.run(command, cwd=folder, env=environment, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (answer.returncode, answer.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no disk that is always full")
def test_a_full_disk_below_the_output_is_said(folder):
    command = [sys.executable, "-m", "miniclip_utils.inference", "--run", "run", "red.png"]
    with open("/dev/full", "w") as full:
        answer = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True)
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1
    assert answer.stderr.startswith("error: cannot use the output (No space left on device)")


def test_what_the_system_refuses_is_said_in_one_sentence(capsys):
    def main():
        raise PermissionError(13, "Permission denied", "a/b")

    with pytest.raises(SystemExit, match="1"):
        run_command(main)
    assert capsys.readouterr().err == "error: cannot use 'a/b' (Permission denied): mend that, or choose another place\n"


def test_a_closed_output_is_no_reason_to_complain(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    run_command(lambda: print("unheard"))
