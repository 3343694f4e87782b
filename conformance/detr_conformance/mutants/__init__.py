"""Wrong implementations that the suite must reject, and right ones, written differently, that it must accept."""

from detr_conformance.mutants import (  # noqa: F401  (importing a module registers what it holds)
    kernel,
    module,
    module_frame,
    module_looking,
    module_twins,
    msda_coordinates,
    msda_gradient_form,
    msda_gradients,
    msda_layout,
    msda_memory,
    msda_modes,
    msda_precision,
    msda_range,
    msda_sizes,
    msda_weights,
    plain,
    twins,
)
from detr_conformance.mutants.registry import MUTANTS, TWINS, Mutant, Twin, as_target, mutant, twin

__all__ = ["MUTANTS", "TWINS", "Mutant", "Twin", "as_target", "mutant", "twin"]
