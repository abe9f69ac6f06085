"""The MiniJinja engine that renders messages."""

import minijinja

FUEL = 300_000  # instructions per mail, about 75,000 placeholders: a precaution, because the language has no loops


def new_engine() -> minijinja.Environment:
    """An engine without templates and functions."""
    engine = minijinja.Environment(
        undefined_behavior="strict",
        auto_escape_callback=lambda part: part == "html",
        keep_trailing_newline=True,
        fuel=FUEL,
        debug=False,  # in debug mode an error contains all values
        pycompat=False,
    )
    for name in engine.globals:
        engine.remove_global(name)  # otherwise a missing attribute named "range" would print a function
    return engine
