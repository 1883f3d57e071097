"""An output is refused before any work, or can be written at its end, wherever it lies."""

import os

import pytest

from fsd_tune.storage import artifacts, files
from fsd_tune.storage.outputs import output_problems


def a_link(root):
    (root / "disk").mkdir()
    (root / "out").symlink_to("disk")
    return root / "out"


def a_dangling_link(root):
    (root / "out").symlink_to(root / "not/yet/there")
    return root / "out"


def below_a_dangling_link(root):
    return a_dangling_link(root) / "model"


def a_chain_of_links(root):
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("three")
    return root / "one"


def the_working_folder(root):
    (root / "cwd").mkdir()
    os.chdir(root / "cwd")
    return "."


def above_the_working_folder(root):
    (root / "here/below").mkdir(parents=True)
    os.chdir(root / "here/below")
    return "../../beside"


def a_new_disk(root):
    (root / "disk/lost+found").mkdir(parents=True)
    return root / "disk"


def a_long_path(root):
    return root.joinpath(*["folder" * 10] * 8)


PLACES = (
    a_link, a_dangling_link, below_a_dangling_link, a_chain_of_links, the_working_folder, above_the_working_folder,
    a_new_disk, a_long_path,
)  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("make", PLACES)
def test_an_accepted_output_holds_what_is_written(root, make):
    place = make(root)
    before = sorted(path.name for path in root.rglob("*"))
    assert output_problems(place) == []
    assert sorted(path.name for path in root.rglob("*")) == before, "the probe leaves nothing"
    for text in ("first", "second"):
        with artifacts.atomic_folder(place) as temporary:
            (temporary / artifacts.MODEL_RECORD).write_text(text)
            (temporary / text).mkdir()
        held = files.contents(files.real_path(place))
        assert sorted(path.name for path in held) == sorted([artifacts.MODEL_RECORD, text])
        assert (files.real_path(place) / artifacts.MODEL_RECORD).read_text() == text
    assert not list(root.rglob(".*")), "nothing temporary is left"


def test_a_mount_point_and_a_folder_in_a_foreign_one_are_filled_in_place(root, monkeypatch):
    """Nothing beside the folder is touched: it keeps its inode, and the folder above needs no writing."""
    place = root / "disk"
    place.mkdir()
    inode = place.stat().st_ino
    real_mkdir = type(place).mkdir

    def mkdir(path, *arguments, **options):
        if path.parent == root and not options.get("exist_ok"):
            raise PermissionError(13, "Permission denied", str(path))
        real_mkdir(path, *arguments, **options)

    monkeypatch.setattr(type(place), "mkdir", mkdir)
    assert output_problems(place) == [] and output_problems(root / "new") != []
    with artifacts.atomic_folder(place) as temporary:
        (temporary / "model").touch()
    assert place.stat().st_ino == inode and [path.name for path in place.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://bucket/x", "found a URI (s3://), but must be a folder on a disk."),
        ("s3:/bucket/x", "found a URI (s3://), but must be a folder on a disk."),
        ("https://host/x", "found a URI (https://), but must be a folder on a disk."),
        ("file:///tmp/x", "found a URI (file://), but must be a folder on a disk."),
        ("gs://key:secret@bucket", "found a URI (gs://), but must be a folder on a disk."),
        ("~nobody-of-this-name/x", "found ~nobody-of-this-name/x, but there is no user nobody-of-this-name"),
        ("", "is empty"),
        ("new/\udcff/x", "'new/\\udcff/x' is not UTF-8"),
        ("file", "file is a file, but must be a folder or new."),
        ("to-file", "to-file is a file, but must be a folder or new."),
        ("file/below", "is not a writable directory."),
        ("circle", "its links lead in a circle."),
        ("circle/x", "its links lead in a circle."),
        ("n" * 250, "File name too long"),
        ("n" * 300 + "/x", "File name too long"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_line(root, place, said):
    (root / "file").touch()
    (root / "to-file").symlink_to("file")
    (root / "circle").symlink_to("circle")
    (line,) = output_problems(place)
    assert line.startswith("--output: ") and said in line and "secret" not in line


def test_a_uri_where_uris_are_stored():
    assert output_problems("s3://bucket/x", uri=True) == []
    assert "two slashes" in output_problems("s3:/bucket/x", uri=True)[0]
    assert "holds a key" in output_problems("s3://k:v@bucket/x", "--memory", uri=True)[0]


def test_a_file(root):
    (root / "folder").mkdir()
    (root / "link").symlink_to("new")
    assert output_problems("folder", "--file", file=True) == ["--file: folder is a folder, but must be a file or new."]
    assert output_problems("link", "--file", file=True) == [] == output_problems("a/b/c", "--file", file=True)
    artifacts.write_text(root / "link", "text")
    assert (root / "new").read_text() == "text" and (root / "link").is_symlink()
