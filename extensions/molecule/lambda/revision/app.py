"""Greet."""


def handler(event: object, context: object) -> dict[str, str]:
    """Say hello."""
    del event, context
    return {"build": "2"}
