"""Lists the versions and devices that a command uses, without TensorFlow."""

from __future__ import annotations

from efficientnetv2.runtime.environment import environment


def version_text() -> str:
    """Returns a line for each package that matters, and one for the devices."""
    is_name = {"devices", "not installed"}
    return "\n".join(
        f"{name}: {value}" if {name, value} & is_name else f"{name} {value}"
        for name, value in environment().items()
    )
