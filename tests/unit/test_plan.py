from typing import ClassVar, Literal

import pytest
import torch
from torch import nn

from dms_bench.config import parse_suite, plugins
from dms_bench.config.recipe import Recipe
from dms_bench.config.task import TaskSpec
from dms_bench.errors import UserError
from dms_bench.scaling import count
from dms_bench.trial.gpu_days import gpu_days
from dms_bench.trial.plan import plan, total_days, total_macs

#: MACs and parameters of one linear layer of 10 by 10.
MACS, PARAMS = 100, 110
SAMPLES = 7


class TaughtRecipe(Recipe):
    taught: bool = False

    def needs_teacher(self):
        return self.taught


class LinearSpec(TaskSpec):
    recipe_class: ClassVar[type[Recipe]] = TaughtRecipe
    metric: ClassVar[str] = "top1"

    kind: Literal["linear"] = "linear"

    def load_implementation(self):
        return Linear


class Linear:
    built = 0

    def __init__(self, spec, seed):
        pass

    def build(self, supernet):
        if supernet.model != "linear":
            raise UserError(f"supernet.model {supernet.model!r} is unknown")
        type(self).built += 1
        return nn.Linear(10, supernet.args.get("out", 10))

    def example_input(self, batch=2):
        return torch.zeros(batch, 10)

    def check_recipe(self, recipe):
        if recipe.epochs > 100:
            raise UserError("epochs: more than a hundred")

    def train_samples(self):
        return SAMPLES

    def unused(self, *_):
        pytest.fail("a plan trains and reads nothing")

    prepare = initialise = fit = losses = recalibrate = evaluate = export = unused


@pytest.fixture
def planned(monkeypatch):
    """Plan an experiment with these fields beside the ordinary ones."""
    known = {plugins.TASKS: {"linear": LinearSpec}, plugins.METHODS: plugins.registered(plugins.METHODS)}
    monkeypatch.setattr(plugins, "registered", known.__getitem__)
    monkeypatch.setattr(Linear, "built", 0)

    def planned(**fields):
        experiment = {
            "name": "lines",
            "task": "linear",
            "supernet": {"model": "linear"},
            "budget": {"kind": "macs", "target": "30%"},
            "method": "dms",
            "search": {"epochs": 2},
            "retrain": {"epochs": 10},
        }
        return plan(parse_suite({"name": "suite", "experiments": [experiment | fields]}))

    return planned


def test_a_task_that_lacks_functions_is_refused_in_a_line(planned, monkeypatch):
    for name in ("train_samples", "export"):
        monkeypatch.delattr(Linear, name)
    with pytest.raises(UserError) as refused:
        planned()
    assert (
        str(refused.value)
        == f"experiment 'lines': task 'linear': its class {__name__}.Linear lacks train_samples() and export()"
    )


def test_a_network_without_macs_is_refused(planned, monkeypatch):
    monkeypatch.setattr(Linear, "build", lambda self, supernet: nn.Identity())
    with pytest.raises(UserError, match=r"^experiment 'lines': supernet.model 'linear' has no MACs to search$"):
        planned()


def test_networks_are_refused_by_their_fields(planned):
    with pytest.raises(UserError) as refused:
        planned(supernet={"model": "curve"}, method={"kind": "designed", "model": "bend"})
    assert str(refused.value).splitlines() == [
        "experiment 'lines': method.model 'bend' is unknown",
        "experiment 'lines': supernet.model 'curve' is unknown",
    ]


def stages(trial):
    return {stage.stage: stage.training_macs for stage in trial.stages}


def test_a_stage_is_three_forward_passes_of_every_sample_and_epoch(planned):
    (trial,) = planned()
    assert stages(trial) == pytest.approx({"search": 3 * MACS * SAMPLES * 2, "retrain": 3 * MACS * 0.3 * SAMPLES * 10})
    assert trial.training_macs == pytest.approx(sum(stages(trial).values()))
    assert (trial.experiment, trial.method, trial.budget, trial.pipeline) == ("lines", "dms", "macs 30%", "DMSnp")


@pytest.mark.parametrize(
    ("budget", "share"),
    [
        ({"kind": "macs", "target": 50}, 0.5),
        ({"kind": "params", "target": 55}, 0.5),
        ({"kind": "params", "target": "20%"}, 0.2),
    ],
)
def test_the_target_of_every_budget(planned, budget, share):
    (trial,) = planned(method="random", budget=budget)
    assert stages(trial) == pytest.approx({"retrain": 3 * MACS * share * SAMPLES * 10})


def test_more_than_the_supernet_is_refused(planned):
    message = r"^experiment 'lines': budget params 111 is more than the whole linear, which has 110 params$"
    with pytest.raises(UserError, match=message):
        planned(budget={"kind": "params", "target": PARAMS + 1})


def test_recipes_that_the_task_cannot_use_are_refused_beside_all_else(planned):
    with pytest.raises(UserError) as refused:
        planned(search={"epochs": 101}, retrain={"epochs": 102}, budget={"kind": "params", "target": PARAMS + 1})
    assert str(refused.value).splitlines() == [
        "experiment 'lines': search: epochs: more than a hundred",
        "experiment 'lines': retrain: epochs: more than a hundred",
        "experiment 'lines': budget params 111 is more than the whole linear, which has 110 params",
    ]


def test_data_that_are_not_there_are_one_line_and_no_fault_of_the_recipes(planned, monkeypatch):
    def nothing(self):
        raise UserError("data 'lines': no such folder")

    monkeypatch.setattr(Linear, "train_samples", nothing)
    with pytest.raises(UserError) as refused:
        planned(sweep={"grid": {"seed": [0, 1]}})
    assert str(refused.value) == "experiment 'lines': data 'lines': no such folder"


def test_shared_pretraining_is_counted_once(planned):
    trials = planned(
        pipeline="DMSp", pretrain={"epochs": 100}, sweep={"grid": {"method": ["dms", "random"], "seed": [0, 1]}}
    )
    pretraining = 3 * MACS * SAMPLES * 100
    assert [stages(trial)["pretrain"] for trial in trials] == [pretraining] * 4
    alone = sum(trial.training_macs for trial in trials) - 4 * pretraining
    assert total_macs(trials) == pytest.approx(alone + 2 * pretraining), "once for each seed"


def test_the_search_only_pipeline_retrains_nothing(planned):
    (trial,) = planned(pipeline="DMSp-", pretrain={"epochs": 5})
    assert list(stages(trial)) == ["pretrain", "search"]


def test_a_teacher_passes_every_sample_forward(planned):
    retrain = {"epochs": 10, "taught": True}
    (trial,) = planned(retrain=retrain, pretrain={"epochs": 5})
    (alone,) = planned()
    stage, untaught = trial.stages[-1], alone.stages[-1]
    assert stages(trial)["retrain"] == pytest.approx((3 * MACS * 0.3 + MACS) * SAMPLES * 10)
    assert stage.gpu_days - untaught.gpu_days == pytest.approx(gpu_days(10 / 3 * SAMPLES * 10), rel=1e-9, abs=0)
    assert stages(trial)["search"] == stages(alone)["search"], "nobody teaches there"


def test_samples_are_planned_by_their_first(planned):
    sample = {"samples": 8, "space": {"retrain.epochs": [4, 9], "method.temperature": {"low": 1, "high": 2}}}
    trials = planned(sweep={"grid": {"seed": [0, 1]}, "sample": sample})
    assert [(trial.seed, trial.count, trial.hash) for trial in trials] == [(0, 8, None), (1, 8, None)]
    one = 3 * MACS * SAMPLES * (2 + 0.3 * 4)
    assert total_macs(trials) == pytest.approx(sum(trial.training_macs for trial in trials))
    assert total_macs(trials) == pytest.approx(2 * 8 * one)


def test_a_supernet_is_built_once(planned):
    assert len(planned(sweep={"grid": {"seed": list(range(20))}})) == 20
    assert Linear.built == 1


@pytest.mark.parametrize(
    ("budget", "share"),
    [
        ({"kind": "latency", "target": "60%"}, 0.6),
        ({"kind": "latency", "target": "3ms"}, 1.0),
        ({"kind": "all", "of": [{"kind": "macs", "target": "50%"}, {"kind": "params", "target": PARAMS * 0.2}]}, 0.2),
    ],
)
def test_a_retraining_shrinks_with_the_tightest_known_constraint(planned, budget, share):
    (trial,) = planned(budget=budget)
    assert stages(trial)["retrain"] == pytest.approx(3 * MACS * share * SAMPLES * 10)


def test_a_network_that_the_method_brings_is_planned_at_its_own_size(planned):
    method = {"kind": "designed", "model": "linear", "args": {"out": 4}}
    (trial,) = planned(method=method, pipeline="DMSp", pretrain={"epochs": 5})
    own = 0.4 * MACS
    assert stages(trial) == pytest.approx({"pretrain": 3 * own * SAMPLES * 5, "retrain": 3 * own * SAMPLES * 10})
    assert (trial.method, trial.budget) == ("designed linear out=4", "macs 30%")


def test_days_follow_activations(planned):
    """The linear layer writes 10 numbers for a sample; widths, and so activations, fall with the root of the MACs."""
    (trial,) = planned()
    unit = 2.5 / (6_748_036 * 1_281_167 * 100)
    assert {stage.stage: stage.gpu_days for stage in trial.stages} == pytest.approx(
        {"search": unit * 10 * SAMPLES * 2, "retrain": unit * 10 * 0.3**0.5 * SAMPLES * 10}, rel=1e-9, abs=0
    )


def test_days_of_shared_stages_are_counted_once(planned):
    trials = planned(
        pipeline="DMSp", pretrain={"epochs": 100}, sweep={"grid": {"method": ["dms", "random"], "seed": [0, 1]}}
    )
    one = next(stage for stage in trials[0].stages if stage.stage == "pretrain").gpu_days
    assert total_days(trials)["pretrain"] == pytest.approx(2 * one, rel=1e-9, abs=0)


#: What the paper's table 4 prints for a search of 30 epochs, in days.
SEARCHES = [("efficientnet_b4", 224, 3.2), ("efficientnet_b7", 256, 5.8), ("efficientnet_b7", 288, 7.0)]


@pytest.mark.parametrize(("model", "size", "printed"), SEARCHES)
def test_the_paper_s_own_costs_within_a_factor_of_two(model, size, printed):
    import timm

    found = count(timm.create_model(model), torch.zeros(1, 3, size, size))
    days = gpu_days(found.activations * 1_281_167 * 30)
    assert printed / 2 < days < 2 * printed


def test_the_figure_that_days_rest_on_is_met():
    import timm

    found = count(timm.create_model("efficientnet_b0"), torch.zeros(2, 3, 224, 224))
    assert gpu_days(found.activations * 1_281_167 * 100) == pytest.approx(2.5)
