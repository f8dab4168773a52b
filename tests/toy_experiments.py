"""Experiments on the toy data set with any setting changed, and what they cost."""

import jax
import toy

import neuroml
from neuroml.streams import scenarios

DATA = toy.dataset()
OUTPUTS, PIXELS = 6, 16  # of three tasks, class-incremental; of 4 x 4


def make(**changed):
    usual = {"method": neuroml.methods.methods["ewc"], "maker": scenarios.split(3), "batch_size": 4, "epochs": 1}
    return neuroml.Experiment(**{"network": lambda s, o: neuroml.mlp(s, (6,), o), **usual, **changed})


def price(experiment):
    return experiment.cost(jax.random.key(0), toy.numbers_of(experiment), DATA)
