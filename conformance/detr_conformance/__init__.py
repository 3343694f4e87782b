"""The conformance suite of detr-spec: describe an implementation as a Target, then `detr-spec check` it.

The public names are those of the stub file beside this one; each is imported when it is first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
