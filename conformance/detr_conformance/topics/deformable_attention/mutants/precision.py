"""Mutants that lose precision on the way (MSDA-21, 22, 24, 25, 34, 52, 64)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Gradients,
    Kernel,
    Needs,
    Output,
    PerSample,
    Table,
    Vectors,
)

HALF = (torch.float16, torch.bfloat16)


class ClaimedDtypeKernel(Kernel):
    """Keeps the claimed dtype of the call at hand for the steps that round to it."""

    def compute_dtype(self, call: Call) -> torch.dtype:
        self.claimed = call.value.dtype
        return super().compute_dtype(call)


def tf32(numbers: Tensor) -> Tensor:
    """Rounds float32 to ten bits of mantissa; other dtypes stay as they are."""
    if numbers.dtype != torch.float32:
        return numbers
    bits = numbers.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def truncated(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds towards zero: what cutting off the lower bits does."""
    rounded = numbers.to(dtype)
    beyond = rounded.to(numbers.dtype).abs() > numbers.abs()
    return torch.where(beyond, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)


@mutant("tf32-products", rejects="MSDA-21", origin="TF32 tensor cores: ten bits of mantissa")
class Tf32Products(Kernel):
    """Multiplies float32 with ten bits of mantissa, as tensor cores do by default."""

    def table(self, value: Float[Tensor, "batch cell head channel"], dtype: torch.dtype) -> Table:
        return super().table(tf32(value), dtype)


@mutant("half-staged-value", rejects="MSDA-21", origin="value staged in shared memory as bfloat16")
class HalfStagedValue(Kernel):
    """Stages float32 values as bfloat16 to fit twice as many into shared memory."""

    def table(self, value: Float[Tensor, "batch cell head channel"], dtype: torch.dtype) -> Table:
        staged = value.bfloat16() if value.dtype == torch.float32 else value
        return super().table(staged, dtype)


@mutant("eight-bit-value", rejects="MSDA-21", origin="post-training quantisation, one scale a tensor")
class EightBitValue(Kernel):
    """Quantises the value to eight bits with one scale for the tensor."""

    def table(self, value: Float[Tensor, "batch cell head channel"], dtype: torch.dtype) -> Table:
        table = super().table(value, dtype)
        scale = table.abs().max() / 127
        return torch.where(scale > 0, (table / scale).round() * scale, table)


@mutant("subnormals-flushed", rejects="MSDA-21", origin="flush-to-zero at the precision of the input")
class SubnormalsFlushed(Kernel):
    """Flushes values below the smallest normal number of the claimed dtype, 6e-5 in float16."""

    def table(self, value: Float[Tensor, "batch cell head channel"], dtype: torch.dtype) -> Table:
        return super().table(torch.where(value.abs() < torch.finfo(value.dtype).tiny, 0, value), dtype)


@mutant("epsilon-in-weights", rejects="MSDA-21", origin="weights + 1e-6 against division by zero elsewhere")
class EpsilonInWeights(Kernel):
    """Adds 1e-6 to each weight: seen only where values are large or weights cancel."""

    def prepare(self, call: Call) -> Call:
        return call._replace(attention_weights=call.attention_weights + 1e-6)


@mutant("samples-in-half", rejects="MSDA-22", origin="pure PyTorch called in half: grid_sample rounds its result")
class SamplesInHalf(ClaimedDtypeKernel):
    """Rounds each interpolated sample to the half dtype before it is weighted."""

    def interpolate(self, corners: tuple[Vectors, ...], shares: tuple[PerSample, ...]) -> Vectors:
        samples = super().interpolate(corners, shares)
        return samples.to(self.claimed).to(samples.dtype)


@mutant("half-accumulator", rejects="MSDA-22", origin="scalar_t accumulator in a templated kernel")
class HalfAccumulator(ClaimedDtypeKernel):
    """Interpolates in float32, and adds up in the claimed dtype."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        terms = (weights[..., None] * samples).flatten(3, 4)
        total = torch.zeros_like(terms[:, :, :, 0])
        for term in terms.unbind(3):
            total = (total + term).to(self.claimed).to(term.dtype)
        return total


@mutant("half-accumulator-of-wide-heads", rejects="MSDA-22", origin="registers run out: half2 sums from 48 channels on")
class HalfAccumulatorOfWideHeads(HalfAccumulator):
    """Adds up in the claimed dtype where a head has 48 channels or more."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        return (
            super().accumulate(samples, weights)
            if samples.shape[-1] >= 48
            else Kernel.accumulate(self, samples, weights)
        )


@mutant("packed-half-atomics", rejects="MSDA-34", origin="red.add.f16x2, for eight channels and many queries")
class PackedHalfAtomics(ClaimedDtypeKernel):
    """Adds the value gradient up in the claimed dtype for more than 200 queries, and channels by eights."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> Tensor:
        if self.claimed not in HALF or weights.shape[1] <= 200 or grad.shape[-1] % 8:
            return super().grad_value(grad, geometry, weights, call)
        packed = [super(PackedHalfAtomics, self).grad_value(*part, call) for part in _in_runs(grad, geometry, weights)]
        total = torch.zeros_like(packed[0], dtype=self.claimed)
        for part in packed:
            total += part.to(self.claimed)
        return total.to(packed[0].dtype)


def _in_runs(grad: Tensor, geometry: Geometry, weights: PerSample) -> Iterator[tuple[Tensor, Geometry, PerSample]]:
    """Twenty queries at a time."""
    for start in range(0, weights.shape[1], 20):
        mine = slice(start, start + 20)
        own = geometry._replace(
            rows=tuple(row[:, mine] for row in geometry.rows), shares=tuple(share[:, mine] for share in geometry.shares)
        )
        yield grad[:, mine], own, weights[:, mine]


@mutant("shares-in-half", rejects="MSDA-22", origin="interpolation weights packed as half2")
class SharesInHalf(ClaimedDtypeKernel):
    """Rounds the four interpolation shares to the half dtype, to multiply two at a time."""

    def shares(self, fx: PerSample, fy: PerSample) -> tuple[PerSample, ...]:
        return tuple(share.to(self.claimed).to(share.dtype) for share in super().shares(fx, fy))


@mutant("saturating-levels", rejects="MSDA-24", origin="per-level partial sums stored with saturation")
class SaturatingLevels(ClaimedDtypeKernel):
    """Stores each level's partial sum with the range of the claimed dtype, though with float32 digits."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        levels = (weights[..., None] * samples).sum(4)
        limit = torch.finfo(self.claimed).max
        return levels.clamp(-limit, limit).sum(3)


@mutant("saturating-cast", rejects="MSDA-24", origin="cvt.satfinite")
class SaturatingCast(Kernel):
    """Stores the largest half number where the result is beyond it, instead of infinity."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        if dtype in HALF:
            limit = torch.finfo(dtype).max
            output = torch.where(output.isfinite(), output.clamp(-limit, limit), output)
        return super().finish(output, dtype)


@mutant("truncated-output", rejects="MSDA-25", origin="float32 to bfloat16 by a shift of 16 bits")
class TruncatedOutput(Kernel):
    """Cuts the lower bits off the result instead of rounding it."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        return super().finish(truncated(output, dtype) if dtype in HALF else output, dtype)


@mutant("rounded-twice", rejects="MSDA-25", origin="bfloat16 results moved through a float16 buffer")
class RoundedTwice(Kernel):
    """Rounds a bfloat16 result to float16 first: two roundings, wrong where the first meets a tie."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        fits = output.abs() < 65504
        if dtype == torch.bfloat16:
            output = torch.where(fits & (output.abs() > 6.2e-5), output.half().to(output.dtype), output)
        return super().finish(output, dtype)


@mutant("unorm-fraction", rejects="MSDA-25", origin="fractions stored as 16-bit unorm, k / 65535")
class UnormFraction(Kernel):
    """Stores the fraction in units of 1/65535, so that a half is not a half."""

    def fraction(self, coordinate: PerSample, floor: PerSample) -> PerSample:
        return (super().fraction(coordinate, floor) * 65535).round() / 65535


@mutant("rescaled-weights", rejects="MSDA-25", origin="running normaliser of an online softmax")
class RescaledWeights(Kernel):
    """Divides the weights by the sum of their absolute values, and multiplies the result with it again."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        total = weights.abs().sum((3, 4), keepdim=True)
        total = torch.where(total > 0, total, 1)
        return super().accumulate(samples, weights / total) * total[..., 0, 0, None]


@mutant("float64-in-float32", rejects="MSDA-52", origin="kernels compiled for float alone, behind .float()")
class Float64InFloat32(Kernel):
    """Computes float64 in float32 and casts the result back."""

    def compute_dtype(self, call: Call) -> torch.dtype:
        return torch.float32


@mutant("float64-backward-in-float32", rejects="MSDA-52", origin="only the forward was templated")
class Float64BackwardInFloat32(Kernel):
    """Computes float64 forward, and its gradients in float32."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        single = Call(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in call))
        grads = super().backward(single if call.value.dtype == torch.float64 else call, grad_output, needs)
        dtypes = (call.value.dtype, call.sampling_locations.dtype, call.attention_weights.dtype)
        first, second, third = (
            None if grad is None else grad.to(dtype) for grad, dtype in zip(grads, dtypes, strict=True)
        )
        return first, second, third


@mutant("no-bfloat16", rejects="MSDA-52", origin="AT_DISPATCH_FLOATING_TYPES_AND_HALF")
class NoBfloat16(Kernel):
    """Claims bfloat16 and raises on it."""

    def check(self, call: Call) -> None:
        super().check(call)
        if call.value.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")


@mutant("value-gradient-a-little-small", rejects="MSDA-64", origin="a scale of one, multiplied and divided in single")
class ValueGradientALittleSmall(Kernel):
    """Multiplies the gradient of the value by 1 - 2^-19."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> Tensor:
        return super().grad_value(grad, geometry, weights, call) * (1 - 2**-19)


@mutant("truncated-sums-of-samples", rejects="MSDA-64", origin="__fmaf_rz, rounding towards zero for speed")
class TruncatedSumsOfSamples(Kernel):
    """Adds the samples one by one and cuts each partial sum to float32 towards zero."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        terms = (weights[..., None] * samples).flatten(3, 4).unbind(3)
        total = torch.zeros_like(terms[0])
        for term in terms:
            exact = total.double() + term.double()
            nearest = exact.to(total.dtype)
            beyond = nearest.double().abs() > exact.abs()
            total = torch.where(beyond, torch.nextafter(nearest, torch.zeros_like(nearest)), nearest)
        return total


@mutant("slope-of-seven-digits", rejects="MSDA-64", origin="a constant copied with seven digits")
class SlopeOfSevenDigits(Kernel):
    """Scales the gradient of the locations by 1.0000007, in rows and in columns."""

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        along_x, along_y = super().slopes(corners, geometry)
        return along_x * 1.0000007, along_y * 1.0000007
