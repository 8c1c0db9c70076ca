import contextlib
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_bench.config import InvalidSpecError, Suite, load_suite, parse_suite, resolve
from dms_bench.config.merge import merged
from dms_bench.errors import UserError

SWEEP = {"grid": {"method": ["dms", "random"], "seed": [0, 1]}}


def problems(document, **options):
    with pytest.raises(InvalidSpecError) as caught:
        parse_suite(document, **options)
    return str(caught.value).splitlines()


def put(document, path, value):
    *parents, last = path
    for parent in parents:
        document = document[parent]
    document[last] = value


TOYS = ("experiments", 0)

GOLDEN = [
    (("nmae",), 1, "nmae: unknown field; did you mean 'name'?"),
    (("name",), "../up", "name: '../up' is no name: letters, digits, '_', '.' and '-', at most 64"),
    (("name",), False, "name: false is not text (quote it)"),
    (("experiments",), [], "experiments: must not be empty"),
    (("experiments",), "x", "experiments: 'x' is not a list"),
    ((*TOYS,), 3, "experiments[0]: 3 is not a mapping"),
    ((*TOYS, "retrian"), {}, "experiments[0].retrian: unknown field; did you mean 'retrain'?"),
    ((*TOYS, "retrain"), None, "experiments[0]: pipeline 'DMSnp' retrains what it found: give a 'retrain' recipe"),
    ((*TOYS, "retrain", "epochs"), "ten", "experiments[0].retrain.epochs: 'ten' is not a whole number"),
    ((*TOYS, "retrain", "epochs"), 1.5, "experiments[0].retrain.epochs: 1.5 is not a whole number"),
    ((*TOYS, "retrain", "epochs"), 0, "experiments[0].retrain.epochs: 0 must be at least 1"),
    ((*TOYS, "retrain", "epochs"), True, "experiments[0].retrain.epochs: true is not a number"),
    ((*TOYS, "retrain", "lr"), float("nan"), "experiments[0].retrain.lr: nan is not a finite number"),
    ((*TOYS, "retrain", "lr"), 0, "experiments[0].retrain.lr: 0 must be above 0"),
    ((*TOYS, "retrain", "amp"), "perhaps", "experiments[0].retrain.amp: 'perhaps' is not true or false"),
    ((*TOYS, "retrain"), {"epoch": 3}, "experiments[0].retrain.epoch: unknown field; did you mean 'epochs'?"),
    ((*TOYS, "retrain"), {"lr": 1}, "experiments[0].retrain.epochs: missing"),
    ((*TOYS, "task"), "tyo", "experiments[0].task: unknown task 'tyo'; did you mean 'toy'?"),
    ((*TOYS, "task", "kind"), ["toy"], "experiments[0].task: unknown task ['toy']; did you mean 'toy'?"),
    ((*TOYS, "task"), {"data": {}}, "experiments[0].task: needs the field 'kind'"),
    (
        (*TOYS, "method"),
        ["dms", "random"],
        "experiments[0].method: ['dms', 'random'] is a list; several are swept over, in sweep.grid.method",
    ),
    (
        (*TOYS, "method"),
        3,
        "experiments[0].method: 3 is neither the name of a method nor a mapping with the field 'kind'",
    ),
    (
        (*TOYS, "task", "data", "name"),
        "dot",
        "experiments[0].task.data.name: 'dot' is not a choice; did you mean 'dots'?",
    ),
    ((*TOYS, "task", "data", "train"), [], "experiments[0].task.data.train: [] is not a whole number"),
    (
        (*TOYS, "budget", "target"),
        "30 %%",
        "experiments[0].budget.target: '30 %%' is not a percentage; write for example 30%",
    ),
    (
        (*TOYS, "budget", "target"),
        "101%",
        "experiments[0].budget.target: '101%' is more than the whole supernet; write at most 100%",
    ),
    (
        (*TOYS, "budget", "kind"),
        "flops",
        "experiments[0].budget.kind: 'flops' is not a choice; choose from 'all', 'latency', 'macs', 'memory', 'params'",
    ),
    ((*TOYS, "budget"), {"target": 1}, "experiments[0].budget: needs the field 'kind'"),
    (
        (*TOYS, "pipeline"),
        "DMSPnp",
        "experiments[0].pipeline: 'DMSPnp' is not a choice; did you mean 'DMSnp' or 'DMSp'?",
    ),
    (
        (*TOYS, "pipeline"),
        "DMSp",
        "experiments[0]: pipeline 'DMSp' starts from a trained supernet: give a 'pretrain' recipe, "
        "'supernet.checkpoint' or 'supernet.pretrained'",
    ),
    (
        (*TOYS, "supernet"),
        {"model": "net", "pretrained": True},
        "experiments[0]: pipeline 'DMSnp' starts from random weights, and would not read the supernet's: leave "
        "'supernet.pretrained' and 'supernet.checkpoint' out, or take DMSp or DMSp-",
    ),
    (("storage",), "a\0b", "storage: 'a\\x00b' is no path of a folder"),
    (("storage",), "~nobody-of-that-name/x", "storage: '~nobody-of-that-name/x': Could not determine home directory."),
    (
        (*TOYS, "method"),
        {"kind": "dms", "lr": 1},
        "experiments[0].method.lr: unknown field; choose from 'block_importance', 'budget',",
    ),
    ((*TOYS, "seed"), -1, "experiments[0].seed: -1 must be at least 0"),
    ((*TOYS, "resources"), {"cpus": 0}, "experiments[0].resources.cpus: 0 must be above 0"),
    (
        (*TOYS, "resources"),
        {"workers": 2, "gpus": 0.5},
        "experiments[0].resources: gpus 0.5 is a fraction, which needs workers: 1 (NCCL cannot share a device)",
    ),
    ((*TOYS, "supernet"), {"args": {}}, "experiments[0].supernet.model: missing"),
    ((*TOYS, "sweep"), {"gird": {}}, "experiments[0].sweep.gird: unknown field; did you mean 'grid'?"),
    ((*TOYS, "sweep"), {"grid": {"seed": []}}, "experiments[0].sweep.grid.seed: must not be empty"),
    ((*TOYS, "sweep"), {"grid": {"seed": 3}}, "experiments[0].sweep.grid.seed: 3 is not a list"),
    (
        (*TOYS, "sweep"),
        {"grid": {"sede": [3]}},
        "experiments[0].sweep.grid.sede: no field of a trial; did you mean 'seed'?",
    ),
    (
        (*TOYS, "sweep"),
        {"grid": {"resources.cpus": [1, 2]}},
        "experiments[0].sweep.grid.resources.cpus: decides where a trial runs, not what it computes: not to be swept",
    ),
    (
        (*TOYS, "sweep"),
        {"grid": {"seed": list(range(1000)), "retrain.lr": list(range(1, 1001))}},
        "experiments[0].sweep.grid: 1000000 combinations; at most 20000 are run",
    ),
    (
        (*TOYS, "sweep"),
        {"grid": {"method": ["dms", "random"]}, "sample": {"samples": 10_001, "space": {"seed": [0, 1]}}},
        "experiments[0].sweep.sample.samples: 10001 samples of each of 2 combinations; at most 20000 trials are run",
    ),
    (
        (*TOYS, "sweep"),
        {"grid": {"supernet.args.width.0": [3]}},
        "experiments[0].sweep.grid.supernet.args.width.0[0]: supernet.args.width is [8, 8], which has no fields",
    ),
    (("defaults",), [], "defaults: [] is not a mapping"),
    (("smoke",), 3, "smoke: 3 is not a mapping"),
    (("defaults",), {"sweep": {"gird": {}}}, "defaults.sweep.gird: unknown field; did you mean 'grid'?"),
    (("defaults",), {"retrain": {"lr": "x"}}, "defaults.retrain.lr: 'x' is not a number"),
    (("defaults",), {"pretrain": {"lr": 1}}, "defaults.pretrain.epochs: missing"),
]


@pytest.mark.parametrize(("path", "value", "line"), GOLDEN, ids=[line for _, _, line in GOLDEN])
def test_one_mistake_is_one_line(document, path, value, line):
    put(document, path, value)
    (found,) = problems(document)
    assert found.startswith(line.rstrip("?")) if "; " in line else found == line


def test_every_problem_has_a_line(document, experiment):
    experiment["retrain"] = {"epochs": "ten", "lrr": 1}
    experiment["seed"] = "x"
    assert sorted(problems(document)) == [
        "experiments[0].retrain.epochs: 'ten' is not a whole number",
        "experiments[0].retrain.lrr: unknown field; did you mean 'lr'?",
        "experiments[0].seed: 'x' is not a whole number",
    ]


def test_a_mistake_in_the_suite_hides_none_in_its_experiments(document, experiment):
    document["experiments"] = [
        {"name": "bad name", "seed": "x"},
        experiment | {"name": "misspelt", "budgte": 1, "seed": "y"},
        experiment | {"name": "other", "seed": "z"},
        {"name": "bare"},
    ]
    del document["experiments"][1]["budget"]
    document |= {"resources": {"cpus": 0}, "stroage": "runs"}
    assert sorted(problems(document)) == [
        "experiments[0].name: 'bad name' is no name: letters, digits, '_', '.' and '-', at most 64",
        "experiments[0].seed: 'x' is not a whole number",
        "experiments[1].budgte: unknown field; did you mean 'budget'?",
        "experiments[1].seed: 'y' is not a whole number",
        "experiments[2].seed: 'z' is not a whole number",
        *(f"experiments[3].{field}: missing" for field in ("budget", "method", "supernet", "task")),
        "resources.cpus: 0 must be above 0",
        "stroage: unknown field; did you mean 'storage' or 'tracking' or 'smoke'?",
    ]


def test_recipes_are_not_blamed_for_an_unknown_task(document, experiment):
    experiment["retrain"]["lr"] = 0.1
    experiment["task"] = "tyo"
    assert problems(document) == ["experiments[0].task: unknown task 'tyo'; did you mean 'toy'?"]


def test_an_unknown_task_hides_nothing_that_recipes_of_all_tasks_have(document, experiment):
    experiment["task"] = "tyo"
    experiment["search"] = 3
    experiment["retrain"] |= {"lr": 0.1, "epochs": 0}
    assert problems(document) == [
        "experiments[0].task: unknown task 'tyo'; did you mean 'toy'?",
        "experiments[0].search: 3 is not a mapping",
        "experiments[0].retrain.epochs: 0 must be at least 1",
    ]


def test_two_experiments_of_one_name(document, experiment):
    document["experiments"].append(experiment)
    assert problems(document) == ["experiments: two experiments have the name 'toys'"]
    document["experiments"].append(experiment | {"seed": "x"})
    assert problems(document) == [
        "experiments: two experiments have the name 'toys'",
        "experiments[2].seed: 'x' is not a whole number",
    ]


def test_a_misspelt_sweep_hides_nothing_else_of_its_experiment(document, experiment):
    method = experiment.pop("method")
    experiment["sweep"] = {"grid": {"metod": [method], "seed": [0, "x"]}}
    experiment["retrain"]["epochs"] = 0
    assert sorted(problems(document)) == [
        "experiments[0].retrain.epochs: 0 must be at least 1",
        "experiments[0].sweep.grid.metod: no field of a trial; did you mean 'method'?",
        "experiments[0].sweep.grid.seed[1]: 'x' is not a whole number",
    ]


def test_a_mistake_in_the_defaults_is_said_once(document, experiment):
    document["experiments"].append(experiment | {"name": "more"})
    document["defaults"] = {"retrain": {"lr": -1}}
    assert problems(document) == ["defaults.retrain.lr: -1 must be above 0"]


@pytest.mark.parametrize(
    ("sweep", "line"),
    [
        ({"method": ["dms", "randon"]}, "method[1]: unknown method 'randon'; did you mean 'random'?"),
        ({"budget": [{"kind": "macs", "target": "x"}]}, "budget[0].target: 'x' is not an amount"),
        ({"seed": [0, 1, -1]}, "seed[2]: -1 must be at least 0"),
        ({"seed": [0, 1, True]}, "seed[2]: true is not a number"),
        (
            {"method.temperature": [1, 2], "method": ["dms", "random"], "seed": [0, 1]},
            "method.temperature: unknown field; choose from 'kind' (with method='random')",
        ),
        ({"method.temperature": [1, 0]}, "method.temperature[1]: 0 must be above 0"),
        ({"retrain.epochs": ["x", 1], "seed": [0, 1]}, "retrain.epochs[0]: 'x' is not a whole number"),
    ],
)
def test_a_mistake_in_a_sweep_names_the_value(document, experiment, sweep, line):
    experiment["sweep"] = {"grid": sweep}
    (found,) = problems(document)
    assert found.startswith("experiments[0].sweep.grid." + line)


def test_a_combination_that_does_not_work_is_named(document, experiment):
    del experiment["search"]
    experiment["sweep"] = {"grid": {"method": ["random", "dms"], "seed": [0, 1]}}
    assert problems(document) == [
        "experiments[0]: method 'dms' trains during its search: give a 'search' recipe (with method='dms')"
    ]


def test_sample_spaces_are_checked(document, experiment):
    space = {
        "method.temperature": {"low": 0.5, "high": 2},
        "retrain.epochs": [5, "x"],
        "retrain.lr": {"low": 0, "high": 1},
    }
    experiment["sweep"] = {"grid": {"seed": [0, 1]}, "sample": {"samples": 3, "space": space}}
    assert problems(document) == [
        "experiments[0].sweep.sample.space.retrain.lr.low: 0 must be above 0",
        "experiments[0].sweep.sample.space.retrain.epochs[1]: 'x' is not a whole number",
    ]


@pytest.mark.parametrize(
    ("drawn", "line"),
    [
        ({"low": 2, "high": 1}, "low 2 must be below high 1"),
        ({"low": 0, "high": 1, "log": True}, "low 0 must be above 0 on a logarithmic scale"),
        (3, "3 is not a mapping"),
        ([], "must not be empty"),
    ],
)
def test_ranges_are_checked(document, experiment, drawn, line):
    experiment["sweep"] = {"sample": {"samples": 3, "space": {"retrain.lr": drawn}}}
    assert problems(document) == [f"experiments[0].sweep.sample.space.retrain.lr: {line}"]


def test_a_field_is_swept_once(document, experiment):
    experiment["sweep"] = {"grid": {"seed": [0]}, "sample": {"samples": 3, "space": {"seed": [1]}}}
    assert problems(document) == ["experiments[0].sweep.sample.space.seed: is in the grid already"]


def test_defaults_are_laid_under_and_smoke_over(document, experiment):
    document["defaults"] = {"retrain": {"epochs": 99, "lr": 0.5}, "seed": 7}
    document["smoke"] = {"retrain": {"epochs": 1}, "sweep": {"grid": {"seed": [0]}}}
    experiment["sweep"] = SWEEP
    full, smoke = parse_suite(document), parse_suite(document, smoke=True)
    assert (full.name, smoke.name) == ("suite", "suite-smoke")
    assert [(trial.retrain.epochs, trial.retrain.lr, trial.seed) for trial in resolve(full)] == [
        (10, 0.5, seed) for seed in (0, 1, 0, 1)
    ]
    assert [(trial.retrain.epochs, trial.retrain.lr, trial.seed) for trial in resolve(smoke)] == [(1, 0.5, 0)] * 2


def test_problems_of_the_smoke_variant(document):
    assert problems(document, smoke=True) == ["smoke: missing; it says what a smoke run changes in every experiment"]
    document["smoke"] = {"retrain": {"epochs": 0}}
    assert problems(document, smoke=True) == ["smoke.retrain.epochs: 0 must be at least 1"]
    parse_suite(document)


def test_a_profile_is_laid_over_the_file(document, experiment):
    document["defaults"] = {"retrain": {"epochs": 99, "lr": 0.5}}
    document["smoke"] = {"retrain": {"epochs": 1}}
    experiment["retrain"] = {"epochs": 3}
    other = dict(experiment, name="other", retrain={"epochs": 5})
    document["profiles"] = {"full": {"defaults": {"retrain": {"lr": 0.25}}, "experiments": [other]}}

    def recipes(**options):
        suite = parse_suite(document, **options)
        return suite.name, [(trial.experiment, trial.retrain.epochs, trial.retrain.lr) for trial in resolve(suite)]

    assert recipes() == ("suite", [("toys", 3, 0.5)])
    assert recipes(profile="full") == ("suite-full", [("other", 5, 0.25)])
    assert recipes(profile="full", smoke=True) == ("suite-full-smoke", [("other", 1, 0.25)])


def test_what_a_profiles_own_experiment_lacks_is_not_blamed_on_the_files(document, tmp_path):
    document["profiles"] = {"full": {"experiments": [{"name": "big", "method": "half"}]}}
    lacking = problems(document, profile="full")
    assert lacking
    assert all(line.startswith("profiles.full.experiments[0].") for line in lacking), lacking


def test_a_mistake_hides_none_of_the_others(document, tmp_path):
    """In the task, the smoke variant, each profile; what several variants share is said once."""
    document["experiments"][0]["task"]["data"]["trian"] = 3
    document["experiments"][0]["retrain"]["amq"] = True
    document["smoke"] = {"retrain": {"epochs": "few"}}
    document["profiles"] = {
        "large": {"defaults": {"retrain": {"lrr": 1}}, "smoke": {"seed": -1}},
        "huge": {"experiments": [{"name": "huge", "method": "dmss"}]},
    }
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(UserError) as caught:
        load_suite(path)
    assert [line.partition("suite.yaml: ")[2] for line in str(caught.value).splitlines()] == [
        "experiments[0] (toys).task.data.trian: unknown field; did you mean 'train'?",
        "experiments[0] (toys).retrain.amq: unknown field; did you mean 'amp'?",
        "smoke.retrain.epochs: 'few' is not a whole number",
        "profiles.large.defaults.retrain.lrr: unknown field; did you mean 'lr'?",
        "profiles.large.smoke.seed: -1 must be at least 0",
        "profiles.huge.experiments[0].task: missing",
        "profiles.huge.experiments[0].supernet: missing",
        "profiles.huge.experiments[0].budget: missing",
        "profiles.huge.experiments[0].method: unknown method 'dmss'; did you mean 'dms'?",
    ]
    document["profiles"] = {"large": 3, "a b": {}, "smoke": {}, "big-smoke": {}}
    document["defaults"] = {"name": "all"}
    del document["smoke"], document["experiments"][0]["retrain"]["amq"]
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(UserError) as caught:
        load_suite(path)
    assert [line.partition("suite.yaml: ")[2] for line in str(caught.value).splitlines()] == [
        "profiles.large: 3 is not a mapping",
        "profiles.a b: 'a b' is no name: letters, digits, '_', '.' and '-', at most 64",
        "profiles.smoke: names of profiles do not end in 'smoke', as smoke variants' do",
        "profiles.big-smoke: names of profiles do not end in 'smoke', as smoke variants' do",
        "defaults.name: is each experiment's own, and not to be set",
        "experiments[0] (toys).task.data.trian: unknown field; did you mean 'train'?",
    ]


def test_what_is_wrong_in_a_variant_alone_names_it(document, tmp_path):
    document["smoke"] = {"pipeline": "DMSp"}
    document["profiles"] = {"large": {"defaults": {"seed": 1}}, "frozen": {"smoke": {"pipeline": "DMSp-"}}}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(UserError) as caught:
        load_suite(path)
    lines = [line.partition("suite.yaml: ")[2] for line in str(caught.value).splitlines()]
    why = "starts from a trained supernet: give a 'pretrain' recipe, 'supernet.checkpoint' or 'supernet.pretrained'"
    assert lines == [
        f"experiments[0] (toys): pipeline 'DMSp' {why} (in the smoke variant)",
        f"experiments[0] (toys): pipeline 'DMSp-' {why} (in the smoke variant of profile 'frozen')",
    ]


def test_problems_of_a_profile_name_the_place_in_the_file(document, tmp_path):
    assert problems(document, profile="full") == ["profiles: no profile 'full'; the suite has none"]
    document["profiles"] = {"full": {"defaults": {"retrain": {"epochs": 0}}}}
    del document["experiments"][0]["retrain"]["epochs"]
    assert problems(document, profile="ful") == ["profiles: no profile 'ful'; did you mean 'full'?"]
    wrong = "profiles.full.defaults.retrain.epochs: 0 must be at least 1"
    assert problems(document, profile="full") == [wrong]
    document["experiments"][0]["retrain"]["epochs"] = 1
    document["profiles"]["full"] = {"defaults": {"retrain": {"lr": -1}}}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(UserError, match=r"profiles.full.defaults.retrain.lr: -1 must be"):  # though nobody asked for it
        load_suite(path)
    document["profiles"]["full"]["defaults"] = {"retrain": {"lr": 1}}
    document["experiments"][0]["seed"] = -1  # not the profile's mistake
    assert problems(document, profile="full")[0].startswith("experiments[0].seed: -1")


@pytest.mark.parametrize(
    ("profiles", "line"),
    [
        (3, "profiles: 3 is not a mapping"),
        ({"full": []}, "profiles.full: [] is not a mapping"),
        ({1: {}}, "profiles: 1 is not a name"),
        ({"full": {}, "FULL": {}}, "profiles.full: differs from 'FULL' in capitals alone, as folders may not"),
        ({"full": {"name": "x"}}, "profiles.full.name: is the suite's name with the profile's, and not to be set"),
        ({"full": {"experiments": []}}, "profiles.full.experiments: must not be empty"),
    ],
)
def test_profiles_are_partial_suites(document, profiles, line):
    document["profiles"] = profiles
    assert problems(document, profile="full") == [line]


def test_another_thing_does_not_inherit():
    under = {"supernet": {"model": "a", "args": {"width": 3}}, "method": {"kind": "dms", "temperature": 2}, "x": [1]}
    over = {"supernet": {"model": "b"}, "method": {"kind": "random"}, "x": [2]}
    assert merged(under, over) == over
    assert merged(under, {"supernet": {"args": {"depth": 2}}})["supernet"] == {
        "model": "a",
        "args": {"width": 3, "depth": 2},
    }


def test_a_file_gives_what_its_content_gives(tmp_path, document):
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(document))
    assert load_suite(path) == parse_suite(document)
    path.write_text(yaml.safe_dump(document | {"nmae": 1, "storge": 2}))
    with pytest.raises(UserError) as caught:
        load_suite(path)
    assert str(caught.value).splitlines() == [
        f"{path}: nmae: unknown field; did you mean 'name' or 'compare'?",
        f"{path}: storge: unknown field; did you mean 'storage' or 'smoke'?",
    ]


@pytest.mark.parametrize(("text", "line"), [("", "is empty"), ("- a", "['a'] is not a mapping"), ("x", "'x' is not")])
def test_files_that_hold_no_suite(tmp_path, text, line):
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_suite(path)
    assert line in str(caught.value)


def test_a_problem_of_a_file_names_the_experiment(tmp_path, document, experiment):
    document["experiments"] = [experiment | {"seed": "x"}, {"name": 3}, 4]
    path = tmp_path / "suite.yaml"
    path.write_text(json.dumps(document))
    with pytest.raises(UserError) as caught:
        load_suite(path)
    lines = str(caught.value).splitlines()
    assert f"{path}: experiments[0] (toys).seed: 'x' is not a whole number" in lines
    assert f"{path}: experiments[1].name: 3 is not text (quote it)" in lines
    assert f"{path}: experiments[2]: 4 is not a mapping" in lines


def test_a_suite_survives_json(document, experiment):
    experiment["sweep"] = SWEEP
    suite = parse_suite(document)
    again = Suite.model_validate(json.loads(suite.model_dump_json(exclude_unset=True)))
    assert [trial.hash for trial in resolve(again)] == [trial.hash for trial in resolve(suite)]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["dms", "toy", "30%", 1e308]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [path for path, _, _ in GOLDEN] + [
    ("description",), ("resources",), (*TOYS, "search"), (*TOYS, "budget"), (*TOYS, "method"), (*TOYS, "supernet"),
    (*TOYS, "supernet", "args"), (*TOYS, "supernet", "space"), (*TOYS, "task"), (*TOYS, "task", "data"),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=2))
def test_any_content_is_a_suite_or_refused(changes):
    document = {
        "name": "suite",
        "experiments": [
            {
                "name": "toys",
                "task": {"kind": "toy", "data": {"name": "dots"}},
                "supernet": {"model": "net"},
                "budget": {"kind": "macs", "target": "30%"},
                "method": "dms",
                "search": {"epochs": 2},
                "retrain": {"epochs": 10},
            }
        ],
    }
    for path, value in changes:
        try:
            put(document, path, value)
        except (TypeError, IndexError, KeyError):
            continue
    check_suite_or_refused(document)


FIELDS = st.sampled_from(
    ["seed", "method", "method.temperature", "budget", "retrain.lr", "supernet.args.x.y", "a", "", "."]
)
SWEEPS = st.fixed_dictionaries(
    {},
    optional={
        "grid": st.dictionaries(FIELDS, st.lists(VALUES, max_size=3) | VALUES, max_size=3),
        "sample": st.fixed_dictionaries(
            {"samples": st.integers(0, 3), "space": st.dictionaries(FIELDS, VALUES, max_size=3)}
        ),
    },
)


@settings(max_examples=200, deadline=None)
@given(sweep=SWEEPS)
def test_any_sweep_is_resolved_or_refused(sweep):
    experiment = {
        "name": "toys",
        "task": {"kind": "toy", "data": {"name": "dots"}},
        "supernet": {"model": "net"},
        "budget": {"kind": "macs", "target": "30%"},
        "method": "dms",
        "search": {"epochs": 2},
        "retrain": {"epochs": 10},
        "sweep": sweep,
    }
    check_suite_or_refused({"name": "suite", "experiments": [experiment]})


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_any_document_is_a_suite_or_refused(document):
    check_suite_or_refused(document)


def check_suite_or_refused(document):
    with contextlib.suppress(UserError):  # anything else is a traceback for a user's mistake
        for trial in resolve(parse_suite(document)):
            assert type(trial).model_validate_json(trial.model_dump_json()).hash == trial.hash
