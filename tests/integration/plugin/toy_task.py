import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dms_bench.errors import TrialFailure, UserError
from dms_bench.scaling import Architecture, count, cut, reinitialise


class Toy:
    """Classifies the sign pattern of random vectors."""

    def __init__(self, spec, seed):
        self.spec, self.seed = spec, seed

    def build(self, supernet):
        if supernet.model != "mlp":
            raise UserError(f"unknown model {supernet.model!r}; did you mean 'mlp'?")
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            width = supernet.args.get("width", self.spec.width)
            return nn.Sequential(
                nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
            )

    def example_input(self, batch=2):
        return torch.ones(batch, 8)

    def prepare(self):
        pass

    def train_samples(self):
        return 256

    def _data(self, split, number=256):
        generator = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2}[split])
        x = torch.randn(number, 8, generator=generator)
        return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] + x[:, 2] * x[:, 3] > 0).long()

    def fit(self, model, recipe, loop, structure=None):
        _note(f"fit {loop._stage.path}")
        x, y = self._data("train")
        torch.manual_seed(self.seed)
        model.train()
        names = getattr(model, "named_weights", model.named_parameters)
        optimizer = torch.optim.SGD([parameter for _, parameter in names()], lr=recipe.lr, momentum=0.9)
        wrapped = DistributedDataParallel(model) if loop.world_size > 1 else model
        first = 1
        state = loop.resume()
        if state is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            if structure is not None:
                structure.load_state_dict(state["structure"])
            first = state["epoch"] + 1
        for epoch in range(first, recipe.epochs + 1):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
            for step, batch in enumerate(order.chunk(recipe.steps)):
                own = batch.chunk(loop.world_size)[loop.rank]
                if structure is not None:
                    structure.begin_step((epoch - 1 + step / recipe.steps) / recipe.epochs)
                loss = nn.functional.cross_entropy(wrapped(x[own]), y[own])
                if epoch == recipe.fails_in:
                    raise TrialFailure(f"{loop._stage.name}, epoch {epoch}: the loss is inf")
                (loss + structure.loss() if structure is not None else loss).backward()
                optimizer.step()
                if structure is not None:
                    structure.end_step()
                optimizer.zero_grad()
                loop.tick()
                time.sleep(recipe.pause)
            if epoch == recipe.dies_in:
                _end(recipe.dies_by)
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            if structure is not None:
                saved["structure"] = structure.state_dict()
            measured = self.evaluate(model, "val", loop.device)
            metrics = {"train_loss": loss.item(), "val_accuracy": measured["accuracy"]}
            loop.epoch_done(epoch, metrics, saved)
            _note(f"epoch {loop._stage.path} {epoch}")
            _die(loop, epoch)
            _jump(epoch)
        return model

    def check_recipe(self, recipe):
        pass

    def initialise(self, model):
        reinitialise(model, self.seed)

    def losses(self, model, batches, device):
        for x, y in zip(*(part.split(64) for part in self._data("train", 64 * batches)), strict=True):
            yield nn.functional.cross_entropy(model(x), y)

    def recalibrate(self, model, device, samples=None):
        pass

    def evaluate(self, model, split, device):
        x, y = self._data(split, 1000)
        training = model.training
        model.eval()
        with torch.no_grad():
            accuracy = (model(x).argmax(1) == y).float().mean().item()
        model.train(training)
        return {"accuracy": accuracy}

    def export(self, model, folder):
        path = folder / "toy.txt"
        path.write_text(str(model))
        return [path]


class KeepHalf:
    """The search method `half`."""

    def __init__(self, spec):
        self.spec = spec

    def search(self, context):
        context.task.fit(context.model, context.trial.search, context.loop)
        groups = {group.name: tuple(range(group.size // 2)) for group in context.space.groups}
        architecture = Architecture(groups, {}, 0, 0)
        counted = count(cut(context.model, context.space, architecture), context.task.example_input())
        return Architecture(groups, {}, counted.macs, counted.params)


def _note(line):
    """Append to a journal, so that a test can tell what was done and how often."""
    journal = os.environ.get("TOY_JOURNAL")
    if journal:
        with Path(journal).open("a") as file:
            file.write(f"{os.getpid()} {line}\n")


def _die(loop, epoch):
    """Kill this process the first time that it gets to the place that the environment names."""
    place = os.environ.get("TOY_KILL", "")
    if place == f"{loop._stage.name} {epoch} {loop.rank}":
        once = Path(os.environ["TOY_JOURNAL"] + ".killed")
        try:
            once.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), 9)


def _end(how):
    """End this process."""
    if how == "exit":
        os._exit(3)
    if how == "abort":
        os.write(2, b"double free or corruption (out)\n")
        os.abort()
    os.kill(os.getpid(), 9)


def _jump(epoch):
    """Move this process's clock once, in the epoch and by the seconds that the environment names."""
    place, _, seconds = os.environ.get("TOY_CLOCK", "").partition(" ")
    if place == str(epoch) and not hasattr(time, "real"):
        time.real = time.time
        time.time = lambda: time.real() + float(seconds)
