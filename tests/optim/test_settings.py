import inspect
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from projunn_lightning import ConfigError, Projector, ProjUNN
from projunn_lightning.functional import RETRACTIONS, SAMPLERS
from projunn_lightning.optim import ProjUNNSettings
from tests.support.toys import registered

BAD = [
    ({"rank": 0}, "rank must be a whole number of 1 or more, or 'full', found 0"),
    ({"rank": 1.5}, "rank must be a whole number or 'full', found 1.5"),
    ({"rank": "2"}, "rank must be a whole number or 'full', found '2'"),
    ({"rank": True}, "rank must be a whole number or 'full', found True"),
    ({"rank": None}, "rank must be a whole number or 'full', found None"),
    ({"retraction": "qr"}, "unknown retraction 'qr', expected one of exponential, polar, cayley"),
    ({"sampler": "qr"}, "unknown sampler 'qr', expected one of tangent, lsi, column, subspace, svd"),
    ({"lr_divider": "8"}, "lr_divider must be a number, found '8'"),
    ({"lr_divider": 0.0}, "lr_divider must be positive and finite, found 0.0"),
    ({"lr_divider": float("nan")}, "lr_divider must be positive and finite, found nan"),
    ({"tolerance": -1.0}, "tolerance must be positive and finite, found -1.0"),
    ({"rank": "ful"}, "rank must be a whole number or 'full', found 'ful'"),
    ({"feedback": 1.0}, "feedback must be in [0, 1), found 1.0"),
    ({"feedback": 0.5, "rank": "full"}, "feedback adds what rank k left out, and rank='full' leaves nothing out"),
    ({"coordinates": "lie"}, "unknown coordinates 'lie', expected one of weight, skew"),
    ({"seed": 0.5}, "seed must be a whole number, found 0.5"),
    ({"rnk": 2}, "unknown setting 'rnk'; near misses: rank"),
    ({"variant": "polar"}, "unknown setting 'variant'; near misses: rank, retraction"),
    ({"parameters": {"weight": 1}}, "parameters must be a glob pattern or a list of them"),
    ({"parameters": ["weight", 1]}, "parameters must be a glob pattern or a list of them"),
    ({"parameters": 5}, "parameters must be a glob pattern or a list of them"),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=str)
@pytest.mark.parametrize("constrains", [lambda **s: Projector(nn.Linear(4, 4), **s), ProjUNN], ids=["loop", "callback"])
def test_bad_values_are_refused_by_name(constrains, settings, message):
    with pytest.raises(ConfigError) as error:
        constrains(**{"parameters": "weight", **settings})
    assert str(error.value).startswith(message)


def test_the_projector_and_the_callback_take_every_setting():
    settings = {
        "rank": 2,
        "retraction": "cayley",
        "sampler": "svd",
        "feedback": 0.5,
        "coordinates": "skew",
        "lr_divider": 2.0,
        "tolerance": 1e-6,
        "seed": 3,
    }
    assert settings.keys() == {field.name for field in fields(ProjUNNSettings)}
    expected = ProjUNNSettings(**settings)
    assert Projector(nn.Linear(4, 4), "weight", **settings).settings == expected
    assert ProjUNN("weight", **settings).settings == expected


def test_the_documentation_of_the_settings_names_each_of_them():
    doc = inspect.getdoc(ProjUNNSettings)
    assert all(f"\n    {field.name}: " in doc for field in fields(ProjUNNSettings))


def test_the_types_of_the_settings_are_the_names_in_the_registries():
    types = get_type_hints(ProjUNNSettings)
    assert get_args(types["retraction"]) == tuple(RETRACTIONS)
    assert get_args(types["sampler"]) == tuple(SAMPLERS)


def test_a_newly_registered_sampler_and_retraction_are_accepted():
    with registered():
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = Projector(model, "weight", retraction="toy", sampler="toy").attach(optimizer)
        model(torch.ones(1, 4)).square().sum().backward()
        optimizer.step()
        assert projector.unitarity_errors()["weight"] < 1e-6
