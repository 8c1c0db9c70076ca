"""Classifiers that are not timm's."""

import shutil

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.scaling import Supernet
from dms_bench_tasks.classification import model as models


def build(name, channels=3, size=32, classes=4, **fields):
    return models.build(SupernetSpec(model=name, **fields), classes, channels, size, seed=0)


@pytest.fixture
def vision(tmp_path):
    """A folder of transformers with a small vision transformer."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    network = ViTForImageClassification(ViTConfig(**sizes, image_size=64, patch_size=8, num_labels=7))
    network.save_pretrained(tmp_path / "vit")
    return tmp_path / "vit", network


class Own(nn.Module):
    """Takes its classes by timm's name; leaves it to the caller how wide it is."""

    def __init__(self, num_classes, width=8):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 3, stride=2), nn.Linear(width, num_classes)

    def forward(self, images):
        return self.head(functional.relu(self.stem(images)).mean((2, 3)))


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))


def talkative(num_classes):
    class Talkative(Own):
        def forward(self, images):
            scores = super().forward(images)
            return (scores, scores) if self.training else scores

    return Talkative(num_classes)


def pair():
    return plain(), plain()


OWN = f"{__name__}:"


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "vit_b_32", "mobilenet_v3_small"])
def test_torchvisions_classifiers_by_name(name):
    size = 96 if name == "googlenet" else 64
    model = build(f"torchvision:{name}", size=size)
    assert model.train()(torch.zeros(2, 3, size, size)).shape == (2, 4)


def test_a_folder_of_transformers_at_the_tasks_size(vision):
    folder, network = vision
    model = build(str(folder), channels=1, size=32)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    same = build(str(folder), size=64, classes=7, pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(same(images), network.eval()(images).logits)


def test_a_folder_of_transformers_takes_fields_of_its_configuration(vision):
    folder, _ = vision
    assert build(str(folder), args={"num_hidden_layers": 1}).network.config.num_hidden_layers == 1


def test_weights_of_transformers_are_drawn_by_its_rules(vision):
    folder, _ = vision
    model = build(str(folder))
    models.initialise(model, seed=3)
    weight = model.network.classifier.weight.detach().clone()
    assert 0.01 < float(weight.std()) < 0.03  # its initializer_range is 0.02; torch's own rule gives 0.14
    models.initialise(model, seed=3)
    assert torch.equal(model.network.classifier.weight, weight)


def test_a_network_of_ones_own_is_told_the_classes_where_it_asks():
    model = build(f"{OWN}Own", args={"width": 12})
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert model.stem.out_channels == 12
    assert build(f"{OWN}plain")(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


class Backboned(nn.Module):
    """A network of timm inside of one's own."""

    def __init__(self, num_classes):
        super().__init__()
        self.backbone = timm.create_model("resnet10t", num_classes=0)
        self.head = nn.Linear(512, num_classes)

    def forward(self, images):
        return self.head(self.backbone(images))

    def init_weights(self, module):
        """Meant for `apply`."""


def test_a_network_around_one_of_timm_is_taken_as_a_whole():
    model = build(f"{OWN}Backboned")
    assert models.network(model) is model
    models.initialise(model, seed=1)


def test_fields_that_a_configuration_lacks_are_refused(vision):
    folder, _ = vision
    with pytest.raises(UserError, match=r"num_hiden_layers is no field of .*did you mean 'num_hidden_layers'"):
        build(str(folder), args={"num_hiden_layers": 1})


def test_pretrained_weights_of_another_size_are_refused(vision):
    folder, _ = vision
    with pytest.raises(UserError, match="has another size: take its own image_size"):
        build(str(folder), size=32, pretrained=True)


def test_pretrained_weights_of_other_names_are_refused(vision, tmp_path):
    """transformers draws at random what it does not find."""
    from safetensors.torch import load_file, save_file

    folder, _ = vision
    shutil.copytree(folder, tmp_path / "renamed")
    path = tmp_path / "renamed" / "model.safetensors"
    weights = {name.replace("encoder.", "coder."): tensor for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"weights lack 'vit.*has unknown 'vit.coder.*renamed") as caught:
        build(str(tmp_path / "renamed"), size=64, classes=7, pretrained=True)
    assert "\n" not in str(caught.value)


def test_only_the_network_is_averaged_in_a_search():
    model = build(f"{OWN}Own")
    supernet = Supernet(model, torch.randn(1, 3, 32, 32))
    assert models.network(supernet) is model


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("torchvision:resnet81", {}, "torchvision has no classifier 'resnet81'; did you mean .*'resnet18'"),
        ("torchvision:resnet18", {"channels": 1}, "set task.channels to 3"),
        ("torchvision:resnet18", {"args": {"num_classes": 3}}, "num_classes is decided by data"),
        ("torchvision:resnet18", {"args": {"weights": "DEFAULT"}}, "weights is decided by supernet.pretrained"),
        ("torchvision:resnet18", {"args": {"widht": 3}}, "widht"),
        ("torchvision:resnet18", {"width": 2.0}, "families of timm alone"),
        (f"{OWN}Own", {"pretrained": True}, "load its weights in that function"),
        (f"{OWN}Own", {"args": {"widht": 3}}, "widht"),
        (f"{OWN}plain", {"size": 16}, "cannot take images of 3 x 16 x 16"),
        (f"{OWN}plain", {"classes": 5}, r"\[1, 5\] is expected, it returns \[1, 4\]"),
        (f"{OWN}talkative", {}, "returns more than its scores in training"),
        (f"{OWN}pair", {}, "returns a tuple, not a torch.nn.Module"),
        (f"{OWN}Own", {"code": "0123456789ab"}, "has changed since the trial was made"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name, fields, message):
    with pytest.raises(UserError, match=message) as caught:
        build(name, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["drop_path", "drop"])
def test_regularisation_that_has_no_place_is_refused(option):
    rates = {"drop": None, "drop_path": None, option: 0.1}
    with pytest.raises(UserError, match=f"leave {option} out"), models.regularised(build(f"{OWN}Own"), **rates):
        pass
