"""A block of torch as ONNX Runtime computes it, and a graph that lies on the disk already."""

from detr_conformance import Target, from_numpy, onnxruntime
from detr_conformance.targets.onnx_forms import by_gathering  # yours in its place

target = onnxruntime(Target(name="my-block", provides={"ms_deform_attn": by_gathering}, features=()))


def in_file(path):
    """The graph in a file, whose inputs are the arguments in their order, as a target."""
    import onnxruntime as runtime

    session = runtime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    run = from_numpy(lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0])
    return Target(name="my-graph", provides={"ms_deform_attn": run}, features=())
