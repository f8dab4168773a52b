"""The phase diagram of slots: how long a memory lasts, by valence and linker length, on the embedded digits.

    python -m paper_repro.condensates.phase_diagram [--seeds 10] [--out paper_repro/condensates/results]

Five tasks of two digits. At every batch of 20 each slot evaporates by a share of 5 %, less for each batch that
recruited it: `slots.evaporate(share, binding)`. Retention is the accuracy on the first task's test images, among all
ten digits, at the end of the stream over that right after the task; the answer is the soft read of `slots.read` with
the given linker. Writes `phase_diagram.json` and the picture beside it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import environment, inside, results
from neuroml import slots
from neuroml.streams import scenarios
from neuroml.streams.sources import load
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
BINDING = np.linspace(0, 0.5, 11)
LINKER = np.geomspace(0.1, 3.0, 13)
BATCH, SHARE, RADIUS, SLOTS = 20, 0.05, 0.8, 100


def retention(key, binding, data):
    """Returns the retention for each linker length, [linkers], of one seed and one binding."""
    stream = scenarios.split(5, "class")(data, key)
    scale = data.scale
    flat = lambda x: x.reshape(x.shape[0], -1) / scale
    test, real = stream.test_batch(jnp.int32(0))

    def step(state, batch):
        state = slots.evaporate(state, SHARE, binding)
        keys, labels = flat(batch.x), jax.nn.one_hot(batch.y, stream.outputs)
        return slots.absorb(state, keys, labels, radius=RADIUS)[0], None

    def accuracy(state):
        read = lambda linker: slots.read(state, flat(test.x), linker).argmax(1) == test.y
        right = jax.vmap(read)(jnp.asarray(LINKER))
        return (right & real).sum(1) / real.sum()

    def phase(state, number):
        order = stream.order(jax.random.fold_in(key, number), number, stream.smallest // BATCH, BATCH)
        batches = jax.vmap(lambda where: stream.train_batch(number, where))(order)
        state, _ = jax.lax.scan(step, state, batches)
        return state, accuracy(state)

    start = slots.empty(SLOTS, 64, stream.outputs)
    _, found = jax.lax.scan(phase, start, jnp.arange(stream.phases))
    return found[-1] / jnp.maximum(found[0], 1e-6)


def work(seeds: int, out: Path) -> None:
    """Computes the diagram, writes it and draws it."""
    environment.prepare_jax()
    data = load("digits")
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    one = lambda key: jax.lax.map(lambda binding: retention(key, binding, data), jnp.asarray(BINDING))
    values = np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys)).mean(0)
    record = {"seeds": seeds, "batch": BATCH, "share": SHARE, "radius": RADIUS, "slots": SLOTS}
    record |= {"binding": BINDING.tolist(), "linker": LINKER.tolist(), "retention": values.round(4).tolist()}
    results.write_text(out / "phase_diagram.json", json.dumps(record) + "\n")
    inside.phase_diagram(record, out / "phase_diagram.png")
    print(f"retention from {values.min():.2f} to {values.max():.2f}; {out}/phase_diagram.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=10, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
