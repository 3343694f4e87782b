"""Cases of `ms_deform_attn_module` of every size: two together, and as an encoder calls it.

A sample near a kink has no one gradient, and of thousands of samples some are always near one. Here the reference
points lie between cell centres and the offsets are whole cells and a little more, so that none is: gradients can be
compared for any number of levels and points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from math import prod

import torch
from torch import Tensor

from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import Case, LazyCases, mixed_seed
from detr_conformance.harness.covering import Pair, Row, covering_rows
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.module import ModuleStructure, module_case
from detr_conformance.topics.deformable_attention.cases.sizes import MAPS, few_cells

# The members of each class, the cheapest class first; channels are a head's, so that embed_dim goes up to 1,105.
CLASSES: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "batch": ((1,), (2, 3), (4, 5, 7), (16, 17)),
    "queries": ((1, 2), (31, 33, 34), (127, 129, 200)),
    "heads": ((1,), (2, 3), (7, 8, 9), (16, 17)),
    "channels": ((1, 2, 3), (7, 8, 9), (31, 32, 33), (63, 64, 65)),
    "levels": ((1,), (2, 3), (4,), (5, 6), (12, 13)),
    "points": ((1,), (3, 4), (5, 6, 7), (8, 9), (16, 17)),
}
SWITCHES: Mapping[str, tuple[bool | int, ...]] = {
    "coordinates": (2, 4),
    "masked": (False, True),
    "identity": (True, False),  # given, or left to its default
    "positions": (True, False),
    "encoder": (False, True),  # the queries are the cells, and the value is left to its default
}
MANY = {"many even": (32, 34), "many odd": (33, 35), "many wide": (2, 519)}  # the first level; the core has larger ones
CAP = 1 << 17  # numbers of a row: sampled ones, tokens; eight parameters weigh as much
FULL_CAP = 1 << 20  # of the profile full-size; here no pair is left out
BOX = 0.4  # the side of a reference box, as a share of the map


@dataclass(frozen=True)
class ModuleRow:
    """A structure and which optional tensors are given."""

    structure: ModuleStructure
    identity: bool = True
    positions: bool = True
    encoder: bool = False


@cache
def rows(cap: float = CAP) -> tuple[list[Row], list[Pair]]:
    """The covering array over the numbers of classes, and the pairs that no row can hold."""
    factors = {name: tuple(range(len(members))) for name, members in CLASSES.items()}
    return covering_rows({**factors, "maps": MAPS, **SWITCHES}, _cost, cap)


def covering_modules(seed: int = 0, cap: float = CAP) -> list[ModuleRow]:
    """A structure for each row of the array."""
    return [_made(row, number, seed) for number, row in enumerate(rows(cap)[0])]


def steady_case(subject: Subject, made: ModuleRow, *seed: object, note: str) -> Case:
    """A random call whose samples lie between the centres of cells, with what the row leaves out left out."""
    case = _between_cells(subject, module_case(subject, made.structure, *seed, note=note))
    changes = {} if made.identity else {"identity": None}
    changes |= {} if made.positions else {"query_pos": None}
    return case.having(**changes, **({"value": None} if made.encoder else {}))


def steady_cases(subject: Subject, made: list[ModuleRow], note: str) -> LazyCases:
    return LazyCases([partial(steady_case, subject, each, note=note) for each in made])


def on_small_maps(made: list[ModuleRow]) -> list[ModuleRow]:
    """Those on which places between cells can be told in half dtypes."""
    return [each for each in made if max(max(level) for level in each.structure.levels) < 40]


def _made(row: Row, number: int, seed: int) -> ModuleRow:
    sizes = {
        name: members[row[name]][mixed_seed("module size", name, number, seed) % len(members[row[name]])]
        for name, members in CLASSES.items()
    }
    switches = {name: row[name] for name in SWITCHES}
    s = ModuleStructure(
        _maps(row["maps"], sizes.pop("levels")),
        **sizes,
        coordinates=int(switches["coordinates"]),
        masked=bool(switches["masked"]),
    )
    s = replace(s, queries=s.cells) if switches["encoder"] else s
    return ModuleRow(s, *(bool(switches[name]) for name in ("identity", "positions", "encoder")))


def _maps(kind: str, count: int) -> tuple[tuple[int, int], ...]:
    few = few_cells(count, odd=kind.endswith("odd"))
    return (MANY[kind], *few[1:]) if kind in MANY else few


def _cost(row: Row) -> float:
    largest = {name: max(members[row[name]]) for name, members in CLASSES.items()}
    cells = 100 if row["maps"].startswith("few") else 1_300
    queries = cells if row["encoder"] else largest["queries"]
    samples = prod(largest[name] for name in ("heads", "levels", "points"))
    embed = largest["heads"] * largest["channels"]
    read = largest["batch"] * queries * samples * largest["channels"]
    tokens = largest["batch"] * (cells + queries) * embed
    return max(read, tokens, embed * (2 * embed + 3 * samples) / 8)


def _between_cells(subject: Subject, case: Case) -> Case:
    """The same call with other reference points and offsets.

    Of points: the point lies in the middle between four centres, the offset is whole but for a tenth. Of boxes the
    offsets of a level are so many times larger that they reach as far, as all its boxes have nearly one size.
    """
    fill = Filler(subject.dtype, subject.settings.seed, "between cells", case.note, sorted(case.options.items()))
    shapes = case["spatial_shapes"]
    batch, queries, levels, coordinates = case["reference_points"].shape
    heads, points = int(case.options["num_heads"]), int(case.options["num_points"])
    sizes = shapes.flip(-1).double()  # (level, 2): W, H
    cells = torch.floor(fill.uniform(0, 1, batch, queries, levels, 2) * sizes)
    reference = (cells + 1) / sizes
    offsets = fill.integers(-3, 3, heads, levels, points, 2) + fill.uniform(-0.1, 0.1, heads, levels, points, 2)
    reach = torch.ones(levels, 2, dtype=torch.float64)
    if coordinates == 4:
        boxes = BOX * fill.uniform(0.96, 1.04, batch, queries, levels, 2)
        reference = torch.cat((reference, boxes), -1)
        reach = BOX * sizes / (2 * points)
    weight = (
        0.02 / reach[None, :, None, :, None] * fill.normal(heads, levels, points, 2, int(case.options["embed_dim"]))
    )
    weight = weight / parameters_of(case)["sampling_offsets.weight"].shape[1] ** 0.5
    return with_parameters(
        case.having(reference_points=reference.to(fill.dtype)),
        sampling_offsets__weight=weight.flatten(0, 3),
        sampling_offsets__bias=(offsets / reach[:, None]).flatten(),
    )


def smallest_margin(case: Case) -> float:
    """How far the nearest sample is from a kink, in cells."""
    parameters = {name: tensor.double() for name, tensor in parameters_of(case).items()}
    query = case["query"].double() + (case["query_pos"].double() if "query_pos" in case.tensors else 0)
    reference, sizes = case["reference_points"].double()[:, :, None, :, None], case["spatial_shapes"].flip(-1).double()
    shape = [int(case.options[name]) for name in ("num_heads", "num_levels", "num_points")]
    offset = query @ parameters["sampling_offsets.weight"].T + parameters["sampling_offsets.bias"]
    offset = offset.view(*query.shape[:2], *shape, 2)
    sizes = sizes[:, None]
    if reference.shape[-1] == 2:
        pixels: Tensor = reference * sizes + offset - 0.5
    else:
        pixels = (reference[..., :2] + offset / shape[2] * reference[..., 2:] * 0.5) * sizes - 0.5
    return float((pixels - pixels.round()).abs().min())


# As an encoder calls it, in a batch: as many queries as cells, eight heads of 32 channels, four levels.
ENCODER = ModuleRow(
    ModuleStructure(((39, 50), (20, 25), (10, 13), (5, 7)), 2, 2_615, heads=8, channels=32, points=4, masked=True),
    identity=False,
    encoder=True,
)
