"""What people take from the package of deformable attention itself."""

from .core import ms_deform_attn as ms_deform_attn
