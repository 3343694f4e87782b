"""Mutants of the whole DETR (chapter 17)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DETRInSteps
from detr_reference.features.frozen_batch_norm import FrozenBatchNorm
from detr_reference.features.image_tokens import ImageTokens
from detr_reference.positions.sine_position_embedding import sine_position_embedding


@mutant("detr-last-layer-repeated", rejects="DETR-1", operation="detr", origin="aux_loss=False, and a stack of one")
class LastLayerRepeated(DETRInSteps):
    """Returns the last layer's predictions for every layer."""

    def normed(self, states: list[Tensor]) -> list[Tensor]:
        return super().normed(states[-1:]) * len(states)


@mutant("detr-layers-reversed", rejects="DETR-1", operation="detr", origin="outputs appended in front")
class LayersReversed(DETRInSteps):
    """Has the final layer first."""

    def normed(self, states: list[Tensor]) -> list[Tensor]:
        return super().normed(states)[::-1]


@mutant("detr-one-decoder-layer", rejects="DETR-1", operation="detr", origin="[copy] * n in place of deep copies")
class OneDecoderLayer(DETRInSteps):
    """Runs the first decoder layer again and again."""

    def decoded(self, memory: Tensor, cells: ImageTokens) -> list[Tensor]:
        layers = self.transformer.decoder.layers
        query_pos = self.query_embed.weight.repeat(len(memory), 1, 1)
        query, states = self.content(query_pos), []
        for number in range(len(layers)):
            query = layers[0](query, **self.seen(number, memory, cells, query_pos))
            states.append(query)
        return states


@mutant("detr-stride-on-first-convolution", rejects="DETR-2", operation="detr", origin="Caffe's ResNet, detectron2")
class StrideOnFirst(DETRInSteps):
    """Has the stride of a stage on its first 1 x 1 convolution, as the first ResNets had it."""

    def changed(self) -> None:
        blocks: list[Any] = [module for module in self.backbone.modules() if hasattr(module, "conv2")]
        for block in blocks:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


@mutant("detr-shortcut-behind-relu", rejects="DETR-2", operation="detr", origin="x + relu(bn3(...))")
class ShortcutBehindRelu(DETRInSteps):
    """Adds the shortcut behind the ReLU of a block."""

    def changed(self) -> None:
        for module in self.backbone.modules():
            if hasattr(module, "bn3"):
                module.register_forward_hook(_relu_first)


def _relu_first(block: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    inner = block.bn3(block.conv3(block.bn2(block.conv2(block.bn1(block.conv1(given[0])).relu())).relu()))
    return block.downsample(given[0]) + inner.relu()


@mutant("detr-batch-statistics", rejects="DETR-3", operation="detr", origin="nn.BatchNorm2d, trained along")
class BatchStatistics(DETRInSteps):
    """Takes the statistics of the batch in training mode."""

    def changed(self) -> None:
        for module in self.modules():
            if isinstance(module, FrozenBatchNorm):
                module.register_forward_hook(_by_batch)


def _by_batch(norm: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if not norm.training:
        return output
    return F.batch_norm(given[0], None, None, norm.weight, norm.bias, training=True)


@mutant("detr-norm-epsilon", rejects="DETR-3", operation="detr", origin="eps=1e-3 of other frameworks")
class NormEpsilon(DETRInSteps):
    """Adds 1e-3 to the variances."""

    def changed(self) -> None:
        for module in self.modules():
            if isinstance(module, FrozenBatchNorm):
                module.register_forward_hook(_with_larger_epsilon)


def _with_larger_epsilon(norm: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return F.batch_norm(given[0], norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)


@mutant("detr-mask-inverted", rejects="DETR-4", operation="detr", origin="pixel_mask of transformers")
class MaskInverted(DETRInSteps):
    """Takes True for valid."""

    def padding(self, mask: Tensor) -> Tensor:
        return ~mask


@mutant("detr-mask-by-any-cell", rejects="DETR-4", operation="detr", origin="max pooling of the mask")
class MaskByAny(DETRInSteps):
    """Calls a cell padding if any of its pixels is."""

    def padding(self, mask: Tensor) -> Tensor:
        height, width = (-(-side // 32) for side in mask.shape[-2:])
        pooled = F.adaptive_max_pool2d(mask[:, None].float(), (height, width))[:, 0] > 0
        return F.interpolate(pooled[:, None].float(), mask.shape[-2:])[:, 0] > 0


@mutant("detr-mask-not-in-encoder", rejects="DETR-4", operation="detr", origin="detrex's evaluation mask of zeros")
class MaskNotInEncoder(DETRInSteps):
    """Lets the cells of an image attend to padding."""

    def encoded(self, cells: ImageTokens) -> Tensor:
        return super().encoded(cells._replace(padding=torch.zeros_like(cells.padding)))


@mutant("detr-mask-not-in-decoder", rejects="DETR-4", operation="detr", origin="detrex, DAB-, DN- and Conditional DETR")
class MaskNotInDecoder(DETRInSteps):
    """Hands no padding mask to the cross-attentions."""

    def seen(self, number: int, memory: Tensor, cells: ImageTokens, query_pos: Tensor) -> dict[str, Any]:
        return super().seen(number, memory, cells, query_pos) | {"key_padding_mask": None}


@mutant("detr-positions-ignore-mask", rejects="DETR-4", operation="detr", origin="positions of the padded map")
class PositionsIgnoreMask(DETRInSteps):
    """Numbers the cells of the padded map."""

    def cells(self, features: Tensor, mask: Tensor) -> ImageTokens:
        cells = super().cells(features, mask)
        whole = torch.zeros(len(features), *features.shape[2:], dtype=torch.bool, device=features.device)
        sine = sine_position_embedding(whole, num_pos_feats=features.shape[1] // 2, dtype=features.dtype)
        return cells._replace(position=sine.flatten(2).transpose(1, 2))


@mutant("detr-positions-once", rejects="DETR-5", operation="detr", origin="ViT, which adds positions at the input")
class PositionsOnce(DETRInSteps):
    """Adds positions to the features before the first encoder layer, and to nothing else there."""

    def encoded(self, cells: ImageTokens) -> Tensor:
        silent = torch.zeros_like(cells.position)
        return super().encoded(cells._replace(features=cells.features + cells.position, position=silent))


@mutant("detr-memory-without-positions", rejects="DETR-5", operation="detr", origin="key_pos left out")
class MemoryWithoutPositions(DETRInSteps):
    """Hands no positions to the keys of the cross-attentions."""

    def seen(self, number: int, memory: Tensor, cells: ImageTokens, query_pos: Tensor) -> dict[str, Any]:
        return super().seen(number, memory, cells, query_pos) | {"key_pos": torch.zeros_like(memory)}


@mutant("detr-positions-of-columns-first", rejects="DETR-5", operation="detr", origin="flattened column by column")
class ColumnsFirst(DETRInSteps):
    """Flattens the positions column by column, the features row by row."""

    def cells(self, features: Tensor, mask: Tensor) -> ImageTokens:
        cells = super().cells(features, mask)
        turned = cells.position.unflatten(1, features.shape[2:]).transpose(1, 2).flatten(1, 2)
        return cells._replace(position=turned)


@mutant("detr-content-is-query-embed", rejects="DETR-6", operation="detr", origin="tgt = query_embed")
class ContentIsQueryEmbed(DETRInSteps):
    """Begins with the query embedding as content as well."""

    def content(self, query_pos: Tensor) -> Tensor:
        return query_pos.clone()


@mutant(
    "detr-query-positions-once", rejects="DETR-6", operation="detr", origin="query_pos given to the first layer alone"
)
class QueryPositionsOnce(DETRInSteps):
    """Forgets the queries' positions after the first decoder layer."""

    def seen(self, number: int, memory: Tensor, cells: ImageTokens, query_pos: Tensor) -> dict[str, Any]:
        given = super().seen(number, memory, cells, query_pos)
        return given if number == 0 else given | {"query_pos": torch.zeros_like(query_pos)}


@mutant("detr-query-number-encoded", rejects="DETR-6", operation="detr", origin="a sine of the query's index on top")
class QueryNumberEncoded(DETRInSteps):
    """Adds a small sine of the query's number to its content, so that the order of queries matters."""

    def content(self, query_pos: Tensor) -> Tensor:
        number = torch.arange(query_pos.shape[1], dtype=query_pos.dtype, device=query_pos.device)
        return super().content(query_pos) + 0.05 * number.sin()[:, None]


@mutant("detr-encoder-norm", rejects="DETR-7", operation="detr", origin="the encoder norm of the pre-norm variant")
class EncoderNorm(DETRInSteps):
    """Norms the memory once more."""

    def encoded(self, cells: ImageTokens) -> Tensor:
        memory = super().encoded(cells)
        return F.layer_norm(memory, memory.shape[-1:])


@mutant("detr-norm-fed-forward", rejects="DETR-7", operation="detr", origin="query = norm(query) inside the loop")
class NormFedForward(DETRInSteps):
    """Hands the normed output of a layer to the next."""

    def changed(self) -> None:
        *inner, _ = self.transformer.decoder.layers
        for layer in inner:
            layer.register_forward_hook(lambda m, given, output: self.transformer.decoder.post_norm_layer(output))

    def normed(self, states: list[Tensor]) -> list[Tensor]:
        return [*states[:-1], *super().normed(states[-1:])]


@mutant("detr-norm-of-last-layer-only", rejects="DETR-7", operation="detr", origin="norm applied behind the loop")
class NormOfLastOnly(DETRInSteps):
    """Leaves the outputs of all layers but the last as they are."""

    def normed(self, states: list[Tensor]) -> list[Tensor]:
        return [*states[:-1], *super().normed(states[-1:])]


@mutant(
    "detr-boxes-of-auxiliary-layers-raw", rejects="DETR-8", operation="detr", origin="sigmoid on the last layer alone"
)
class AuxiliaryBoxesRaw(DETRInSteps):
    """Forgets the sigmoid of all layers but the last."""

    def predictions(self, states: list[Tensor]) -> dict[str, Tensor]:
        found = super().predictions(states)
        raw = [self.bbox_embed(state) for state in states[:-1]]
        return found | {"pred_boxes": torch.stack([*raw, found["pred_boxes"][-1]])}


@mutant(
    "detr-no-object-first", rejects="DETR-8", operation="detr", origin="background as class 0, as in older detectors"
)
class NoObjectFirst(DETRInSteps):
    """Has the logit of "no object" first."""

    def predictions(self, states: list[Tensor]) -> dict[str, Tensor]:
        found = super().predictions(states)
        return found | {"pred_logits": found["pred_logits"].roll(1, -1)}


@mutant("detr-logits-clamped", rejects="DETR-8", operation="detr", origin="clamped for quantisation")
class LogitsClamped(DETRInSteps):
    """Clamps logits to [-1, 1]."""

    def predictions(self, states: list[Tensor]) -> dict[str, Tensor]:
        found = super().predictions(states)
        return found | {"pred_logits": found["pred_logits"].clamp(-1, 1)}


@mutant("detr-auxiliary-states-detached", rejects="DETR-9", operation="detr", origin="intermediate.append(x.detach())")
class AuxiliaryDetached(DETRInSteps):
    """Detaches the outputs of all layers but the last from their layers."""

    def normed(self, states: list[Tensor]) -> list[Tensor]:
        return super().normed([*[state.detach() for state in states[:-1]], states[-1]])


@mutant("detr-layers-cut-apart", rejects="DETR-9", operation="detr", origin="detach as in box refinement")
class LayersCutApart(DETRInSteps):
    """Detaches what a decoder layer hands to the next."""

    def changed(self) -> None:
        for layer in list(self.transformer.decoder.layers)[1:]:
            layer.register_forward_pre_hook(lambda m, given: (given[0].detach(), *given[1:]))


@mutant("detr-memory-detached", rejects="DETR-9", operation="detr", origin="no_grad around a frozen encoder")
class MemoryDetached(DETRInSteps):
    """Detaches the memory from the encoder."""

    def encoded(self, cells: ImageTokens) -> Tensor:
        return super().encoded(cells).detach()


@mutant(
    "detr-scaled-between-stages", rejects="DETR-10", operation="detr", origin="quantisation scales moved across a layer"
)
class ScaledBetweenStages(DETRInSteps):
    """Doubles the backbone's features and halves them again where they are projected."""

    def changed(self) -> None:
        self.backbone.register_forward_hook(lambda m, given, maps: tuple(each * 2 for each in maps))
        self.input_proj.register_forward_pre_hook(lambda m, given: (given[0] / 2,))
