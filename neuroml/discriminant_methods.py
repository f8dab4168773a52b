"""The methods of the benchmarks that know classes by the means of fixed features."""

from neuroml import recall
from neuroml.discriminant import discriminant
from neuroml.feature_settings import FEATURE_OPTIONS, features_of, held_back, width_of
from neuroml.learner import Learner
from neuroml.method import Method, Settings, Situation


def _discriminant(at: Situation, given: Settings) -> Learner:
    made, scale = features_of(given), at.task.scale
    own = {"covariance": given["covariance"], "shrinkage": given.get("shrinkage", 0.0)}
    inner, represent = recall.fixed(made, at.example, scale), recall.of_features(made, scale)
    return discriminant(inner, represent, width_of(made, at), at.outputs, **own)


_OPTIONS = {**FEATURE_OPTIONS, "features": "random", "width": 2000}

methods: dict[str, Method] = {
    "nearest_class_mean": Method(
        "nearest class mean on fixed random features",
        learner=_discriminant,
        options={**_OPTIONS, "covariance": "identity"},
        prepares=held_back,
    ),
    "streaming_lda": Method(
        "streaming linear discriminant analysis on fixed random features",
        learner=_discriminant,
        hyperparameters={"shrinkage": 1e-4},
        options={**_OPTIONS, "covariance": "shared"},
        prepares=held_back,
    ),
}
