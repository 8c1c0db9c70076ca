"""Training by Ultralytics' trainer: repeatable, resumable, offline, quiet, and a search step as it should be."""

import copy

import pytest
import torch
from torch import nn

from dms_bench.errors import TrialFailure, UserError
from dms_bench.methods.gradient.spec import Dms
from dms_bench.methods.gradient.structure import DmsStructure
from dms_bench.scaling import Supernet, budget_of, find_space
from dms_bench_tasks.detection import train
from tests.unit.detection.detection_helpers import CPU, TINY, MemoryLoop, recipe, task


@pytest.fixture(scope="module")
def space():
    own = task()
    return find_space(own.build(TINY), own.example_input())


def supernet_of(space, method=None, trains_weights=True):
    net = Supernet(task().build(TINY), copy.deepcopy(space))
    structure = DmsStructure(net, method or Dms(), budget_of(space, macs=0.5), trains_weights=trains_weights)
    return net, structure


def weights(model):
    return torch.cat([tensor.detach().flatten().double() for tensor in model.state_dict().values()])


def stage(tmp_path, name, *, epochs=3, state=None, stop=0, seed=0, supernet=TINY, **options):
    """Train plainly; return the network and the loop."""
    own = task(seed)
    loop = MemoryLoop(tmp_path / name, state, stop)
    loop.folder.mkdir(exist_ok=True)
    model = own.build(supernet)
    try:
        model = own.fit(model, recipe(epochs, **options), loop)
    except KeyboardInterrupt:
        assert stop
    return model, loop


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return stage(tmp_path_factory.mktemp("plain"), "a", close_mosaic=1)


def test_an_epoch_is_recorded_once_with_what_is_worth_a_curve(undisturbed):
    _, loop = undisturbed
    assert [epoch for epoch, _ in loop.epochs] == [1, 2, 3]
    for _, metrics in loop.epochs:
        assert {"train_box_loss", "train_cls_loss", "train_dfl_loss", "val_map50_95", "val_map50", "lr"} <= set(metrics)
    assert loop.ticks >= 9  # three batches in each of three epochs, and those of validation
    assert not list(loop.folder.rglob("*.pt"))  # the runtime keeps the checkpoints


def test_a_seed_decides_everything(undisturbed, tmp_path):
    again, _ = stage(tmp_path, "again", close_mosaic=1)
    other, _ = stage(tmp_path, "other", close_mosaic=1, seed=1)
    assert torch.equal(weights(undisturbed[0]), weights(again))
    assert not torch.equal(weights(undisturbed[0]), weights(other))


@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_a_retraining_that_was_killed_ends_like_an_undisturbed_one(undisturbed, tmp_path, stop):
    """Also in the epochs without mosaic, and when only its end was lost."""
    _, killed = stage(tmp_path, "killed", stop=stop, close_mosaic=1)
    assert [epoch for epoch, _ in killed.epochs] == list(range(1, stop + 1))
    resumed, loop = stage(tmp_path, "resumed", state=killed.state, close_mosaic=1)
    assert [epoch for epoch, _ in loop.epochs] == list(range(stop + 1, 4))
    assert torch.equal(weights(undisturbed[0]), weights(resumed))
    drop = {"seconds"}
    expected = {epoch: {k: v for k, v in m.items() if k not in drop} for epoch, m in undisturbed[1].epochs}
    assert all({k: v for k, v in m.items() if k not in drop} == expected[epoch] for epoch, m in loop.epochs)


@pytest.mark.slow
def test_the_losses_of_two_heads_go_on_with_the_weights_that_they_had(tmp_path):
    """YOLO26 shifts its weight from one head to the other with every epoch."""
    two = TINY.model_copy(update={"model": "yolo26.yaml"})
    whole, _ = stage(tmp_path, "whole", supernet=two)
    _, killed = stage(tmp_path, "killed", supernet=two, stop=2)
    resumed, _ = stage(tmp_path, "resumed", supernet=two, state=killed.state)
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("stop", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_search_that_was_killed_ends_like_an_undisturbed_one(space, tmp_path, stop):
    def search(name, state=None, stop=0):
        net, structure = supernet_of(space)
        loop = MemoryLoop(tmp_path, state, stop)
        try:
            task().fit(net, recipe(3), loop, structure)
        except KeyboardInterrupt:
            assert stop
        return net, loop

    whole, _ = search("whole")
    _, killed = search("killed", stop=stop)
    resumed, loop = search("resumed", state=killed.state)
    assert [epoch for epoch, _ in loop.epochs] == list(range(stop + 1, 4))
    assert torch.equal(weights(whole), weights(resumed))
    budget = budget_of(space, macs=0.5)
    assert whole.architecture(budget) == resumed.architecture(budget)
    assert whole.ratios.max() > 0
    assert whole.importance.max() > 0


class Recorder:
    """A structure hook that notes its calls."""

    def __init__(self, net, trains_weights=True, loss=0.0):
        self.net, self.trains_weights, self.calls, self.progress = net, trains_weights, [], []
        self.value = loss
        self.seen = []

    def begin_step(self, progress):
        self.calls.append("begin")
        self.progress.append(progress)

    def loss(self):
        self.calls.append("loss")
        return self.net.ratios.sum() * 0 + self.value

    def end_step(self):
        self.calls.append("end")
        assert self.net._probe.grad is not None  # before gradients are cleared
        self.seen.append(self.net._probe.grad.clone())
        self.net.update()

    def metrics(self):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_the_hook_is_called_in_the_order_of_its_contract(space, tmp_path):
    net, _ = supernet_of(space)
    hook = Recorder(net)
    task().fit(net, recipe(2), MemoryLoop(tmp_path), hook)
    assert hook.calls == ["begin", "loss", "end"] * 6
    assert hook.progress == pytest.approx([step / 6 for step in range(6)])


def test_a_step_of_several_batches_begins_and_ends_once(space, tmp_path):
    net, _ = supernet_of(space)
    hook = Recorder(net)
    task().fit(net, recipe(2, nbs=24), MemoryLoop(tmp_path), hook)
    assert hook.calls[:5] == ["begin", "loss", "loss", "loss", "end"]


def test_the_searchs_loss_counts_once_per_image(space, tmp_path):
    """Its gradient is the batch times that of the hook's own loss, as Ultralytics sums over images."""
    net, _ = supernet_of(space)

    class Pull(Recorder):
        def loss(self):
            return self.net.ratios.sum()

        def end_step(self):
            self.seen.append(self.net.ratios.grad.clone())
            self.net.ratios.grad = None
            super().end_step()

    pull = Pull(net)
    task().fit(net, recipe(1), MemoryLoop(tmp_path), pull)
    # Before any importance is known masks are ones, whatever the ratios: only the hook's loss reaches them.
    assert torch.equal(pull.seen[0], torch.full_like(net.ratios, 8.0))


def test_the_weights_optimiser_has_no_structure(space, tmp_path):
    net, structure = supernet_of(space)
    seen = {}
    build = train.DetectionTraining.build_optimizer

    def watch(self, *args, **kwargs):
        seen["optimizer"] = build(self, *args, **kwargs)
        return seen["optimizer"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.DetectionTraining, "build_optimizer", watch)
        task().fit(net, recipe(1), MemoryLoop(tmp_path), structure)
    trained = {id(p) for group in seen["optimizer"].param_groups for p in group["params"]}
    assert trained == {id(p) for p in net.model.parameters()}
    assert not trained & {id(p) for p in net.structure_parameters()}


def test_the_average_runs_under_the_masks_of_the_live_network(space, tmp_path):
    net, structure = supernet_of(space)
    seen = []
    validate = train.DetectionTrainer.validate

    def watch(self):
        live, average = self.model.supernet, self.ema.ema.supernet
        seen.append((live.soft_mask().detach(), average.soft_mask().detach(), live.depth_frozen, average.depth_frozen))
        # The average's own weights: neither the live ones nor shared with them.
        assert all(a is not b for a, b in zip(live.parameters(), average.parameters(), strict=True))
        return validate(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.DetectionTrainer, "validate", watch)
        task().fit(net, recipe(3), MemoryLoop(tmp_path), structure)
    for live, average, frozen, average_frozen in seen:
        assert torch.equal(live, average)
        assert frozen == average_frozen
    assert seen[-1][2]
    assert seen[-1][0].min() < 0.9


def test_frozen_weights_stay_while_the_structure_and_the_statistics_move(space, tmp_path):
    net, structure = supernet_of(space, trains_weights=False)
    before = copy.deepcopy(net.model.state_dict())
    task().fit(net, recipe(2), MemoryLoop(tmp_path), structure)
    for name, parameter in net.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert not torch.equal(net.model.state_dict()["model.0.bn.running_mean"], before["model.0.bn.running_mean"])
    assert net.ratios.max() > 0


def test_a_loss_that_is_not_finite_ends_the_trial(tmp_path):
    own = task()
    model = own.build(TINY)
    nn.init.constant_(model.model[0].conv.weight, float("nan"))
    with pytest.raises(TrialFailure, match=r"loss is nan in epoch 1: try a lower lr0"):
        own.fit(model, recipe(2), MemoryLoop(tmp_path))


def test_a_foreign_checkpoint_is_refused(tmp_path):
    _, loop = stage(tmp_path, "first", epochs=2, stop=1)
    loop.state["model"].pop("model.0.conv.weight")
    with pytest.raises(TrialFailure, match="damaged or of another network"):
        stage(tmp_path, "second", epochs=2, state=loop.state)


def test_the_terminal_stays_quiet_and_the_test_split_unread(tmp_path, capfd, monkeypatch):
    from dms_bench_tasks.detection.data import Source

    own = task()
    own.prepare()
    capfd.readouterr()
    description = dict(Source(own.spec).description)
    description["test"] = str(tmp_path / "gone")
    own._source.__dict__["description"] = description
    model = own.fit(own.build(TINY), recipe(1), MemoryLoop(tmp_path))
    list(own.losses(model, 1, CPU))
    own.recalibrate(model, CPU)
    assert capfd.readouterr() == ("", "")


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UserError, match="batch_size 25 is more than the 24 training images"):
        task().check_recipe(recipe(1, batch_size=25))


def test_the_same_weights_come_out_of_ultralytics_own_trainer(tmp_path):
    """Its trainer on its network, against ours on the same one: same data order, losses, average, warm-up."""
    import random

    import numpy as np
    from ultralytics.models.yolo.detect import DetectionTrainer

    own = task()
    options = recipe(2, warmup_epochs=1, mosaic=0.5, close_mosaic=0)
    ours = own.fit(own.build(TINY), options, MemoryLoop(tmp_path))
    theirs = task().build(TINY)
    loop = MemoryLoop(tmp_path)

    class Plain(DetectionTrainer):
        def get_model(self, cfg=None, weights=None, verbose=True):
            return theirs

    trainer = Plain(overrides={**train._options(options, own._source, loop, 0), "name": "theirs", "val": False})
    trainer.model = theirs

    def seed(trainer):
        number = int(np.random.SeedSequence((0, trainer.epoch, 0)).generate_state(1)[0])
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        trainer.train_loader.reset()
        trainer.train_loader.generator.manual_seed(number)

    trainer.add_callback("on_train_epoch_start", seed)
    trainer.save_model = trainer.final_eval = lambda: None
    from dms_bench_tasks.detection.model import library_form
    from dms_bench_tasks.detection.offline import quiet

    with library_form(theirs), quiet():
        trainer.train()
    assert torch.equal(weights(ours), weights(trainer.ema.ema))
