"""What is asked of a walk along the trajectory, and what is said where it parts."""

from __future__ import annotations

from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.training.checks.trajectory import Found, Step, trajectory
from detr_conformance.topics.training.checks.walk import (
    Visit,
    backward,
    forget_gradients,
    gradients,
    learner,
    teach,
    walk,
)


def losses_agree(subject: Subject, visits: list[Visit], after: str = "") -> None:
    """Every loss of every visit lies within its limit."""
    for each in visits:
        step = each.step
        off = {
            name: (abs(float(loss - step.right.losses[name])), step.loss_limits[name])
            for name, loss in _found(each).losses.items()
        }
        name = _worst(subject, off)
        error, limit = off[name]
        if error > limit:
            expected, got = float(step.right.losses[name]), float(_found(each).losses[name])
            raise Mismatch(
                f"step {step.number}{after}: {name} is {got:.8g} instead of {expected:.8g}, off by {error:.3g} "
                f"where {limit:.3g} is allowed{_others(off, name)}",
                where=f"step {step.number}, {name}",
                expected=f"{expected:.8g}",
                got=f"{got:.8g}",
                limit=f"{limit:.3g}",
                ratio=error / limit,
                detail=_history(visits, step),
            )


def gradients_agree(subject: Subject, visits: list[Visit], after: str = "") -> None:
    """The gradient of every parameter at every visit lies within its limit, in norm."""
    for each in visits:
        step = each.step
        off = _gradient_errors(step.right, step.gradient_limits, _found(each).gradients)
        _expect_gradients(subject, step, off, f"step {step.number}{after}", _history(visits, step))


def reach_agrees(visits: list[Visit]) -> None:
    """The losses reach exactly the parameters that they reach in the reference."""
    for each in visits:
        step, found = each.step, _found(each).gradients
        for name, right in step.right.gradients.items():
            got = found[name]
            norm = 0.0 if got is None else float(got.norm())
            if right is None or not right.any():
                if norm:
                    raise _reach(step, name, "gets a gradient from losses that do not depend on it", "zero", norm)
            elif float(right.norm()) > step.gradient_limits[name] and not norm:
                raise _reach(step, name, "gets no gradient", f"norm {float(right.norm()):.3g}", got)


def accumulation_agrees(subject: Subject, case: Case) -> None:
    """Two batches without a step between them: their gradients add up."""
    made = learner(subject, case)
    first, second = trajectory(case).compared()[-2:]
    forget_gradients(made)
    for step in (first, second):
        teach(made, step.parameters)
        backward(case, made, step)
    right = {
        name: one if two is None else (two if one is None else one + two)
        for (name, one), two in zip(first.right.gradients.items(), second.right.gradients.values(), strict=True)
    }
    limits = {name: first.gradient_limits.get(name, 0.0) + second.gradient_limits.get(name, 0.0) for name in right}
    off = _gradient_errors(Found({}, right), limits, gradients(made))
    _expect_gradients(subject, second, off, f"steps {first.number} and {second.number} accumulated", None)


def visited(subject: Subject, case: Case) -> list[Visit]:
    return walk(subject, case).forward


def returned(subject: Subject, case: Case) -> list[Visit]:
    """The visits after the whole walk.

    Raises:
        Mismatch: it broke off before.
    """
    found = walk(subject, case)
    for each in found.forward:
        _found(each)
    return found.back


LISTED = 10  # parameters that a report names one by one


# -- errors and what is said of them ----------------------------------------------------------------------------

Errors = dict[str, tuple[float, float]]  # by name: error, limit


def _found(each: Visit) -> Found:
    if each.failed is not None:
        raise each.failed
    assert each.found is not None
    return each.found


def _gradient_errors(right: Found, limits: dict[str, float], found: dict[str, Tensor | None]) -> Errors:
    errors: Errors = {}
    for name, expected in right.gradients.items():
        got = found[name]
        if expected is None:
            continue  # what may not be reached is another clause
        if got is not None and got.shape != expected.shape:
            raise Mismatch(f"{name} got a gradient of shape {tuple(got.shape)}", where=f"grad_{name}")
        error = float((expected if got is None else got - expected).norm())
        errors[name] = (error if error == error else float("inf"), limits[name])
    return errors


def _expect_gradients(subject: Subject, step: Step, off: Errors, where: str, history: str | None) -> None:
    name = _worst(subject, off)
    error, limit = off[name]
    if error <= limit:
        return
    listed = [f"{each}: {off[each][0] / off[each][1]:.3g} limits" for each in _wrong(off)[:LISTED]]
    right = step.right.gradients[name]
    norm = 0.0 if right is None else float(right.norm())
    share = f", {error / norm:.2%} of its norm" if norm else ""
    raise Mismatch(
        f"{where}: the gradient of {name} is off by {error:.3g} where {limit:.3g} is allowed{share}"
        f"{_others(off, name)}",
        where=f"step {step.number}, {name}",
        expected=f"norm {norm:.6g}",
        got=f"off by {error:.3g} in norm",
        limit=f"{limit:.3g}",
        count=f"{len(_wrong(off))} of {len(off)} parameters",
        ratio=error / limit,
        detail="\n".join([*([history] if history else []), *listed]),
    )


def _worst(subject: Subject, off: Errors) -> str:
    """The name with the largest error over its limit, which the subject remembers if it is allowed."""
    name = max(off, key=lambda each: off[each][0] / off[each][1])
    ratio = off[name][0] / off[name][1]
    if ratio <= 1:
        subject.worst_ratio = max(ratio, subject.worst_ratio or 0.0)
    return name


def _wrong(off: Errors) -> list[str]:
    """By how much, the worst first."""
    wrong = [name for name, (error, limit) in off.items() if error > limit]
    return sorted(wrong, key=lambda name: -off[name][0] / off[name][1])


def _others(off: Errors, name: str) -> str:
    others = [each for each in _wrong(off) if each != name]
    if not others:
        return ""
    shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return f"; {len(others)} more are off there ({shown})"


def _history(visits: list[Visit], step: Step) -> str:
    numbers = [str(each.step.number) for each in visits if each.step.number < step.number]
    return f"steps that agree before it: {', '.join(numbers) or 'none'}"


def _reach(step: Step, name: str, what: str, expected: str, got: object) -> Mismatch:
    told = "None" if got is None else "zero" if isinstance(got, Tensor) else f"norm {got:.3g}"
    return Mismatch(
        f"step {step.number}: {name} {what}", where=f"step {step.number}, {name}", expected=expected, got=told
    )
