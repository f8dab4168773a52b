"""Permuted MNIST as in Numenta's `projects/dendrites/permutedMNIST` (Iyer et al. 2022): 2 to 100 permutations.

    python -m benchmarks run permuted_mnist_numenta --scenario domain --methods naive
    ... --methods naive --set tasks=100 --set epochs=3 --set learning_rate=1e-6
    ... --methods si --set epochs=20 --set learning_rate=5e-4 --set hidden=2000,2000
    ... --scenario task --methods xdg,xdg_si --set iterations=3906 --set learning_rate=1e-3 --set hidden=2000,2000

Two hidden layers of 2,048 ReLU units, Adam, batches of 256, one head, images standardized; five passes over each of
ten permutations at a learning rate of 3e-6, which their search found best for a plain network. SI takes 20 passes, c =
0.1, damping 0.1, as in `experiments/si_prototype.py` there (commit 2e95369). Nobody says which permutation it is, but
to XdG, in the scenario "task", where the head is still one: name the scenario, since all others do the same in both.
XdG has the settings of Masse, Grant and Freedman 2018 (`run_models.py` of their code), who also drop half of the
neurons and a fifth of the inputs at random in training; nothing here does. `python -m paper_repro run numenta_2021` has
a command for each number of their figure, with its TFLOP and minutes.

To expect (their figure): naive 82.0 with 10 tasks and 48.3 with 100, SI 97.1 with 10, XdG 97.2, with SI 98.0.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="permuted_mnist_numenta",
    summary="MNIST, 10 permutations, several passes, protocol of Numenta's active dendrites",
    data="mnist",
    stream="permuted",
    scenarios=("domain", "task"),
    shared_head=True,
    standardized=(0.13062755, 0.3081078),
    tasks=10,
    hidden=(2048, 2048),
    batch_size=256,
    epochs=5,
    learning_rate=3e-6,
    evaluation="ends",
    methods=("naive", "si"),
    seeds=8,
    hyperparameters={"si": {"strength": 0.1, "damping": 0.1}, "xdg_si": {"strength": 0.035, "damping": 0.01}},
)
