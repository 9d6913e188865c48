"""The data set `images`: classes by folder, captions by file, what decides its identity, and what it refuses."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ftk import UserError
from ftk.cli import cli
from ftk_plugins.datasets.images.images import Images
from ftk_plugins.datasets.images.options import ImagesOptions


def paint(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6), grey, np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path):
    """Three cats and two dogs, each of one grey."""
    folder = tmp_path / "pets"
    for name, grey in {"dog/1.png": 10, "dog/old/2.png": 20, "cat/b.png": 30, "cat/a.png": 40, "cat/c.bmp": 50}.items():
        paint(folder / name, grey)
    (folder / ".DS_Store").write_text("x")
    return folder


def images(path, **options):
    return Images(ImagesOptions(path=str(path), **options))


def told(rows, name):
    return [(int(np.asarray(row["image"]).mean()), row[name]) for row in rows]


def test_a_folder_is_a_class_and_its_name_the_label(pets):
    rows = images(pets).rows("train")
    assert told(rows, "label") == [(40, "cat"), (30, "cat"), (50, "cat"), (10, "dog"), (20, "dog")]
    assert set(rows.column_names) == {"image", "label", "sha256"}
    assert rows.with_format("arrow")[0]["image"][0].as_py()["bytes"] is None, "only where it lies"


def test_captions_give_order_and_columns(pets):
    lines = [{"file": "dog/1.png", "text": "a dog", "n": 1}, {"file": "cat/a.png", "text": "a cat", "n": 2}]
    (pets / "told.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = images(pets, captions="told.jsonl").rows("train")
    assert told(rows, "text") == [(10, "a dog"), (40, "a cat")]
    assert rows["n"][:] == [1, 2]
    (pets / "told.csv").write_text("name,words\ncat/b.png,thirty\n")
    other = images(pets, captions="told.csv", file_column="name", columns={"text": "words"}).rows("train")
    assert told(other, "text") == [(30, "thirty")]


def test_fractions_and_limit_divide_the_rows(pets):
    source = images(pets, test_fraction=0.4, seed=3)
    assert source.splits() == ("train", "test")
    shades = [sorted(grey for grey, _ in told(source.rows(split), "label")) for split in source.splits()]
    assert list(map(len, shades)) == [3, 2]
    assert sorted(shades[0] + shades[1]) == [10, 20, 30, 40, 50]
    assert len(images(pets, limit=2).rows("train")) == 2


def test_identity_follows_what_the_images_hold_and_where_they_lie(pets):
    before = images(pets)
    assert before.identity() == images(pets).identity()
    paint(pets / "cat" / "a.png", 41)
    after = images(pets)
    assert after.identity() != before.identity()
    assert after.rows("train")["sha256"][0] != before.rows("train")["sha256"][0]
    (pets / "told.csv").write_text("file,text\ncat/a.png,one\n")
    one = images(pets, captions="told.csv").identity()
    (pets / "told.csv").write_text("file,text\ncat/a.png,two\n")
    assert images(pets, captions="told.csv").identity() != one
    (pets / "told.csv").unlink()
    moved = pets.rename(pets.parent / "moved")
    assert images(moved).identity() != after.identity()


def spoiled(folder, what):
    if what == "stray":
        (folder / "cat" / "notes.txt").write_text("x")
    elif what == "loose":
        paint(folder / "z.png", 1)
    elif what == "broken":
        (folder / "cat" / "d.png").write_text("x")
    elif what == "empty":
        (folder / "emu").mkdir()
    return folder


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("stray", r"notes.txt does not end like an image\n.*move it away"),
        ("loose", r"z.png stands in no class's folder"),
        ("broken", r"d.png is no image that can be read"),
        ("empty", r"the class emu has no images\n.*delete"),
    ],
)
def test_what_is_no_image_is_named(pets, what, words):
    with pytest.raises(UserError, match=words):
        images(spoiled(pets, what)).rows("train")


def test_what_is_no_such_folder_is_told_apart(pets, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is no folder\n.*current folder"):
        images(tmp_path / "nowhere").rows("train")
    with pytest.raises(UserError, match=r"holds no folders, one for each class\n.*`captions`"):
        images(pets / "cat").rows("train")
    (tmp_path / "split").mkdir()
    pets.rename(tmp_path / "split" / "train")
    with pytest.raises(UserError, match=r"holds splits \(train\), not classes\n.*split/train"):
        images(tmp_path / "split").rows("train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fil,text\na,b\n", r"has no column `file` that names the images\n.*`fil`"),
        ("file,text\ncat/z.png,b\n", r"told.csv, row 1: there is no image .*z.png\n.*goes from"),
        ("file,text\n,b\n", r"row 1: `file` names no image"),
        ("file,image\ncat/a.png,b\n", r"has a column `image`, which"),
    ],
)
def test_captions_that_cannot_be_read(pets, text, words):
    (pets / "told.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        images(pets, captions="told.csv").rows("train")


def test_a_column_of_captions_that_are_not_there_is_refused():
    with pytest.raises(ValueError, match="`file_column` is a column of `captions`"):
        ImagesOptions(path="x", file_column="name")


def test_ftk_data_shows_them_under_an_objective_of_images(pets, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        f"""
        name = "pets"
        model.use = "scratch"
        model.architecture = "vit"
        model.hidden_size = 32
        model.layers = 1
        model.heads = 2
        model.config = {{ patch_size = 4, image_size = 8 }}
        objective = {{ use = "image_classification" }}
        adaptation = {{ use = "full" }}
        evaluator = [{{ use = "accuracy" }}]
        [data]
        train = {{ use = "images", path = "{pets}", test_fraction = 0.4, seed = 3 }}
        """
    )
    result = CliRunner().invoke(cli, ["data", str(tmp_path / "recipe.toml"), "--json"])
    assert result.exit_code == 0, result.output
    [task] = json.loads(result.stdout)["tasks"]
    assert {role: found["rows"] for role, found in task["roles"].items()} == {"train": 3, "test": 2}
