"""Mutants of multi-head attention: what positions and identity are added to, and their defaults (MHA-18 to MHA-21)."""

from __future__ import annotations

import torch

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.multihead_attention import (
    Call,
    HandWrittenAttention,
    Heads,
    Inputs,
    Tokens,
)


@mutant("attention-position-on-value", rejects="MHA-18", origin="k = v = memory + pos: MUTANTS of ViT-style attention")
class PositionOnValue(HandWrittenAttention):
    """Adds the key's position to the value too."""

    def inputs(self, call: Call) -> Inputs:
        inputs, position = super().inputs(call), self.key_position(call)
        return inputs if position is None else inputs._replace(averaged=inputs.averaged + position)


@mutant("attention-position-on-identity", rejects="MHA-18", origin="src = src + pos before the layer, as in ViT")
class PositionOnIdentity(HandWrittenAttention):
    """Adds the query's position to the identity too."""

    def inputs(self, call: Call) -> Inputs:
        inputs = super().inputs(call)
        return inputs if call.query_pos is None else inputs._replace(identity=inputs.identity + call.query_pos)


@mutant("query-position-lost", rejects="MHA-18", origin="only keys know where they are")
class QueryPositionLost(HandWrittenAttention):
    """Does not add the position to the query."""

    def inputs(self, call: Call) -> Inputs:
        return super().inputs(call)._replace(asking=call.query)


@mutant("position-after-projection", rejects="MHA-18", origin="Conditional DETR's ca_kcontent_proj(memory) + pos")
class PositionAfterProjection(HandWrittenAttention):
    """Adds the key's position behind the projection."""

    def inputs(self, call: Call) -> Inputs:
        self.position = self.key_position(call)
        return super().inputs(call)._replace(compared=self.key(call))

    def projections(self, inputs: Inputs) -> list[Heads]:
        q, k, v = super().projections(inputs)
        return [q, k if self.position is None else k + self.split(self.position), v]


@mutant("attention-identity-after-positions", rejects="MHA-19", origin="MUTANTS: identity taken after positions")
class IdentityAfterPositions(HandWrittenAttention):
    """Lets the identity default to query + query_pos."""

    def identity(self, call: Call) -> Tokens:
        added = call.query if call.query_pos is None else call.query + call.query_pos
        return added if call.identity is None else call.identity


@mutant("value-defaults-after-position", rejects="MHA-19", origin="key = key + key_pos, then value = key")
class ValueDefaultsAfterPosition(HandWrittenAttention):
    """Lets the value default to key + key_pos."""

    def value(self, call: Call) -> Tokens:
        position = self.key_position(call)
        added = self.key(call) if position is None else self.key(call) + position
        return added if call.value is None else call.value


@mutant("value-defaults-to-query", rejects="MHA-19", origin="value = query if the shapes agree, which shapes often do")
class ValueDefaultsToQuery(HandWrittenAttention):
    """Lets the value default to the query, where it has the shape of the key."""

    def value(self, call: Call) -> Tokens:
        fits = call.value is None and self.key(call).shape == call.query.shape
        return call.query if fits else super().value(call)


@mutant("key-defaults-to-value", rejects="MHA-19", origin="memory given once, as value")
class KeyDefaultsToValue(HandWrittenAttention):
    """Lets the key default to the value, where one is given."""

    def key(self, call: Call) -> Tokens:
        return call.value if call.key is None and call.value is not None else super().key(call)


@mutant("identity-only-if-given", rejects="MHA-19", origin="the addition left to the caller unless asked for")
class IdentityOnlyIfGiven(HandWrittenAttention):
    """Adds nothing where no identity is given."""

    def identity(self, call: Call) -> Tokens:
        return torch.zeros_like(call.query) if call.identity is None else call.identity


@mutant("key-position-never-defaults", rejects="MHA-20", origin="key_pos used as given")
class KeyPositionNeverDefaults(HandWrittenAttention):
    """Adds no position to a key for which none is given."""

    def key_position(self, call: Call) -> Tokens | None:
        return call.key_pos


@mutant(
    "key-position-of-self-attention-alone", rejects="MHA-20", origin="the default as one would wish it: if key is query"
)
class KeyPositionOfSelfAttentionAlone(HandWrittenAttention):
    """Lets key_pos default to query_pos only where the key defaults to the query."""

    def key_position(self, call: Call) -> Tokens | None:
        return call.query_pos if call.key_pos is None and call.key is None else call.key_pos


@mutant("query-position-wins", rejects="MHA-20", origin="if query_pos.shape == key.shape: key_pos = query_pos")
class QueryPositionWins(HandWrittenAttention):
    """Replaces a given key_pos by query_pos of the same shape."""

    def key_position(self, call: Call) -> Tokens | None:
        same = call.query_pos is not None and call.query_pos.shape == self.key(call).shape
        return call.query_pos if same else call.key_pos


@mutant("attention-without-identity", rejects="MHA-21", origin="torch's and transformers' modules")
class WithoutIdentity(HandWrittenAttention):
    """Returns the attention alone."""

    def result(self, joined: Tokens, identity: Tokens) -> Tokens:
        return super().result(joined, torch.zeros_like(identity))


@mutant("query-added-for-identity", rejects="MHA-21", origin="query + attention, whatever identity is given")
class QueryForIdentity(HandWrittenAttention):
    """Adds the query where another identity is given."""

    def identity(self, call: Call) -> Tokens:
        return call.query
