import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.training.optimizers import build_optimizer, build_scheduler, parameter_groups
from tests.parts import part_of

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
        build_optimizer(classifier, part_of("optimizer", "adam", **RATES))


@pytest.mark.parametrize(
    ("name", "options", "values"),
    [
        ("adam", {"eps": 1e-6}, {"eps": 1e-6}),
        ("adamw", {}, {}),
        ("sgd", {}, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_each_optimizer_gets_its_options(tiny, name, options, values):
    optimizer = build_optimizer(tiny.make_classifier(), part_of("optimizer", name, **options, **RATES))
    assert type(optimizer).__name__.lower() == name
    assert all(group[key] == value for group in optimizer.param_groups for key, value in values.items())


def test_sgd_without_momentum_steps_against_the_gradient_at_both_rates(tiny):
    classifier = tiny.make_classifier()
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    for parameter in classifier.parameters():
        parameter.grad = torch.ones_like(parameter)
    plain = part_of("optimizer", "sgd", momentum=0.0, nesterov=False, **RATES) | {"weight_decay": 0.0}
    build_optimizer(classifier, plain).step()
    for name, parameter in classifier.named_parameters():
        rate = 1e-3 if name.startswith("backbone.") else 1e-2
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, rate), atol=1e-6, rtol=1e-3)


def test_any_optimizer_and_scheduler_of_torch_will_do(tiny):
    rates = {"lr_backbone": 1e-3, "lr_head": 1e-2}
    optimizer = build_optimizer(tiny.make_classifier(), {"_target_": "torch.optim.RMSprop", "alpha": 0.95, **rates})
    assert all(group["alpha"] == 0.95 and group["weight_decay"] == 0 for group in optimizer.param_groups)
    part = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.1, "interval": "step"}
    built = build_scheduler(optimizer, part, total_steps=30, epochs=10)
    assert (built["interval"], built["scheduler"].total_steps) == ("step", 30)
    assert (
        build_scheduler(optimizer, {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 8}, 30, 10)["interval"]
        == "epoch"
    )
    with pytest.raises(LemlightError, match=r"optimizer: torch.optim.RMSprop failed in its constructor.*alpha"):
        build_optimizer(tiny.make_classifier(), {"_target_": "torch.optim.RMSprop", "alpha": -1.0, **rates})
