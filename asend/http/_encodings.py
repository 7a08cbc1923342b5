"""Which content codings a client takes, and likes best."""

from __future__ import annotations

from functools import lru_cache


# Browsers of one version all send the same.
@lru_cache(maxsize=256)
def preferred(header: str | None, offered: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the `offered` codings that the client takes, the best first.

    Args:
        header: The field Accept-Encoding. None: it was not sent, and nothing is encoded then.
        offered: Names in lower case, the server's favourite first, which decides among equals.

    Codings that the client likes less than none are left out.

    Source: RFC 9110, section 12.5.3.
    """
    if header is None:
        return ()
    weights = _weights(header)
    others = weights.get("*", 0.0)
    least = weights.get("identity", 0.0)
    taken = [(weights.get(name, others), name) for name in offered]
    taken = [(weight, name) for weight, name in taken if weight > 0 and weight >= least]
    return tuple(name for _, name in sorted(taken, key=lambda each: -each[0]))


def _weights(header: str) -> dict[str, float]:
    weights = {}
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name:
            weights[name] = _weight(parameters)
    return weights


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0
