"""The public names of the suite: what each is lies in the file that it comes from."""

from .adapters.compilers import compiled as compiled
from .adapters.compilers import exported as exported
from .adapters.dlpack import from_dlpack as from_dlpack
from .adapters.jax_arrays import from_jax as from_jax
from .adapters.numpy_arrays import from_numpy as from_numpy
from .adapters.onnx_runtime import onnxruntime as onnxruntime
from .adapters.onnx_runtime import openvino as openvino
from .recording.recorder import record as record
from .stages import PARTS as PARTS
from .stages import STAGES as STAGES
from .target import Target as Target
from .target import TargetError as TargetError
