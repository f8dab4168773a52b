"""Split MNIST as in van de Ven, Tuytelaars and Tolias 2022, "Three types of incremental learning".

    python -m benchmarks run split_mnist
    python -m benchmarks run split_mnist --scenario class --methods naive,joint,ewc,si,er

The first command runs all methods in all three scenarios and takes up where it stopped; each method where it means
something: those that must be told the task where it is told, iCaRL and the generative classifier not where outputs are
used again. Settings are the authors' own, who tried 14 strengths of EWC, 17 of SI and 20 shares of XdG on one seed;
their SI counts the penalty's gradient, too, ours does not. HAT, PackNet, iCaRL, LDA and random features, which they
have not tuned here, had four trials of one number each (`python -m benchmarks tune split_mnist --seeds 2`), LDA and
random features class-incrementally only: elsewhere they have the library's shrinkage and ridge. HAT, iCaRL, LDA and
random features chose the edge. HAT's ramp and PackNet's steps and share were set once.
Five contexts of two digits in an order drawn from the seed; MLP of 2 x 400 ReLU units with PyTorch's default
initialization; Adam, learning rate 1e-3, batches of 128, 2,000 steps a context, joint training 10,000 steps; replay
of 100 examples of each class of each context, from past contexts only. Strengths of EWC and SI are those the authors
chose on one seed (`params/param_values.py` of their code). The Fisher information is exact in its labels, as theirs,
but taken over 1,000 examples of a task, not all.

28 minutes on 2 CPU cores for the second command; the first, by the seconds of its parts, three and a half to four and a
half hours of one core a scenario, which two processes with one `--out` may share. To expect, class-incremental:
naive .198, joint .982, EWC .207, SI .218, ER .885 (theirs: .199, .982, .206, and, from memory, SI .212, ER .888).
"""

from benchmarks.suite import Suite

suite = Suite(
    name="split_mnist",
    summary="MNIST, 5 tasks x 2 digits, protocol of van de Ven et al. 2022",
    data="mnist",
    hidden=(400, 400),
    batch_size=128,
    iterations=2000,
    samples=1000,
    methods=(
        "naive",
        "joint",
        "xdg",
        "hat",
        "packnet",
        "ewc",
        "si",
        "lwf",
        "agem",
        "er",
        "icarl",
        "dgr",
        "dgr_distill",
        "generative_classifier",
        "nearest_class_mean",
        "streaming_lda",
        "random_ridge",
    ),
    hyperparameters={
        "ewc": {"strength": {"task": 1e5, "domain": 1e10, "class": 1e9}},
        "si": {"strength": {"task": 10.0, "domain": 5e4, "class": 5e3}, "damping": 0.1},
        "hat": {"thrift": 0.1},
        "icarl": {"strength": 1.0},
        "streaming_lda": {"shrinkage": 1e-4},
        "random_ridge": {"ridge": {"task": 0.01, "domain": 0.01, "class": 1e-4}},
    },
    options={
        "xdg": {"silent_percent": 90},
        "agem": {"capacity": 1000, "keep": "class_balanced"},
        "icarl": {"capacity": 1000},
        "lwf": {"weighting": "tasks", "known": {"task": "taught", "domain": "all", "class": "all"}},
        "si": {"clip_negative": False},
        "er": {"capacity": 1000, "keep": "class_balanced", "replay": "past", "weighting": "tasks"},
    },
    grids={
        "hat": {"thrift": (0.1, 0.3, 0.75, 2.0)},
        "packnet": {"learning_rate": (0.0003, 0.001, 0.003, 0.01)},
        "icarl": {"strength": (0.01, 0.04, 0.2, 1.0)},
        "streaming_lda": {"shrinkage": (0.0001, 0.01, 0.1, 1.0)},
        "random_ridge": {"ridge": (0.01, 0.0001, 0.001, 0.1)},
    },
)
