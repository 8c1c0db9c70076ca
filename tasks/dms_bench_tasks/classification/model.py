"""Networks: building them, and the regularisation that a recipe adds while it trains one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from timm.models import EfficientNet, MobileNetV3
from timm.models._efficientnet_builder import efficientnet_init_weights
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError, nearest
from dms_bench.scaling import Supernet, reinitialise
from dms_bench_tasks.classification.multiples import multiplied
from dms_bench_tasks.classification.sources import Scores, other_source
from dms_bench_tasks.classification.supernets import SUPERNETS
from dms_bench_tasks.classification.weights import classifiers, load_weights

#: Arguments of `timm.create_model` that other fields of the suite decide.
_RESERVED = {
    "num_classes": "data",
    "in_chans": "task.channels",
    "img_size": "task.image_size",
    "pretrained": "supernet.pretrained",
    "checkpoint_path": "supernet.checkpoint",
    "num_labels": "data",
    "weights": "supernet.pretrained",
}
#: Those that decide weights, which networks of other sources take from the same fields.
_RESERVED_ELSEWHERE = {"pretrained", "num_classes", "num_labels", "weights"}
#: Height and width of images where timm's configuration says nothing.
_USUAL_SIZE = 224


def build(supernet: SupernetSpec, classes: int, channels: int, image_size: int, seed: int) -> nn.Module:
    """Build a network on the CPU, its random weights decided by `seed` alone: of timm, `SUPERNETS` or another source.

    Raises:
        UserError: unknown model (with the nearest name), arguments or a size that it cannot take, an unusable
            checkpoint.
    """
    name = supernet.model
    create = other_source(name)
    for argument in (_RESERVED.keys() if create is None else _RESERVED_ELSEWHERE) & supernet.args.keys():
        raise UserError(f"supernet.args.{argument} is decided by {_RESERVED[argument]}: leave it out")
    if create is None:
        try:
            _check_name(name)
        except UserError as error:
            raise UserError(f"supernet.model: {error}") from error
        create = _of_timm
    elif supernet.multiplied:
        raise UserError(f"supernet.model {name!r}: width and depth have multiples in families of timm alone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = create(supernet, classes, channels, image_size)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # libraries hand on whatever the model's constructor raises
            given = f" with {supernet.args}" if supernet.args else ""
            raise UserError(f"supernet.model {name!r}{given}: {_one_line(error)}") from error
    if supernet.checkpoint is not None:
        load_weights(model, supernet.checkpoint, fresh_head=supernet.fresh_head)
    model = _try_input(model, name, channels, image_size, classes)
    if create is not _of_timm:
        _try_training(model, name, channels, image_size, classes)
    return model


def _of_timm(supernet: SupernetSpec, classes: int, channels: int, size: int) -> nn.Module:
    import timm

    name = supernet.model
    create: Callable[..., nn.Module] = SUPERNETS.get(name) or partial(timm.create_model, name)
    if supernet.multiplied:
        create = multiplied(name, supernet.width, supernet.depth)
    sized = {"img_size": size} if size_is_built_in(name) else {}
    return create(pretrained=supernet.pretrained, num_classes=classes, in_chans=channels, **supernet.args, **sized)


def own_size(name: str) -> int:
    """Return the height and width of the images that a network is made for, as far as that is known.

    Raises:
        UserError: timm has no such network.
    """
    from timm.models import get_pretrained_cfg

    if other_source(name) is not None:
        return _USUAL_SIZE
    _check_name(name)
    try:
        config = None if ":" in name else get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError as error:
        raise UserError(f"{name}: {error} leave out what is behind the dot, or take a tag that timm has") from error
    return int(config.input_size[-1]) if config else _USUAL_SIZE


def example_input(batch: int, channels: int, size: int) -> Tensor:
    """Return random images, always the same, [batch, channels, size, size]."""
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def network(model: nn.Module) -> nn.Module:
    """Return the network inside of a search's wrapper, or the model itself.

    A wrapper of another kind has no layers in it but a network of timm; where there are more, as a head beside a
    backbone, the model is the network.
    """
    inside = model.model if isinstance(model, Supernet) else model
    bare = (nn.ParameterDict, nn.ParameterList)  # a structure
    parts = [
        child for child in inside.children() if any(True for _ in child.parameters()) and not isinstance(child, bare)
    ]
    if hasattr(inside, "get_classifier") or len(parts) != 1:
        return inside
    part = network(parts[0])
    return part if hasattr(part, "get_classifier") else inside


def initialise(model: nn.Module, seed: int) -> None:
    """Draw fresh weights in place, as timm does when it builds the network.

    EfficientNets and MobileNets keep their rule outside of the network, unlike timm's other families.
    """
    reinitialise(model, seed)
    if isinstance(model, EfficientNet | MobileNetV3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            efficientnet_init_weights(model)


@contextmanager
def regularised(model: nn.Module, drop: float | None, drop_path: float | None) -> Iterator[None]:
    """Give a network dropout before its classifier and stochastic depth, for as long as it trains.

    A network is built once and may be cut since, so its construction arguments come too late. By timm's
    convention a residual branch ends in an attribute named `drop_path...`: None, an identity or a `DropPath`.
    Its rate grows linearly from 0 in the first block to `drop_path` in the last. None leaves the model as
    it was built.

    Raises:
        UserError: the network has no classifier or no branches of that kind.
    """
    core = network(model)
    if drop is not None and not classifiers(core):
        raise UserError("drop: where the classifier of this network begins is not known; leave drop out of the recipe")
    changed: list[tuple[nn.Module, str, nn.Module | None]] = []
    handles: list[RemovableHandle] = []
    try:
        if drop_path is not None:
            changed = _set_drop_path(core, drop_path)
        if drop is not None:
            handles = [head.register_forward_pre_hook(_Dropout(drop)) for head in classifiers(core)]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, name, before in changed:
            if before is None:  # a plain attribute again, not an empty child module
                delattr(module, name)
            setattr(module, name, before)


class _Dropout:
    """A forward pre-hook that copies and pickles with the model."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (F.dropout(inputs[0], self.rate, module.training), *inputs[1:])


def _set_drop_path(core: nn.Module, rate: float) -> list[tuple[nn.Module, str, nn.Module | None]]:
    from timm.layers import DropPath, calculate_drop_path_rates

    blocks: list[tuple[nn.Module, dict[str, nn.Module | None]]] = []
    for module in core.modules():
        branches = {
            name: child
            for name, child in {**vars(module), **module._modules}.items()
            if "drop_path" in name and (child is None or isinstance(child, nn.Identity | DropPath))
        }
        if branches:
            blocks.append((module, branches))
    if not blocks:
        raise UserError(
            "drop_path: this network has no branches that timm could drop; leave drop_path out of the recipe"
        )
    changed = []
    for (module, branches), block_rate in zip(blocks, calculate_drop_path_rates(rate, len(blocks)), strict=True):
        for name, before in branches.items():
            changed.append((module, name, before))
            setattr(module, name, DropPath(block_rate))
    return changed


def _check_name(name: str) -> None:
    import timm

    if ":" not in name and name not in SUPERNETS and not timm.is_model(name.partition(".")[0]):
        raise UserError(f"timm has no model {name!r}; {nearest(name, [*timm.list_models(), *SUPERNETS])}")


def size_is_built_in(name: str) -> bool:
    """Whether the network must be told the image's size (position embeddings, windows)."""
    from timm.models import get_pretrained_cfg

    if ":" in name:
        return False
    config = get_pretrained_cfg(name, allow_unregistered=True)
    return bool(config is not None and config.fixed_input_size)


def _try_input(model: nn.Module, name: str, channels: int, size: int, classes: int) -> nn.Module:
    """Return the network, or one that hands on its `logits` alone where it returns those in something larger.

    Raises:
        UserError: it cannot take such images, or does not return one score per class.
    """
    training = model.training
    try:
        with torch.no_grad():
            output = model.eval()(torch.zeros(1, channels, size, size))
    except Exception as error:  # whatever the network's operators say about a size they cannot take
        shape = f"{channels} x {size} x {size}"
        raise UserError(f"supernet.model {name!r} cannot take images of {shape}: {_one_line(error)}") from error
    finally:
        model.train(training)
    scores = getattr(output, "logits", output)
    if not isinstance(scores, Tensor) or scores.shape != (1, classes):
        returned = f"{list(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise UserError(
            f"supernet.model {name!r} does not return one score per class: [1, {classes}] is expected, it returns "
            f"{returned}"
        )
    return model if scores is output else Scores(model)


def _try_training(model: nn.Module, name: str, channels: int, size: int, classes: int) -> None:
    """Raise UserError for a network that returns something else in training."""
    images = torch.zeros(2, channels, size, size)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = copy.deepcopy(model).train()(images)
    except Exception as error:
        raise UserError(f"supernet.model {name!r} cannot be trained on two images: {_one_line(error)}") from error
    if not isinstance(output, Tensor) or output.shape != (2, classes):
        raise UserError(
            f"supernet.model {name!r} returns more than its scores in training: leave auxiliary classifiers out"
        )


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
