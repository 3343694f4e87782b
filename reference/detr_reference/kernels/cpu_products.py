"""Products of a sparse matrix, whose rows are bags and whose columns are the rows of a table.

It is given by its entries (their columns, bag by bag), the first entry of each bag with the number of all at the end,
and what each entry counts.
"""

from __future__ import annotations

import warnings

import scipy.sparse
import torch
from jaxtyping import Float, Int
from torch import Tensor

with warnings.catch_warnings():  # torch says once that its sparse matrices are in beta state
    warnings.simplefilter("ignore", UserWarning)
    torch.eye(1, device="cpu").to_sparse_csr()


def bag_sums(
    table: Float[Tensor, "row channel"],
    entries: Int[Tensor, " entry"],
    bags: Int[Tensor, " bound"],
    shares: Float[Tensor, " entry"] | None = None,
) -> Float[Tensor, "bag channel"]:
    """matrix table: the sum over the entries of a bag of share * row. Without shares each is 1, without entries the
    sum is zero."""
    sums: Tensor = torch.ops.aten._embedding_bag_forward_only(table, entries, bags, False, 0, False, shares, True)[0]
    return sums


def row_sums(
    grad: Float[Tensor, "bag channel"],
    entries: Int[Tensor, " entry"],
    bags: Int[Tensor, " bound"],
    shares: Float[Tensor, " entry"],
    rows: int,
) -> Float[Tensor, "row channel"]:
    """matrixᵀ grad: the sum over the entries in a row of share * gradient of the bag, in the order of the bags."""
    matrix = scipy.sparse.csc_array((shares.numpy(), entries.numpy(), bags.numpy()), shape=(rows, len(grad)))
    return torch.from_numpy(matrix @ grad.numpy())


def entry_products(
    grad: Float[Tensor, "bag channel"],
    table: Float[Tensor, "row channel"],
    entries: Int[Tensor, " entry"],
    bags: Int[Tensor, " bound"],
) -> Float[Tensor, " entry"]:
    """grad tableᵀ, at the entries alone: the scalar product of the bag's gradient and the row.

    Entries of a bag may be in any order and the same; torch asks otherwise of a matrix, but takes each as it comes.
    There may be no more of them than rows in the table.
    """
    size, nothing = (len(grad), len(table)), grad.new_zeros(len(entries))
    matrix = torch.sparse_csr_tensor(bags, entries, nothing, size=size, check_invariants=False)
    return torch.sparse.sampled_addmm(matrix, grad, table.T, out=matrix).values()
