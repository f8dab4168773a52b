"""The methods of the benchmarks that learn to generate images, and need to store none."""

from neuroml.autoencoder import autoencoder
from neuroml.generative_classifier import generative_classifier
from neuroml.generative_replay import generative_replay
from neuroml.learner import Learner
from neuroml.method import Method, Settings, Situation, always


def _dgr(at: Situation, given: Settings) -> Learner:
    model = autoencoder(at.example.x.shape, [int(given["width"])] * 2, int(given["latent"]))
    return generative_replay(at.task, at.optimizer, model, at.outputs, at.tasks, distills=bool(given["distills"]))


def _generative_classifier(at: Situation, given: Settings) -> Learner:
    model = autoencoder(at.example.x.shape, [int(given["width"])] * 2, int(given["latent"]))
    samples = int(given["importance_samples"])
    return generative_classifier(model, at.optimizer, at.outputs, scale=at.task.scale, samples=samples)


_GENERATOR = {"width": 400, "latent": 100}

methods: dict[str, Method] = {
    "dgr": Method(
        "deep generative replay: an autoencoder dreams, and the network of before labels its dreams",
        learner=_dgr,
        options={**_GENERATOR, "distills": False},
        boundaries=always,
    ),
    "dgr_distill": Method(
        "deep generative replay with softened labels",
        learner=_dgr,
        options={**_GENERATOR, "distills": True},
        boundaries=always,
    ),
    "generative_classifier": Method(
        "an autoencoder for each class; the answer is whose finds the image likeliest",
        learner=_generative_classifier,
        options={"width": 85, "latent": 5, "importance_samples": 50},
        scenarios=("task", "class"),  # an output has one autoencoder, which would forget its look in earlier tasks
        own_heads=True,
    ),
}
