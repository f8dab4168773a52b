"""How the settings of a method name its fixed features: one set of options for all methods that stand on some."""

from typing import Any

import jax
import jax.numpy as jnp

from neuroml import features
from neuroml.errors import unknown
from neuroml.method import Settings, Situation

FEATURES = ("patches", "random", "pixels")

_PATCHES: dict[str, Any] = {"features": "patches", "width": 200, "size": 7, "pool": 3, "threshold": 0.5, "stride": 1}
FEATURE_OPTIONS = {**_PATCHES, "mirror": False, "rounds": 10, "held_back": 2000}


def width_of(made: features.FeatureMap, at: Situation) -> int:
    """Returns how many features a map makes of an image."""

    def shape():
        images = jnp.zeros((2, *at.example.x.shape))
        return made.apply(made.fit(jax.random.key(0), images), images)

    return jax.eval_shape(shape).shape[1]


def features_of(given: Settings) -> features.FeatureMap:
    """Returns the map that the settings name."""
    if given["features"] == "patches":
        return features.patch_condensates(
            int(given["width"]),
            size=int(given["size"]),
            pool=int(given["pool"]),
            threshold=float(given["threshold"]),
            stride=int(given["stride"]),
            mirror=bool(given["mirror"]),
            rounds=int(given["rounds"]),
        )
    if given["features"] == "random":
        return features.random_features(int(given["width"]))
    if given["features"] == "pixels":
        return features.pixels()
    raise unknown("kind of features", given["features"], FEATURES)


def held_back(given: Settings) -> int:
    """Returns how many first examples the features are fitted to."""
    return int(given["held_back"])
