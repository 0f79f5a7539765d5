"""The mesh, the exchange of heads and the gathers, over gloo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.parallel import ALONE, Ranks, all_gather, check_size, heads_to_tokens, tokens_to_heads
from longlive.longlive_core.parallel import make_mesh as make_mesh_of_one

from .ranks import run_ranks


@pytest.mark.parametrize("count", [1, 7, 8, 144])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_shares_are_whole_and_as_equal_as_can_be(count: int, size: int) -> None:
    """The shares of all ranks are consecutive, cover everything, and differ by one at most."""
    shares = Ranks(size).shares(count)
    owned = [index for rank in range(size) for index in range(count)[Ranks(size, rank).own(count)]]
    assert owned == list(range(count)) and sum(shares) == count
    assert [len(range(count)[Ranks(size, rank).own(count)]) for rank in range(size)] == list(shares)
    assert max(shares) - min(shares) <= 1


def test_a_size_that_is_not_allowed_is_refused_with_the_nearest() -> None:
    """The message names the sizes allowed and the nearest of them; sizes that fit pass."""
    for size in (1, 2, 4):
        check_size(size, 6, 128)
    with pytest.raises(ValueError, match=r"3 ranks .* 6 heads .*: the sizes allowed are 1, 2, 4; the nearest is 2"):
        check_size(3, 6, 128)
    with pytest.raises(ValueError, match="the nearest is 4"):
        check_size(8, 6, 128)
    with pytest.raises(ValueError, match="the nearest is 1"):
        check_size(0, 6, 128)


def test_one_rank_needs_no_process_group() -> None:
    """A single process gets its tensors back, the same objects, and the mesh of one."""
    x = torch.ones(1, 2, 3, 4)
    assert make_mesh_of_one(1).sequence is ALONE and make_mesh_of_one(1).data is ALONE
    assert tokens_to_heads(x, ALONE, 2) is x and heads_to_tokens(x, ALONE, 3) is x and all_gather(x, ALONE, 1, 2) is x
    with pytest.raises(ValueError, match="1 processes do not split into sequences of 2 ranks"):
        make_mesh_of_one(2)


def test_importing_the_package_does_not_import_collectives(root: Path) -> None:
    """The module of meshes, which torch itself leaves alone, is imported only where there is more than one process."""
    script = (
        "import sys, types\n"
        f"package = types.ModuleType('longlive'); package.__path__ = [{str(root)!r}]\n"
        "sys.modules['longlive'] = package\n"
        "import torch\n"
        "before = set(sys.modules)\n"
        "from longlive.longlive_core.parallel import make_mesh\n"
        "make_mesh(1)\n"
        "new = [name for name in set(sys.modules) - before if name.startswith('torch.distributed')]\n"
        "assert not new and not torch.distributed.is_initialized(), new\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_the_exchange_and_its_gradient(tmp_path: Path, size: int) -> None:
    """Ranks get all tokens of their heads and the tokens back; the gradient is that of one process, also unevenly."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 9, 6, 4), torch.randn(2, 9, 6, 4)
    for rank, (heads, back, grad) in enumerate(run_ranks(size, "exchange", tmp_path, x, weight)):
        ranks = Ranks(size, rank)
        assert torch.equal(heads, x[:, :, ranks.own(6)])
        assert torch.equal(back, x[:, ranks.own(9)])
        assert torch.equal(grad, weight[:, ranks.own(9)])


@pytest.mark.slow
def test_gathers_keep_every_bit_of_every_dtype(tmp_path: Path) -> None:
    """A gather of uneven shares gives the whole tensor on each rank, in float32, bfloat16, bytes and E4M3."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3)
    whole = [x, x.bfloat16(), x.to(torch.float8_e4m3fn), x.byte()]
    for gathered in run_ranks(2, "gather", tmp_path, *whole):
        for ours, given in zip(gathered, whole, strict=True):
            assert ours.dtype == given.dtype and torch.equal(ours.float(), given.float())


@pytest.mark.slow
def test_the_largest_number_and_the_places_in_the_mesh(tmp_path: Path) -> None:
    """Every rank gets the largest number of all; the ranks of a sequence are neighbours."""
    x = torch.tensor([[1.0, 5.0], [2.0, 4.0]])
    assert all(torch.equal(found, torch.tensor([2.0, 5.0])) for found in run_ranks(2, "largest", tmp_path, x))
    assert run_ranks(4, "places", tmp_path, 2) == [(2, 0, 2, 0), (2, 0, 2, 1), (2, 1, 2, 0), (2, 1, 2, 1)]
