"""Bundles on disk: whole or not at all, checked when read."""

import json
import os
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from ftk.disk.bundles import Bundler, read_bundle
from ftk.disk.manifest import Damaged


def write(directory: Path, states: dict[str, dict], bundler: Bundler | None = None, **facts: Any) -> None:
    (bundler or Bundler()).take(directory, states, copy=True, **facts).write()


def states() -> dict[str, dict]:
    return {
        "adaptation": {"weight": torch.randn(3, 4), "step": 7, "names": ["a", "é"]},
        "empty": {},
        "numbers": {"loss": 0.1 + 0.2},
    }


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    written = states()
    write(tmp_path / "b", written, stage=2)
    read, manifest = read_bundle(tmp_path / "b")
    assert torch.equal(read["adaptation"].pop("weight"), written["adaptation"].pop("weight"))
    assert read == written
    assert manifest["stage"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("harm", ["cut", "flip", "delete", "manifest", "no manifest"])
def test_a_damaged_bundle_is_named(tmp_path, harm):
    write(tmp_path / "b", states())
    file = tmp_path / "b" / ("manifest.json" if "manifest" in harm else "adaptation.safetensors")
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[:-1])
    elif harm == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "manifest":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    with pytest.raises(Damaged, match=file.name):
        read_bundle(tmp_path / "b")


def test_an_interrupted_write_leaves_the_old_bundle(tmp_path, monkeypatch):
    bundler = Bundler()
    write(tmp_path / "b", {"x": {"value": 1}}, bundler)
    monkeypatch.setattr(
        "ftk.disk.bundles.replace_directory", lambda aside, target: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "b", {"x": {"value": 2}}, bundler)
    assert read_bundle(tmp_path / "b")[0]["x"] == {"value": 1}


def test_unchanged_tensors_are_linked_and_changed_ones_written(tmp_path):
    bundler = Bundler()
    fixed, moving = torch.randn(5), torch.randn(5)
    bundle = {"mitigation.fixed": {"t": fixed}, "mitigation.moving": {"t": moving}}
    write(tmp_path / "one", bundle, bundler)
    moving.add_(1)
    write(tmp_path / "two", bundle, bundler)

    def inode(name: str, part: str) -> int:
        return os.stat(tmp_path / name / f"{part}.safetensors").st_ino

    assert inode("one", "mitigation.fixed") == inode("two", "mitigation.fixed")
    assert inode("one", "mitigation.moving") != inode("two", "mitigation.moving")
    assert torch.equal(read_bundle(tmp_path / "two")[0]["mitigation.moving"]["t"], moving)


def test_what_a_fused_optimizer_moves_is_written_though_its_version_stands_still(tmp_path):
    bundler, weight = Bundler(), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)

    def step() -> dict[str, dict]:
        weight.grad = torch.ones(3)
        optimizer.step()
        return {"adaptation": {"w": weight}, "optimizer.rank0": {"w/exp_avg": optimizer.state[weight]["exp_avg"]}}

    write(tmp_path / "one", step(), bundler)
    moved = step()
    write(tmp_path / "two", moved, bundler)
    read, _ = read_bundle(tmp_path / "two")
    for part, state in moved.items():
        for name, tensor in state.items():
            assert torch.equal(read[part][name], tensor.detach())


@pytest.mark.parametrize("links", [True, False])
def test_what_is_taken_stays_as_it_was_while_the_states_go_on(tmp_path, monkeypatch, links):
    bundler = Bundler()
    fixed, moving, numbers = torch.randn(5), torch.randn(2, 5).T, {"seconds": [1.0]}
    bundle = {"mitigation.fixed": {"t": fixed}, "mitigation.moving": {"t": moving}, "numbers": numbers}
    write(tmp_path / "one", bundle, bundler)
    moving.add_(1)
    then = moving.clone()
    taken = bundler.take(tmp_path / "two", bundle, copy=True)
    moving.add_(1)
    numbers["seconds"].append(2.0)
    assert not taken.parts["mitigation.fixed"].tensors, "what has not changed is not copied in memory either"
    if not links:
        monkeypatch.setattr("ftk.disk.bundles.os.link", lambda *paths: (_ for _ in ()).throw(OSError()))
    taken.write()
    read, _ = read_bundle(tmp_path / "two")
    assert torch.equal(read["mitigation.moving"]["t"], then)
    assert torch.equal(read["mitigation.fixed"]["t"], fixed)
    assert read["numbers"] == {"seconds": [1.0]}
    write(tmp_path / "three", bundle, bundler)
    assert torch.equal(read_bundle(tmp_path / "three")[0]["mitigation.moving"]["t"], moving)


def test_a_bundle_that_cannot_be_written_leaves_no_half_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ftk.disk.bundles.os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "b", states())
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_not_kept_from_being_freed(tmp_path):
    bundler, tensor = Bundler(), torch.zeros(3)
    write(tmp_path / "one", {"mitigation.part": {"x": tensor}}, bundler)
    held = weakref.ref(tensor)
    del tensor
    assert held() is None


def test_a_tensor_replaced_by_an_equal_looking_one_is_written(tmp_path):
    bundler = Bundler()
    write(tmp_path / "one", {"mitigation.p": {"t": torch.zeros(3)}}, bundler)
    write(tmp_path / "two", {"mitigation.p": {"t": torch.ones(3)}}, bundler)
    assert read_bundle(tmp_path / "two")[0]["mitigation.p"]["t"].tolist() == [1, 1, 1]


def test_the_manifest_tells_sizes_and_checksums(tmp_path):
    write(tmp_path / "b", states())
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert set(manifest["files"]) == {"adaptation.safetensors", "adaptation.json", "empty.json", "numbers.json"}
    assert all(len(told["sha256"]) == 64 for told in manifest["files"].values())
