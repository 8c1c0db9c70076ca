"""What cut networks fail in: which errors, in whose code, and the module whose sizes are to blame."""

from __future__ import annotations

from collections.abc import Container

from torch import nn

#: What a cut that did not correct the integers in a model's code ends in.
FAILURES = (
    *(RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError, ZeroDivisionError),
    AttributeError,  # of a block that is gone
)


def code_of(error: BaseException) -> str:
    """Name the class and line of the innermost module of the model's own that an error passed through."""
    code, step = "its code", error.__traceback__
    while step is not None:
        owner = step.tb_frame.f_locals.get("self")
        module = str(step.tb_frame.f_globals.get("__name__"))
        if isinstance(owner, nn.Module) and not module.startswith("torch."):
            code = f"{type(owner).__name__}, line {step.tb_lineno} of {module}"
        step = step.tb_next
    return code


def owner_of(error: BaseException, model: nn.Module) -> str:
    """Name the innermost module of the model's own code that an error passed through."""
    names = {id(module): name for name, module in model.named_modules()}
    owner, step = "", error.__traceback__
    while step is not None:
        name = names.get(id(step.tb_frame.f_locals.get("self")), "")
        own = not str(step.tb_frame.f_globals.get("__name__")).startswith("torch.")
        owner = name if name and own else owner
        step = step.tb_next
    return owner


def culprit_of(error: BaseException, model: nn.Module, shape_calls: Container[str]) -> str:
    """Name the innermost module with recorded calls whose code an error passed through."""
    names = {id(module): name for name, module in model.named_modules()}
    culprit, step = "", error.__traceback__
    while step is not None:
        name = names.get(id(step.tb_frame.f_locals.get("self")), "")
        culprit = name if name and name in shape_calls else culprit
        step = step.tb_next
    return culprit
