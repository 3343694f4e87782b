"""Multi-scale deformable attention, the core and the module around it.

A kernel is often named `detr_reference.deformable_attention:ms_deform_attn`; the function is imported when it is asked
for, so that `config` needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
