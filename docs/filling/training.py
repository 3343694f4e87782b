"""What the documents say of training, from saved runs."""

from __future__ import annotations

import statistics

from detr_reference.training.recipes.recipe import Recipe, names
from filling.saved import saved

PICTURE = "![AP of each run](docs/runs/small-comparison.png)"
HELD = ("parameters", "gradients", "optimizer", "average", "buckets", "activations")  # in a GPU's memory


def smoke() -> str:
    """What the smoke run reached, and in what time."""
    run = saved("smoke")
    figures, machine = run["figures"], run["environment"]
    reached = ", ".join(f"{name} {figures[name]:.3f}" for name in ("AP", "AP50", "AP75"))
    return (
        f"{reached} on images that it was not trained on, after {run['steps']:,} steps and {run['seconds'] / 60:.1f} "
        f"minutes on {machine['cores']} CPU cores, pictures included (torch {machine['torch']})."
    )


def recipes() -> str:
    """The published recipes and what their authors report."""
    lines = ["| recipe | trains | epochs | batch | reported AP |", "|---" * 5 + "|"]
    for recipe in map(Recipe.read, names()):
        if recipe.data.set != "coco":
            continue
        reported = "" if recipe.published_ap is None else f"{recipe.published_ap:.1f}"
        training = recipe.training
        lines.append(f"| `{recipe.name}` | {recipe.about} | {training.epochs} | {training.batch_size} | {reported} |")
    return "\n".join(lines)


def projected() -> str:
    """The dry run: what was counted, what is assumed, and what was measured."""
    found = saved("dry-run")
    lines = ["| | steps | memory of a GPU | operations an image | time |", "|---" * 5 + "|"]
    for name, run in found["projected"].items():
        schedule, held = run["schedule"], sum(run["memory"][part] for part in HELD)
        steps, flops = schedule["epochs"] * schedule["steps_per_epoch"], run["cost"]["flops"]
        cells = (f"{steps:,}", f"{held / 1e9:.1f} GB", f"{flops / 1e12:.2f} T", f"{run['seconds'] / 3600:.0f} h")
        lines.append(f"| {' | '.join((name, *cells))} |")
    machine, size = run["machine"], " x ".join(map(str, run["size"]))
    measured, seconds = found["measured"]["as published"], [step["cpu_seconds"] for step in found["steps"]]
    lines += [
        "",
        f"Projected, not measured, for {machine['gpus']} x {machine['gpu']} "
        f"at an assumed {machine['utilisation']:.0%} of "
        f"{machine['teraflops']} TFLOP/s in float32, images of {size}. Measured on a CPU with one such image: "
        f"{measured['kept'] / 1e9:.1f} GB of activations, {measured['flops'] / 1e12:.2f} T operations, and "
        f"{statistics.mean(seconds):.0f} CPU seconds a step ({len(seconds)} steps).",
    ]
    return "\n".join(lines)


def overfit() -> str:
    """A handful of photographs, learnt by heart."""
    run = saved("overfit")
    return (
        f"Learning by heart (`python docs/overfit.py FOLDER`): a smaller DINO ({run['parameters']:,} parameters), from "
        f"random numbers, on {len(run['image_ids'])} photographs of COCO with {run['boxes']} boxes reaches AP "
        f"{run['figures']['AP']:.3f} on these after {run['steps']:,} steps."
    )


def compared() -> str:
    """The small comparison, in the order of the runner."""
    found = saved("small-comparison")
    lines = ["| model | AP, mean | lowest | highest | seeds |", "|---" * 5 + "|"]
    runs = found["runs"]
    for name in dict.fromkeys(run["name"] for run in runs):
        values = [run["figures"]["AP"] for run in runs if run["name"] == name]
        mean, low, high = (f"{value:.3f}" for value in (statistics.mean(values), min(values), max(values)))
        lines.append(f"| {name} | {mean} | {low} | {high} | {len(values)} |")
    data, training = found["recipe"]["data"], found["recipe"]["training"]
    steps = data["images"] // training["batch_size"] * training["epochs"]
    about = f"{steps:,} steps of {training['batch_size']} images each, AP on other generated images."
    lines += ["", about, "", PICTURE]
    return "\n".join(lines)


def sizes() -> str:
    """Parameters, time and memory of the published sizes."""
    found = saved("full-size")
    lines = ["| one image of 800 x 1333 on the CPU | parameters | forward | backward | peak memory |", "|---" * 5 + "|"]
    for run in found["runs"]:
        seconds = run["seconds"]
        forward, backward = (f"{seconds[k]:.0f} s" if k in seconds else "" for k in ("forward", "backward"))
        peak = f"{run['peak_mib'] / 1024:.1f} GiB"
        lines.append(f"| {run['name']} | {run['parameters']:,} | {forward} | {backward} | {peak} |")
    machine = found["environment"]
    lines += ["", f"float32, torch {machine['torch']}, {machine['threads']} threads: `python docs/full_size.py`."]
    return "\n".join(lines)
