"""What a rehearsal has found: what will not run, and what will wait. A line each, with the field and what helps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dms_bench.errors import UserError, nearest
from dms_bench.trial.rehearsal.record import Rehearsed, Stage

#: Memory of accelerators in GiB, as their makers give it, less what is not for programs.
DEVICES = {
    "T4": 14.7,
    "V100-16GB": 15.7,
    "V100-32GB": 31.7,
    "L4": 22.0,
    "A10G": 22.0,
    "RTX-3090": 23.6,
    "RTX-4090": 23.6,
    "L40S": 44.4,
    "A100-40GB": 39.4,
    "A100-80GB": 79.2,
    "H100": 79.2,
    "H200": 139.8,
}
GIB = 2**30
#: What the driver of a GPU and its libraries hold before a network is there.
_CONTEXT = 0.6 * GIB
#: A loader is too slow when it gives less than this share of what is needed.
_ENOUGH = 0.95


@dataclass(frozen=True)
class Finding:
    """Something that the user should know before anything is trained."""

    #: missing, does not fit, fails, starves.
    what: str
    experiments: tuple[str, ...]
    #: Of the experiment.
    field: str
    text: str
    remedy: str

    @property
    def fatal(self) -> bool:
        """Whether something will not run."""
        return self.what != "starves"

    def __str__(self) -> str:
        named = ", ".join(map(repr, self.experiments[:3]))
        more = f" and {len(self.experiments) - 3} more" if len(self.experiments) > 3 else ""
        plural = "s" * (len(self.experiments) > 1)
        return f"{self.what}: experiment{plural} {named}{more}, {self.field}: {self.text}; {self.remedy}"


def memory_of(device: str) -> float:
    """Return the bytes of an accelerator's memory.

    Raises:
        UserError: nobody knows it.
    """
    if device not in DEVICES:
        raise UserError(f"--device {device!r}: {nearest(device, DEVICES)}")
    return DEVICES[device] * GIB


def findings_of(kinds: Iterable[Rehearsed], device: str | None = None) -> list[Finding]:
    """Return what was found, what will not run first.

    Args:
        kinds: what came of each.
        device: name of the accelerator that the suite is to run on, where it is another than here.
    """
    found: list[Finding] = []
    for kind in kinds:
        if kind.failure is not None:
            found.append(_failure(kind))
        if device is not None:
            found += _too_large(kind, device)
        found += _starving(kind)
    return sorted(dict.fromkeys(found), key=lambda finding: not finding.fatal)


def missing(experiments: Sequence[str], what: str, text: str) -> Finding:
    """Return the finding of something that was refused before anything ran.

    Args:
        experiments: in which it is needed.
        what: kind of thing (`dms_bench.trial.preflight.Preflight`).
        text: what was said of it.
    """
    field, remedy = _OF_REFUSALS[what]
    return Finding("missing" if what in ("data", "network") else "fails", tuple(experiments), field, text, remedy)


#: Field and remedy by what is refused.
_OF_REFUSALS = {
    "data": ("task.data", "put the data there, or say where they are in a site file (--site)"),
    "samples": ("task.data", "give the data, or the number of their samples"),
    "recipe": ("recipe", "change the recipe, also by --set"),
    "network": ("supernet", "name weights that are there (supernet.checkpoint), or fetch them"),
    "budget": ("budget", "ask for a budget within reach"),
    "method": ("method", "take another method, or another supernet"),
}


def _failure(kind: Rehearsed) -> Finding:
    text, at = kind.failure or "", kind.at or "start"
    low = text.lower()
    if "memory" in low or "sigkill" in low:
        peak = max((stage.host_bytes for stage in kind.stages), default=0)
        after = f" (it held {peak / GIB:.1f} GiB in the stages before)" if peak else ""
        remedy = "more memory for each trial, a larger grad_accum_steps or resources.workers, or a smaller batch_size"
        return Finding("does not fit", tuple(kind.experiments), _recipe_of(at), f"{text}{after}", remedy)
    if "out of reach" in low:
        return Finding("fails", tuple(kind.experiments), "budget", text, _OF_REFUSALS["budget"][1])
    if "the loss is" in low:
        remedy = "a lower learning rate, or a longer warm-up"
        return Finding("fails", tuple(kind.experiments), _recipe_of(at), text, remedy)
    return Finding("fails", tuple(kind.experiments), _recipe_of(at), text, f"see what {at} does there")


def _too_large(kind: Rehearsed, device: str) -> list[Finding]:
    """Compare what the stages held with an accelerator's memory; what was held on processors stands for it."""
    memory, found = memory_of(device), []
    # What the process holds before a network is trained is no network's.
    begun = min((stage.host_bytes for stage in kind.stages), default=0)
    for stage in _largest(kind.stages):
        held = float(stage.device_bytes) or max(0, stage.host_bytes - begun)
        if held + _CONTEXT > memory:
            about = "" if stage.device_bytes else "about "
            text = f"{stage.name} holds {about}{(held + _CONTEXT) / GIB:.1f} GiB, {device} has {memory / GIB:.1f}"
            remedy = "a larger grad_accum_steps or resources.workers, amp: bf16, or a smaller batch_size"
            found.append(Finding("does not fit", tuple(kind.experiments), _recipe_of(stage.name), text, remedy))
    return found


def _largest(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages that train, each name once, with the most memory."""
    most: dict[str, Stage] = {}
    for stage in stages:
        if stage.training is not None and stage.host_bytes >= most.get(stage.name, stage).host_bytes:
            most[stage.name] = stage
    return list(most.values())


def _starving(kind: Rehearsed) -> list[Finding]:
    for stage in kind.stages:
        for call in stage.calls:
            one = next((one for one in call.passes if one.loaded is not None), None) if call.epochs else None
            if one is not None and one.needed and one.loaded is not None and one.loaded < _ENOUGH * one.needed:
                text = (
                    f"{stage.name} could train on {one.needed:.4g} {kind.unit}/s in each worker and its loader gives "
                    f"{one.loaded:.4g}: steps take {one.step / one.compute:.2g} times as long"
                )
                times = one.needed / one.loaded
                remedy = f"{times:.2g} times as many processes that load (a site file's data.workers), smaller files"
                return [Finding("starves", tuple(kind.experiments), "task.data.workers", text, remedy)]
    return []


def _recipe_of(stage: str) -> str:
    """Return the field of an experiment that a stage follows."""
    return {"build": "supernet", "recalibrate": "pipeline", "evaluate": "task", "start": "resources"}.get(stage, stage)
