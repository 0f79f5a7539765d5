"""The mesh of all processes: data × sequence. Ranks of one sequence are neighbours, so that they share a node first."""

from __future__ import annotations

from dataclasses import dataclass

from .ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class Mesh:
    """The two dimensions of the mesh, as one process sees them.

    data: the ranks that work on different samples at the same place of their sequences. sequence: the ranks that share
    one sequence.
    """

    data: Ranks = ALONE
    sequence: Ranks = ALONE


def make_mesh(sequence: int, device: str = "cpu") -> Mesh:
    """The mesh of all processes of the default group, of which `sequence` each share a sequence.

    device: of this process, such as "cpu" or "cuda:1". Without a default group there is one process,
    and torch.distributed stays unused. Raises ValueError if the number of processes is not a multiple of `sequence`.
    """
    world = _world_size()
    if sequence < 1 or world % sequence:
        raise ValueError(
            f"{world} processes do not split into sequences of {sequence} ranks; start a multiple of {sequence}"
        )
    if world == 1:
        return Mesh()
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(
        device.partition(":")[0], (world // sequence, sequence), mesh_dim_names=("data", "sequence")
    )
    data, shared = (
        Ranks(mesh.size(i), mesh.get_local_rank(name), mesh.get_group(name), device)
        for i, name in enumerate(("data", "sequence"))
    )
    return Mesh(data, shared)


def _world_size() -> int:
    """The number of processes of the default group; 1 without such a group."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
