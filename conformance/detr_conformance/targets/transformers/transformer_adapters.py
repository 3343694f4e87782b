"""transformers' layers, networks and heads behind the spec's signatures; `transformer_families` says what is added."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_conformance.target import TargetError
from detr_conformance.targets.transformers.transformer_families import FAMILIES
from detr_reference.feed_forward.config import FeedForwardConfig, MLPConfig
from detr_reference.transformer.config import TransformerLayerConfig

State = Mapping[str, Tensor] | None
Parts = dict[str, Tensor | tuple[Tensor, ...]]  # the reference's name -> the module's own parameter or parameters
Tokens = Float[Tensor, "batch token embed"]
Padding = Bool[Tensor, "batch key"]

NEED_POSITIONS = ("dab_detr", "table_transformer")


# -- factories ------------------------------------------------------------------------------------------------


def encoder_layer(name: str, config: TransformerLayerConfig, state_dict: State, pre_norm: bool) -> nn.Module:
    """The family's encoder layer with these parameters; None means as the class initialises it."""
    theirs = configuration(
        name,
        **_present(
            name,
            d_model=config.embed_dim,
            hidden_size=config.embed_dim,
            encoder_hidden_dim=config.embed_dim,
            encoder_attention_heads=config.num_heads,
            num_attention_heads=config.num_heads,
            encoder_ffn_dim=config.feedforward_dim,
            encoder_dim_feedforward=config.feedforward_dim,
            activation_function=config.activation,
            encoder_activation_function=config.activation,
            encoder_feedforward_activation=config.activation,
            normalize_before=pre_norm,
        ),
    )
    layer = getattr(source(name), f"{FAMILIES[name].prefix}EncoderLayer")(theirs)
    _set_rates(layer, config)
    return _loaded(AdaptedEncoderLayer(name, layer, config, pre_norm), state_dict)


def decoder_layer(name: str, config: TransformerLayerConfig, state_dict: State) -> nn.Module:
    """The family's decoder layer with these parameters; None means as the class initialises it."""
    theirs = configuration(
        name,
        d_model=config.embed_dim,
        decoder_attention_heads=config.num_heads,
        decoder_ffn_dim=config.feedforward_dim,
        activation_function=config.activation,
    )
    layer = getattr(source(name), f"{FAMILIES[name].prefix}DecoderLayer")(theirs)
    _set_rates(layer, config)
    return _loaded(AdaptedDecoderLayer(name, layer, config), state_dict)


def feed_forward(name: str, config: FeedForwardConfig, state_dict: State) -> nn.Module:
    """The family's network with these parameters; None means as the class initialises it."""
    if config.num_fcs != 2:
        raise ValueError(f"{name} has networks of two layers only, not of {config.num_fcs}")
    kind = getattr(source(name), f"{FAMILIES[name].prefix}{FAMILIES[name].network}")
    theirs = configuration(name, **_present(name, activation_function=config.activation))
    sizes = (config.embed_dim, config.feedforward_dim)
    takes_activation = "activation_function" in inspect.signature(kind).parameters
    network = kind(theirs, *sizes, config.activation) if takes_activation else kind(theirs, *sizes)
    network.dropout = network.activation_dropout = config.ffn_drop
    return _loaded(AdaptedNetwork(network, config), state_dict)


def mlp(name: str, config: MLPConfig, state_dict: State) -> nn.Module:
    """The family's prediction head with these parameters; None means as the class initialises it."""
    kind = getattr(source(name), f"{FAMILIES[name].prefix}{FAMILIES[name].head}")
    head = kind(config.input_dim, config.hidden_dim, config.output_dim, config.num_layers)
    if state_dict is not None:
        head.to(next(iter(state_dict.values())).dtype)
        head.load_state_dict(state_dict)
    return AdaptedHead(head)


@cache
def source(name: str) -> ModuleType:
    """The family's modeling module."""
    try:
        return importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    except ModuleNotFoundError as error:
        raise TargetError(f"this version of transformers has no {name}: {error}") from error


def configuration(name: str, **fields: Any) -> Any:
    """The family's own configuration, with the attention that its models choose."""
    config = deepcopy(_plain_configuration(name))
    for field, value in fields.items():
        setattr(config, field, value)
    config._attn_implementation = "sdpa"
    return config


@cache
def _plain_configuration(name: str) -> Any:
    prefix = FAMILIES[name].prefix
    return getattr(source(name), f"{prefix}PreTrainedModel").config_class()


def _present(name: str, **fields: Any) -> dict[str, Any]:
    """Those of the fields that the family's configuration has."""
    plain = _plain_configuration(name)
    return {field: value for field, value in fields.items() if hasattr(plain, field)}


def _set_rates(layer: nn.Module, config: TransformerLayerConfig) -> None:
    """Dropouts of the parts, as numbers or as modules, and epsilons of the norms."""
    for part in layer.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = config.layer_norm_eps
    for attention in (getattr(layer, "self_attn", None), getattr(layer, "encoder_attn", None)):
        if attention is not None:
            _set(
                attention,
                "attention_dropout" if hasattr(attention, "attention_dropout") else "dropout",
                config.attn_drop,
            )
    _set(layer, "dropout", config.proj_drop)
    _set(layer, "activation_dropout", config.ffn_drop)
    _set(layer, "encoder_feedforward_dropout", config.ffn_drop)
    network = getattr(layer, "mlp", None)
    if network is not None:
        _set(network, "dropout", config.ffn_drop)
        _set(network, "activation_dropout", config.ffn_drop)


def _set(part: nn.Module, field: str, rate: float) -> None:
    if isinstance(getattr(part, field, None), nn.Dropout):
        getattr(part, field).p = rate
    elif hasattr(part, field):
        setattr(part, field, rate)


# -- modules --------------------------------------------------------------------------------------------------


class AdaptedEncoderLayer(nn.Module):
    """A family's encoder layer with the signature of the spec's."""

    def __init__(self, name: str, layer: Any, config: TransformerLayerConfig, pre_norm: bool) -> None:
        super().__init__()
        _refuse_other_orders(config, (("self_attn", "norm"), ("ffn", "norm")), pre_norm)
        self.needs_positions = name in NEED_POSITIONS
        self.layer: Any = layer
        accepted = inspect.signature(layer.forward).parameters
        names = ("spatial_position_embeddings", "object_queries", "position_embeddings")
        self.position = next(each for each in names if each in accepted)

    def forward(
        self,
        query: Tokens,
        query_pos: Tokens | None = None,
        attn_mask: Tensor | None = None,
        query_key_padding_mask: Padding | None = None,
    ) -> Tokens:
        if query_pos is None and self.needs_positions:
            query_pos = torch.zeros_like(query)
        mask = additive(attn_mask, query_key_padding_mask, query, query.shape[1])
        output = self.layer(query, attention_mask=mask, **{self.position: query_pos})
        return output[0] if isinstance(output, tuple) else output

    def spec_parameters(self) -> Parts:
        norms = (self.layer.self_attn_layer_norm, self.layer.final_layer_norm)
        return layer_parts((self.layer.self_attn,), norms, self.layer)


class AdaptedDecoderLayer(nn.Module):
    """A family's decoder layer with the signature of the spec's."""

    def __init__(self, name: str, layer: Any, config: TransformerLayerConfig) -> None:
        super().__init__()
        pairs = (("self_attn", "norm"), ("cross_attn", "norm"), ("ffn", "norm"))
        _refuse_other_orders(config, pairs, FAMILIES[name].pre_norm)
        self.needs_positions = name in NEED_POSITIONS
        self.layer: Any = layer
        accepted = inspect.signature(layer.forward).parameters
        if "object_queries_position_embeddings" in accepted:
            self.position_of_query, self.position_of_key = (
                "object_queries_position_embeddings",
                "spatial_position_embeddings",
            )
        else:
            self.position_of_query, self.position_of_key = "query_position_embeddings", "object_queries"

    def forward(
        self,
        query: Tokens,
        key: Tokens,
        query_pos: Tokens | None = None,
        key_pos: Tokens | None = None,
        attn_mask: Tensor | None = None,
        cross_attn_mask: Tensor | None = None,
        query_key_padding_mask: Padding | None = None,
        key_padding_mask: Padding | None = None,
    ) -> Tokens:
        if self.needs_positions:
            query_pos = torch.zeros_like(query) if query_pos is None else query_pos
            key_pos = torch.zeros_like(key) if key_pos is None else key_pos
        positions = {self.position_of_query: query_pos, self.position_of_key: key_pos}
        output = self.layer(
            query,
            attention_mask=additive(attn_mask, query_key_padding_mask, query, query.shape[1]),
            encoder_hidden_states=key,
            encoder_attention_mask=additive(cross_attn_mask, key_padding_mask, query, key.shape[1]),
            **positions,
        )
        return output[0] if isinstance(output, tuple) else output

    def spec_parameters(self) -> Parts:
        layer = self.layer
        norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
        return layer_parts((layer.self_attn, layer.encoder_attn), norms, layer)


class AdaptedNetwork(nn.Module):
    """A family's feed-forward network with the identity added."""

    def __init__(self, network: nn.Module, config: FeedForwardConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(
        self, x: Float[Tensor, "*leading embed"], identity: Float[Tensor, "*leading embed"] | None = None
    ) -> Float[Tensor, "*leading embed"]:
        output = self.network(x)
        if not self.config.add_identity:
            return output
        return (x if identity is None else identity) + output

    def spec_parameters(self) -> Parts:
        return network_parts(self.network, "")


class AdaptedHead(nn.Module):
    """A family's prediction head, whose argument has other names too."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Float[Tensor, "*leading input"]) -> Float[Tensor, "*leading output"]:
        return self.head(x)


def additive(attn_mask: Tensor | None, padding: Padding | None, query: Tokens, keys: int) -> Tensor | None:
    """Both masks in one, (batch, 1 or head, query, key), as in their models: the lowest number forbids."""
    if attn_mask is None and padding is None:
        return None
    batch, queries = query.shape[:2]
    mask = query.new_zeros(batch, 1, queries, keys)
    lowest = torch.finfo(query.dtype).min
    if attn_mask is not None:
        by_head = attn_mask.unflatten(0, (batch, -1)) if attn_mask.ndim == 3 else attn_mask
        mask = mask.masked_fill(by_head, lowest) if by_head.dtype == torch.bool else mask + by_head
    return mask if padding is None else mask.masked_fill(padding[:, None, None], lowest)


def _refuse_other_orders(config: TransformerLayerConfig, pairs: tuple[tuple[str, str], ...], pre_norm: bool) -> None:
    order = tuple(name for pair in pairs for name in (reversed(pair) if pre_norm else pair))
    if config.operation_order != order:
        raise ValueError(f"this layer has the order {order}, not {config.operation_order}")


# -- parameters -----------------------------------------------------------------------------------------------


def layer_parts(attentions: tuple[Any, ...], norms: tuple[Any, ...], layer: Any) -> Parts:
    """The parameters of a layer under the reference's names."""
    parts = network_parts(getattr(layer, "mlp", layer), "ffns.0.")
    for number, attention in enumerate(attentions):
        parts |= _attention_parts(attention, f"attentions.{number}.")
    for number, norm in enumerate(norms):
        parts |= _both(norm, f"norms.{number}")
    return parts


def network_parts(network: Any, prefix: str) -> Parts:
    first, last = network.layers if hasattr(network, "layers") else (network.fc1, network.fc2)
    return _both(first, f"{prefix}layers.0.0") | _both(last, f"{prefix}layers.1")


def _attention_parts(attention: Any, prefix: str) -> Parts:
    projections = [
        getattr(attention, f"{short}_proj", None) or getattr(attention, name)
        for short, name in (("q", "query"), ("k", "key"), ("v", "value"))
    ]
    parts: Parts = {
        f"{prefix}in_proj_{part}": tuple(getattr(linear, part) for linear in projections) for part in ("weight", "bias")
    }
    return parts | _both(getattr(attention, "o_proj", None) or attention.out_proj, f"{prefix}out_proj")


def _both(part: Any, name: str) -> Parts:
    return {f"{name}.weight": part.weight, f"{name}.bias": part.bias}


def _loaded(module: nn.Module, state_dict: State) -> nn.Module:
    """The module with copies of these parameters, in their dtype."""
    if state_dict is None:
        return module
    module.to(next(iter(state_dict.values())).dtype)
    with torch.no_grad():
        for name, parts in module.spec_parameters().items():  # type: ignore[operator]
            own = parts if isinstance(parts, tuple) else (parts,)
            for part, given in zip(own, state_dict[name].chunk(len(own)), strict=True):
                part.copy_(given)
    return module
