"""Mutants of the module: positions, identity, dropout (MSDM-12 to MSDM-15)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.module import HandWrittenModule, Inputs, Logits, Tokens


@mutant("position-in-value", rejects="MSDM-12", origin="value = query after query += query_pos")
class PositionInValue(HandWrittenModule):
    """Adds the position to a value that came with the call, where the lengths allow it."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        if query_pos is None or inputs.value.shape != query_pos.shape:
            return inputs
        return inputs._replace(value=inputs.value + query_pos)


@mutant("position-in-identity", rejects="MSDM-12", origin="residual taken from the positioned query")
class PositionInIdentity(HandWrittenModule):
    """Adds the position to the identity as well."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        return inputs if query_pos is None else inputs._replace(identity=inputs.identity + query_pos)


@mutant("position-ignored", rejects="MSDM-12", origin="query_pos accepted for the interface only")
class PositionIgnored(HandWrittenModule):
    """Does not add the position to anything: nobody notices while the weights are zero."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        return super().inputs(query, value, identity, None)


@mutant("position-in-offsets-only", rejects="MSDM-12", origin="position taken for a matter of where, not how much")
class PositionInOffsetsOnly(HandWrittenModule):
    """Computes the weights from the query without its position."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        self.content = query
        return super().inputs(query, value, identity, query_pos)

    def logits(self, looking: Tokens) -> Logits:
        return super().logits(self.content)


@mutant("value-defaults-to-positioned-query", rejects="MSDM-13", origin="default taken after the addition")
class ValueDefaultsToPositionedQuery(HandWrittenModule):
    """Defaults the value to the query with its position."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        return inputs._replace(value=inputs.looking) if value is None else inputs


@mutant("identity-defaults-to-positioned-query", rejects="MSDM-13", origin="default taken after the addition")
class IdentityDefaultsToPositionedQuery(HandWrittenModule):
    """Defaults the identity to the query with its position."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        return inputs._replace(identity=inputs.looking) if identity is None else inputs


@mutant("identity-defaults-to-value", rejects="MSDM-13", origin="identity = value of self-attention")
class IdentityDefaultsToValue(HandWrittenModule):
    """Defaults the identity to the value where it has as many tokens."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        if identity is not None or inputs.value.shape != query.shape:
            return inputs
        return inputs._replace(identity=inputs.value)


@mutant("no-identity", rejects="MSDM-14", origin="the addition left to the layer, as outside detrex")
class NoIdentity(HandWrittenModule):
    """Returns the projected output alone."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return super().result(read, torch.zeros_like(identity))


@mutant("identity-before-projection", rejects="MSDM-14", origin="addition moved before output_proj")
class IdentityBeforeProjection(HandWrittenModule):
    """Adds the identity to what was read, and projects the sum."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return super().result(read + identity, torch.zeros_like(identity))


@mutant("query-for-identity", rejects="MSDM-14", origin="identity argument accepted and not used")
class QueryForIdentity(HandWrittenModule):
    """Adds the query, whatever identity is given."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        return super().inputs(query, value, None, query_pos)


@mutant("dropout-of-identity", rejects="MSDM-15", origin="dropout(identity + x)")
class DropoutOfIdentity(HandWrittenModule):
    """Drops channels of the sum."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return F.dropout(identity + self.output_proj(read), self.config.dropout, self.training)


@mutant("dropout-in-evaluation", rejects="MSDM-15", origin="F.dropout(x, p), which is training by default")
class DropoutInEvaluation(HandWrittenModule):
    """Drops in evaluation too."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return identity + F.dropout(self.output_proj(read), self.config.dropout)


@mutant("no-dropout", rejects="MSDM-15", origin="dropout left to the layer")
class NoDropout(HandWrittenModule):
    """Never drops anything."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return identity + self.output_proj(read)


@mutant("dropout-of-weights", rejects="MSDM-15", origin="attention dropout of nn.MultiheadAttention")
class DropoutOfWeights(HandWrittenModule):
    """Drops attention weights instead of output channels."""

    def weights(self, logits: Logits) -> Logits:
        return F.dropout(super().weights(logits), self.config.dropout, self.training)

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return identity + self.output_proj(read)
