"""Whatever the strength, proximal EWC stays finite, and in the limit it is a network that is held still."""

import jax.numpy as jnp
import numpy as np
import pytest
import toy

import neuroml
from neuroml.experiment import Experiment
from neuroml.methods import methods
from neuroml.running import run
from neuroml.streams import scenarios

STRENGTHS = [0.0, 1e-3, 1.0, 1e3, 1e6, 1e9, 1e12]
STREAMS = {
    "split": scenarios.split(3, "class"),
    "permuted": scenarios.permuted(3, "domain"),
    "rotated": scenarios.rotated(3, "domain"),
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", STREAMS)
def test_any_strength_of_proximal_ewc_is_finite(name, optimizer):
    network = lambda shape, outputs: neuroml.mlp(shape, (6,), outputs)
    given = {"batch_size": 4, "epochs": 1, "samples": 8, "options": {"form": "proximal"}, "optimizer": optimizer}
    one = Experiment(methods["ewc"], network, STREAMS[name], **given)
    hyperparameters = {"learning_rate": 0.1, "strength": STRENGTHS}
    found = run(one, toy.dataset(), seeds=[0], hyperparameters=hyperparameters)
    assert np.asarray(jnp.isfinite(found.accuracy)).all() and found.accuracy.shape[0] == len(STRENGTHS)
    losses = np.asarray(found.loss)
    assert np.isfinite(losses[~np.isnan(losses[:1].repeat(len(losses), 0))]).all()
    assert not np.allclose(np.nan_to_num(losses[0]), np.nan_to_num(losses[-1])), "the strength changed nothing"
