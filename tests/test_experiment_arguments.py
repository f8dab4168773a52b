"""An experiment checks its arguments, and refuses a method where it means nothing."""

import dataclasses

import jax
import pytest
import toy
from toy_experiments import DATA, make

import neuroml
from neuroml.errors import UsageError

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("experiments")


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"iterations": 5}, ("epochs=1", "iterations=5")),
        ({"epochs": None}, ("epochs=None", "iterations=None")),
        ({"epochs": 0}, ("epochs=0",)),
        ({"epochs": None, "iterations": 0}, ("iterations=0",)),
        ({"batch_size": 0}, ("batch_size=0",)),
        ({"samples": -1}, ("samples=-1",)),
        ({"inspected": -1}, ("inspected=-1",)),
        ({"optimizer": "adm"}, ("'adm'", "'adam'", "sgd")),
        ({"options": {"anchor": "latest"}}, ("'anchor'", "'anchors'", "form")),
        ({"evaluation": "end"}, ("'end'", "'ends'", "all")),
    ],
)
def test_bad_arguments_are_named(changed, words):
    with pytest.raises(UsageError) as error:
        make(**changed)
    for word in words:
        assert word in str(error.value)


def test_bad_values_of_options_are_named():
    for options, words in [({"form": "implicit"}, "'implicit'"), ({"anchors": "last"}, "'last'")]:
        experiment = make(options=options)
        with pytest.raises(UsageError, match=words):
            jax.eval_shape(experiment.begin, jax.random.key(0), toy.numbers_of(experiment), DATA)


def test_a_method_that_means_nothing_in_a_scenario_is_refused():
    for name, scenario, able in (("xdg", "class", "scenario task"), ("icarl", "domain", "scenario task or class")):
        experiment = toy.experiment(name, scenario=scenario)
        with pytest.raises(UsageError, match=f"means nothing in a {scenario}-incremental stream.*{able}"):
            jax.eval_shape(experiment.begin, jax.random.key(0), toy.numbers_of(experiment), DATA)


def test_methods_that_are_told_of_boundaries_are_refused_where_there_are_none():
    refused = [name for name, method in neuroml.methods.methods.items() if method.boundaries(method.options)]
    told = {"agem", "dgr", "dgr_distill", "ewc", "gpm", "hat", "icarl", "l2", "lwf", "mas", "owm", "packnet"}
    told |= {"active_dendrites_si", "rwalk", "si", "xdg_si"}
    kinds = ("anchor", "head", "homeostasis", "metric", "projector", "shell", "shuffled")
    condensates = {f"condensate_{kind}" for kind in kinds}
    assert set(refused) == told | condensates
    for name, method in neuroml.methods.methods.items():
        if "class" not in method.scenarios:
            continue  # is refused for another reason: tests/test_contexts.py
        experiment = toy.experiment(name, window=8)
        if "features" in experiment.options:  # the images are too small for patches
            experiment = dataclasses.replace(experiment, options={**experiment.options, "features": "pixels"})
        begin = lambda e=experiment: jax.eval_shape(e.begin, jax.random.key(0), toy.numbers_of(e), DATA)
        if name in refused:
            with pytest.raises(UsageError, match="does not tell.*si_every"):
                begin()
        else:
            begin()
    with_past = dataclasses.replace(toy.experiment("er", window=8), options={"replay": "past"})
    with pytest.raises(UsageError, match="does not tell"):
        jax.eval_shape(with_past.begin, jax.random.key(0), toy.numbers_of(with_past), DATA)
