import pytest
import torch
from torch import nn

from lemlight.errors import LemlightError
from lemlight.training.optimizers import build_optimizer, parameter_groups

RATES = {"lr_backbone": 1e-3, "lr_head": 1e-2, "weight_decay": 0.1}


def test_every_trainable_parameter_is_in_one_group_with_its_rate_and_decay(tiny):
    classifier = tiny.make_classifier(pooling="attention_mil")
    groups = parameter_groups(classifier, **RATES)
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(settings) == len(list(classifier.parameters()))
    for name, parameter in classifier.named_parameters():
        rate = 1e-3 if name.startswith("backbone.") else 1e-2
        assert settings[id(parameter)] == (rate, 0.1 if parameter.ndim > 1 else 0.0), name


def test_frozen_parameters_are_left_out_and_nothing_to_train_is_an_error(tiny):
    classifier = tiny.make_classifier()
    classifier.backbone.requires_grad_(False)
    assert {g["part"] for g in parameter_groups(classifier, **RATES)} == {"head"}
    classifier.requires_grad_(False)
    with pytest.raises(LemlightError, match="frozen"):
        build_optimizer(classifier, {"name": "adam", **RATES})


@pytest.mark.parametrize(
    ("options", "kind", "values"),
    [
        ({"name": "adam", "betas": [0.8, 0.9]}, torch.optim.Adam, {"betas": (0.8, 0.9)}),
        ({"name": "adamw"}, torch.optim.AdamW, {}),
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_each_optimizer_gets_its_options(tiny, options, kind, values):
    optimizer = build_optimizer(tiny.make_classifier(), options | RATES)
    assert type(optimizer) is kind
    assert all(group[key] == value for group in optimizer.param_groups for key, value in values.items())


def test_sgd_without_momentum_steps_against_the_gradient_at_both_rates(tiny):
    classifier = tiny.make_classifier()
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    for parameter in classifier.parameters():
        parameter.grad = torch.ones_like(parameter)
    build_optimizer(
        classifier, {"name": "sgd", "momentum": 0.0, "nesterov": False, **RATES, "weight_decay": 0.0}
    ).step()
    for name, parameter in classifier.named_parameters():
        rate = 1e-3 if name.startswith("backbone.") else 1e-2
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, rate), atol=1e-6, rtol=1e-3)


def test_an_unknown_name_is_refused():
    with pytest.raises(LemlightError, match="choose one of adam, adamw, sgd"):
        build_optimizer(nn.Linear(1, 1), {"name": "adagrad", **RATES})
