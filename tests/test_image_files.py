"""Image files of every kind, in folders and archives, whole and broken."""

import io
import os
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from miniclip_utils.errors import UserError
from miniclip_utils.image_files import ImageFiles, read_image, read_images

NAMES = ["cat/1.png", "cat/2.png", "dog/3.png"]


def png(color="red", size=(6, 6), mode="RGB"):
    """The bytes of a picture in one colour."""
    return encoded(Image.new(mode, size, color))


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def read(content, size=4):
    return read_image(io.BytesIO(content), size)


def pixel(content):
    """The only colour of a picture that is read back."""
    image = read(content)
    assert image.dtype == torch.uint8 and image.shape == (3, 4, 4)
    assert (image == image[:, :1, :1]).all()
    return tuple(image[:, 0, 0].tolist())


def make_folder(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def three_pictures():
    generator = np.random.default_rng(0)
    return {name: encoded(Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8))) for name in NAMES}


def all_images(path, **options):
    source = ImageFiles(path)
    return read_images(source, sorted(source.files), 8, **options)


# Modes and sizes


@pytest.mark.parametrize(
    "mode, color, expected",
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (50, 255), (50, 50, 50)),
        ("LA", (50, 0), (255, 255, 255)),
    ],
)
def test_any_mode_becomes_rgb_with_transparency_on_white(mode, color, expected):
    assert pixel(png(color, mode=mode)) == expected


def test_palette_colours_are_looked_up():
    image = Image.new("P", (6, 6), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert pixel(encoded(image)) == (200, 100, 50)


def test_transparent_palette_colour_is_white():
    image = Image.new("P", (6, 6), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert pixel(encoded(image, transparency=1)) == (255, 255, 255)


def test_cmyk_is_converted():
    red, green, blue = pixel(encoded(Image.new("CMYK", (6, 6), (0, 255, 255, 0)), "TIFF"))
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("grey16, grey8", [(0, 0), (257, 1), (30_000, 117), (65_535, 255)])
def test_16_bit_grey_is_scaled_and_not_clipped(format, grey16, grey8):
    image = Image.fromarray(np.full((6, 6), grey16, dtype=np.uint16))
    assert pixel(encoded(image, format)) == (grey8, grey8, grey8)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3000, 1), (2000, 7), (4, 4), (33, 31)])
def test_any_size_becomes_the_asked_square(size):
    assert pixel(png((10, 20, 30), size)) == (10, 20, 30)


def test_the_centre_is_kept():
    image = Image.new("RGB", (40, 10), "blue")
    image.paste("red", (10, 0, 30, 10))
    assert pixel(encoded(image)) == (255, 0, 0)


def test_a_picture_of_the_right_size_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    assert read(encoded(Image.fromarray(pixels))).equal(torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotated_photos_are_turned_upright(orientation):
    upright = np.zeros((4, 4, 3), dtype=np.uint8)
    upright[:2, :2], upright[:2, 2:], upright[2:, :2] = 255, (255, 0, 0), (0, 0, 255)
    undo = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # what the camera did: Image.Transpose numbers
    stored = Image.fromarray(upright)
    for step in undo.get(orientation, []):
        stored = stored.transpose(Image.Transpose(step))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read(encoded(stored, exif=exif)).equal(torch.from_numpy(upright).permute(2, 0, 1))


def test_damaged_metadata_does_not_spoil_a_good_picture():
    content = encoded(Image.new("RGB", (6, 6), "white"), "JPEG")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff rubbish"
    assert pixel(content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]) == (255, 255, 255)


# Broken files


def test_missing_file_is_named():
    with pytest.raises(UserError, match="no file 'nowhere.png'"):
        read_image("nowhere.png", 4)


BROKEN = {
    "truncated.png": encoded(Image.effect_noise((64, 64), 90))[:900],
    "truncated.jpg": encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900],
    "empty.png": b"",
    "text.png": b"this is not a picture\n",
    "web.jpg": b"<!doctype html><title>404</title>",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(UserError, match=f"{name}' is not an image that can be read"):
        read_image(tmp_path / name, 4)


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(UserError, match="is not an image"):
        read_image(tmp_path, 4)


def test_broken_files_are_counted_named_and_refused(tmp_path):
    make_folder(tmp_path, {"good.png": png(), "also good.png": png()} | BROKEN)
    with pytest.raises(UserError) as raised:
        all_images(tmp_path)
    assert "5 of 7 files" in str(raised.value)
    assert all(repr(name) in str(raised.value) for name in BROKEN)
    assert "good.png" not in str(raised.value)


def test_broken_files_are_skipped_by_option_with_one_warning(tmp_path):
    make_folder(tmp_path, {"b.png": png("blue"), "z.png": png("red")} | BROKEN)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images, kept = all_images(tmp_path, skip_bad_images=True)
    assert len(caught) == 1 and "skipped: 5 of 7 files" in str(caught[0].message)
    assert [sorted(ImageFiles(tmp_path).files)[k] for k in kept] == ["b.png", "z.png"]
    assert images[:, :, 0, 0].tolist() == [[0, 0, 255], [255, 0, 0]]


def test_many_broken_files_do_not_fill_the_screen(tmp_path):
    make_folder(tmp_path, {f"{number}.png": b"" for number in range(200)})
    with pytest.raises(UserError, match="200 of 200 files") as raised:
        all_images(tmp_path)
    assert len(str(raised.value)) < 500 and "and 195 more" in str(raised.value)


def test_skipping_everything_is_refused_without_the_advice_to_skip(tmp_path):
    make_folder(tmp_path, BROKEN)
    with pytest.raises(UserError) as raised:
        all_images(tmp_path, skip_bad_images=True)
    assert "5 of 5 files" in str(raised.value) and "--skip" not in str(raised.value)


# Folders


def test_hidden_files_and_what_systems_leave_behind_are_ignored(tmp_path):
    left = [".DS_Store", "cat/._1.png", "cat/Thumbs.db", "cat/desktop.ini", "__MACOSX/cat/1.png", ".git/a.png"]
    make_folder(tmp_path, dict.fromkeys(["cat/1.png", *left], png()))
    assert ImageFiles(tmp_path).files == ["cat/1.png"]


def test_missing_path_is_named(tmp_path):
    with pytest.raises(UserError, match="no file or folder .*'.*nowhere'"):
        ImageFiles(tmp_path / "nowhere")


@pytest.mark.parametrize("path", ["", "~nobody-of-this-name/pictures", "x" * 5000])
def test_strange_paths_are_refused_in_one_sentence(path):
    with pytest.raises(UserError):
        ImageFiles(path)


def test_linked_class_folders_are_followed(tmp_path):
    make_folder(tmp_path, {"elsewhere/1.png": png(), "data/dog/2.png": png()})
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    assert ImageFiles(tmp_path / "data").files == ["cat/1.png", "dog/2.png"]


@pytest.mark.parametrize("target", [".", ".."])
def test_a_link_in_a_circle_is_named(tmp_path, target):
    make_folder(tmp_path, {"cat/1.png": png()})
    (tmp_path / "cat" / "again").symlink_to(target)
    with pytest.raises(UserError, match="cat/again' is a link to a folder that holds it"):
        ImageFiles(tmp_path)


def test_links_of_two_folders_to_each_other_are_named(tmp_path):
    """Four links suffice for more paths than anyone could wait for."""
    make_folder(tmp_path, {"cat/1.png": png(), "dog/2.png": png()})
    for here, there in (("cat", "dog"), ("dog", "cat")):
        for number in range(2):
            (tmp_path / here / f"link {number}").symlink_to(f"../{there}")
    with pytest.raises(UserError, match="'.*cat/link 0/link 0' is a link to a folder that holds it"):
        ImageFiles(tmp_path)


def test_a_subfolder_that_may_not_be_read_is_not_lost_in_silence(tmp_path, monkeypatch):
    make_folder(tmp_path, three_pictures())
    scandir = os.scandir

    def refuse(path="."):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="Permission denied.*dog"):
        ImageFiles(tmp_path)


def test_broken_link_is_a_bad_file(tmp_path):
    make_folder(tmp_path, {"1.png": png()})
    (tmp_path / "2.png").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="1 of 2 files.*'2.png'"):
        all_images(tmp_path)


# Archives


def make_archive(path, files):
    """An archive of the kind that its name says."""
    if path.suffix == ".zip":
        return make_zip(path, files)
    return make_tar(path, files, "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}")


KINDS = ["x.tar", "x.tar.gz", "x.tar.xz", "x.zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_archives_give_the_tensors_of_the_folder(tmp_path, kind):
    folder = make_folder(tmp_path / "folder", three_pictures())
    archive = make_archive(tmp_path / kind, dict(reversed(three_pictures().items())))
    assert sorted(ImageFiles(archive).files) == NAMES
    images, kept = all_images(archive)
    assert kept == [0, 1, 2] and images.equal(all_images(folder)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_archives_name_their_broken_files(tmp_path, kind):
    archive = make_archive(tmp_path / kind, {"good.png": png()} | BROKEN)
    with pytest.raises(UserError, match="5 of 6 files"):
        all_images(archive)
    with pytest.warns(UserWarning, match="skipped: 5 of 6 files"):
        images, kept = all_images(archive, skip_bad_images=True)
    assert len(images) == len(kept) == 1


@pytest.mark.parametrize("kind", ["x.tar", "x.zip"])
def test_names_that_begin_with_a_dot_and_a_slash_are_tidied(tmp_path, kind):
    archive = make_archive(tmp_path / kind, {f"./{name}": content for name, content in three_pictures().items()})
    assert ImageFiles(archive).files == NAMES
    assert len(all_images(archive)[0]) == 3


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["x.tar", "x.zip"])
def test_a_name_stored_twice_is_one_file_and_the_last_counts(tmp_path, kind):
    if kind == "x.zip":
        with zipfile.ZipFile(tmp_path / kind, "w") as archive:
            archive.writestr("1.png", png("red"))
            archive.writestr("1.png", png("blue"))
    else:
        make_tar(tmp_path / kind, {"1.png": png("red")})
        make_tar(tmp_path / kind, {"1.png": png("blue")}, "a")
    images, _ = all_images(tmp_path / kind)
    assert images[:, :, 0, 0].tolist() == [[0, 0, 255]]


@pytest.mark.parametrize("kind", ["x.tar", "x.zip"])
@pytest.mark.parametrize("name", ["../evil.png", "cat/../../evil.png", "/tmp/evil.png", "..\\evil.png"])
def test_names_that_point_outside_are_refused_and_nothing_is_written(tmp_path, kind, name):
    archive = make_archive(tmp_path / "inner" / kind if (tmp_path / "inner").mkdir() is None else tmp_path, {name: png()})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="evil.png.* points outside of it"):
        ImageFiles(archive)
    assert sorted(tmp_path.rglob("*")) == before


def add_link(path, name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    with tarfile.open(path, "a") as archive:
        archive.addfile(info)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("relative", [True, False])
def test_links_to_the_outside_are_never_followed(tmp_path, monkeypatch, kind, relative):
    make_folder(tmp_path, {"secret.png": png("blue")})
    archive = make_tar(tmp_path / "x.tar", {"good.png": png("red")})
    add_link(archive, "link.png", kind, "secret.png" if relative else str(tmp_path / "secret.png"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="1 of 2 files.*'link.png'"):
        all_images(archive)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_within_an_archive_are_the_file_they_name(tmp_path, kind):
    archive = make_tar(tmp_path / "x.tar", {"good.png": png("red")})
    add_link(archive, "link.png", kind, "good.png")
    images, _ = all_images(archive)
    assert images[:, :, 0, 0].tolist() == [[255, 0, 0], [255, 0, 0]]


def test_links_in_a_circle_are_bad_files(tmp_path):
    archive = make_tar(tmp_path / "x.tar", {"good.png": png("red")})
    add_link(archive, "a.png", tarfile.SYMTYPE, "b.png")
    add_link(archive, "b.png", tarfile.SYMTYPE, "a.png")
    with pytest.raises(UserError, match="2 of 3 files"):
        all_images(archive)


def test_a_member_without_a_name_is_left_alone(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(""))
        archive.addfile(tarfile.TarInfo("cat/1.png"))
    assert ImageFiles(tmp_path / "x.tar").files == ["cat/1.png"]


def test_devices_in_an_archive_are_left_alone(tmp_path):
    archive = make_tar(tmp_path / "x.tar", {"good.png": png("red")})
    add_link(archive, "pipe.png", tarfile.FIFOTYPE, "")
    assert ImageFiles(archive).files == ["good.png"]


def test_links_in_a_zip_are_not_followed(tmp_path):
    make_folder(tmp_path, {"secret.png": png("blue")})
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good.png", png())
        archive.writestr(link, str(tmp_path / "secret.png"))
    with pytest.raises(UserError, match="1 of 2 files.*'link.png'"):
        all_images(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_archives_are_refused(tmp_path, kind, share):
    generator = np.random.default_rng(0)
    files = {f"{n}.png": encoded(Image.fromarray(generator.integers(0, 256, (40, 40), dtype=np.uint8))) for n in range(40)}
    archive = make_archive(tmp_path / kind, files)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=f"cannot read '.*{kind}'"):
        ImageFiles(archive)


def test_a_tar_cut_at_any_block_is_refused(tmp_path):
    archive = make_tar(tmp_path / "x.tar", three_pictures())
    content = archive.read_bytes().rstrip(b"\0")
    for blocks in range(len(content) // 512 + 1):
        archive.write_bytes(content[: 512 * blocks])
        with pytest.raises(UserError, match="cannot read"):
            ImageFiles(archive)


def test_a_damaged_header_does_not_lose_the_files_after_it(tmp_path):
    archive = make_tar(tmp_path / "x.tar", three_pictures())
    content = bytearray(archive.read_bytes())
    content[content.index(b"cat/2.png")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot read"):
        ImageFiles(archive)


def test_a_damaged_zip_member_is_a_bad_file(tmp_path):
    archive = make_zip(tmp_path / "x.zip", three_pictures())
    content = bytearray(archive.read_bytes())
    content[content.index(b"cat/1.png") + 40] ^= 255
    archive.write_bytes(content)
    with pytest.raises(UserError, match="1 of 3 files.*'cat/1.png'"):
        all_images(archive)


def test_an_encrypted_zip_is_called_so(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"1.png": png()})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\3\4") + 6] |= 1  # the flag in the file's own header, and in the list of contents
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        ImageFiles(archive)


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.zip", "x.txt"])
@pytest.mark.parametrize("content", [b"", b"just some text\n" * 100], ids=["empty", "text"])
def test_what_is_no_archive_is_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="must be a folder or a whole .tar") as raised:
        ImageFiles(tmp_path / name)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300 + len(str(tmp_path))
