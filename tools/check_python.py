"""Say at once when the interpreter is too old or cannot make a virtual environment."""

import importlib.util
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this file must also run on older interpreters
    sys.exit(
        "Bascule's controller needs Python 3.11 or later; this is {}.{} ({}). "
        "Name another one: make PYTHON=python3.12 ...".format(*sys.version_info[:2], sys.executable)
    )
if importlib.util.find_spec("ensurepip") is None:
    sys.exit("This Python has no 'venv'. On Debian and Ubuntu: apt-get install python3-venv")
