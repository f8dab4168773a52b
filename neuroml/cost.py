"""What a computation costs: bytes held and floating-point operations, counted without running it."""

import math
import re
from typing import Any

import jax


def tree_bytes(tree: Any) -> int:
    """Returns the bytes of all arrays (or shapes of arrays) in `tree`.

    >>> import jax.numpy as jnp
    >>> tree_bytes({"w": jnp.zeros((2, 3)), "mask": jnp.zeros(4, bool)})
    28
    """
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def flops(function: Any, *arguments: Any) -> float:
    """Returns the floating-point operations of `function(*arguments)` that are products, or solve a factored system.

    A product of [m, k] and [k, n] counts 2 m k n, and a convolution as the product that it is; a Cholesky factorization
    n^3 / 3, a triangular solve of m columns m n^2. Loops of known length count each turn, others one, branches the
    dearest one, divided by n inside `one_in(n)`.

    Left out are elementwise work, as the field does, and the factorizations `eigh`, `eig`, `svd`, `qr` and `lu`: what
    stands on these costs more than is said here. `jnp.linalg.solve` of m columns counts 8 m n^2, `inv` so 8 n^3: their
    solve, and the transposed one and the products with the matrix, which only derivatives use. XLA's own count sees a
    loop's body only once.

    >>> import jax.numpy as jnp
    >>> flops(lambda a, b: jax.nn.relu(a @ b), jnp.zeros((2, 3)), jnp.zeros((3, 4)))
    48.0
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def one_in(turns: int) -> Any:
    """Marks a `lax.cond` whose dear branch is taken in one of so many turns, for `flops`.

    >>> import jax.numpy as jnp
    >>> def now_and_then(step, a):
    ...     with one_in(10):
    ...         return jax.lax.cond(step % 10 == 0, lambda a: a @ a, lambda a: a, a)
    >>> flops(now_and_then, 0, jnp.zeros((5, 5)))
    25.0
    """
    return jax.named_scope(f"one_in_{turns}")


def uses(primitive: str, function: Any, *arguments: Any) -> bool:
    """Says whether `function(*arguments)` contains a primitive, at any depth.

    >>> uses("sin", jax.jit(jax.numpy.sin), 0.0), uses("cos", jax.numpy.sin, 0.0)
    (True, False)
    """
    return _contains(jax.make_jaxpr(function)(*arguments).jaxpr, primitive)


def _contains(jaxpr: Any, primitive: str) -> bool:
    return any(
        equation.primitive.name == primitive or any(_contains(part, primitive) for part in _parts(equation.params))
        for equation in jaxpr.eqns
    )


def _count(jaxpr: Any) -> float:
    return float(sum(_count_one(equation) for equation in jaxpr.eqns))


def _count_one(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        output_channels = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / output_channels
    if name == "cholesky":
        shape = equation.outvars[0].aval.shape
        return math.prod(shape) * shape[-1] / 3.0
    if name == "triangular_solve":
        return float(math.prod(equation.outvars[0].aval.shape) * equation.invars[0].aval.shape[-1])
    inner = [_count(part) for part in _parts(parameters)]
    if name == "cond":
        turns = re.findall(r"one_in_(\d+)", str(equation.source_info.name_stack))
        return max(inner, default=0.0) / int(turns[-1] if turns else 1)
    return float(sum(inner) * (parameters["length"] if name == "scan" else 1))


def _parts(parameters: dict[str, Any]) -> list[Any]:
    """Returns the jaxprs inside an equation's parameters."""
    found = []
    for value in parameters.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                found.append(part)
    return found
