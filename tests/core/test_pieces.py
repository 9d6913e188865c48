"""Rows of tensors in files: whoever reads them back gets the tensors that were cut."""

import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

from ftk.disk.pieces import cut, read_pieces


def test_the_cut_is_that_of_torch():
    """FSDP2 divides by ``torch.chunk``, whose last pieces are smaller or missing."""
    for rows in range(12):
        for world in range(1, 6):
            sizes = [len(piece) for piece in torch.zeros(rows, 2).chunk(world) if rows]
            starts = cut(rows, world)
            assert [stop - start for start, stop in pairwise(starts)] == sizes + [0] * (world - len(sizes))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_rows_of_any_number_of_processes_are_put_together(tmp_path, world):
    tensors = {
        "matrix": torch.randn(7, 3),
        "vector": torch.randn(4),
        "row": torch.randn(1, 2),
        "bf16": torch.ones(3, 2),
    }
    tensors["bf16"] = tensors["bf16"].bfloat16()
    files = [f"part.rank{rank}.safetensors" for rank in range(world)]
    index = {
        "files": files,
        "tensors": {
            name: {"shape": list(tensor.shape), "rows": cut(len(tensor), world)} for name, tensor in tensors.items()
        },
    }
    for rank, file in enumerate(files):
        rows = {name: cut(len(tensor), world)[rank : rank + 2] for name, tensor in tensors.items()}
        save_file({name: tensors[name][slice(*its)].contiguous() for name, its in rows.items()}, tmp_path / file)
    (tmp_path / "part.rows.json").write_text(json.dumps(index))
    found = read_pieces(tmp_path / "part.rows.json", None)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
