"""Where the cells of the maps lie in the table of the CPU kernel."""

from __future__ import annotations

from functools import lru_cache

import torch

Shapes = tuple[tuple[int, int], ...]


class Layout:
    """A table of cells, one row each: image by image, head by head, level by level, and around each map zeros.

    Above each map is one row of zeros, to its right are two columns, below it two rows; its left neighbours are the end
    of the row above. So each corner of a sample in range is a row of the table, and the sample at (W, H), which stands
    for those out of range, has four corners of zeros.

    Attributes:
        rows: of the table.
        filled, starts: the row of the value that is in each row of the table, or none, as bags of an embedding bag.
        places: (image * cell * head): the row of the table that holds each row of the value.
        sizes: (2, sample): W and H for each sample of a bag, level by level and point by point.
        stride: (sample): from a cell to the one below it.
        corners: (image, 1, head, 4, sample): the rows of the four corners of a sample in cell (0, 0).
        bags: (bag + 1): where the entries of each bag begin, four a sample.
        exact: a floating dtype in which the rows of a head are whole numbers without rounding.
    """

    def __init__(self, shapes: Shapes, images: int, queries: int, heads: int, points: int, dtype: torch.dtype) -> None:
        ends = [0]
        for height, width in shapes:
            ends.append(ends[-1] + (height + 3) * (width + 2))
        cells, starts = ends[-1], ends[:-1]  # of one image and head
        bags, entries = images * queries * heads, 4 * len(shapes) * points
        # The first map's left neighbour comes first. torch.sparse has no more entries in a row than there are columns.
        self.rows = max(1 + images * heads * cells, entries)
        self.exact = dtype if cells < 1 << 24 else torch.float64
        integer = torch.int32 if max(self.rows, bags * entries) < 1 << 31 else torch.int64

        with torch.device("cpu"):
            stride = torch.tensor([width + 2 for _, width in shapes])
            first = 1 + cells * torch.arange(images * heads).view(images, 1, heads)
            steps = torch.stack((torch.zeros_like(stride), torch.ones_like(stride), stride, stride + 1))
            self.sizes = torch.tensor(shapes, dtype=dtype).flip(-1).T.repeat_interleave(points, dim=-1)
            self.stride = stride.to(self.exact).repeat_interleave(points)
            corners = first[..., None, None] + torch.tensor(starts) + stride + steps
            self.corners = corners.to(integer).repeat_interleave(points, dim=-1)
            self.bags = torch.arange(0, bags * entries + 1, entries, dtype=integer)

            maps = [
                start + (width + 2) * torch.arange(1, height + 1)[:, None] + torch.arange(width)
                for start, (height, width) in zip(starts, shapes, strict=True)
            ]
            places = first + torch.cat([rows.flatten() for rows in maps])[:, None]
            self.places = places.flatten()
            self.filled = torch.arange(places.numel(), dtype=integer).view(places.shape).movedim(1, 2).flatten()
            taken = torch.zeros(self.rows + 1, dtype=integer)
            taken[self.places + 1] = 1
            self.starts = taken.cumsum(0, dtype=integer)


# The calls of a training step differ in images, queries and heads at most, and the next step's are often the same.
layout_of = lru_cache(maxsize=64)(Layout)
