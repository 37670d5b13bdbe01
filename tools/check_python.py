"""Say at once when the interpreter is too old or cannot make a virtual environment.

``check_python.py VENV``: an environment that another interpreter has made is removed. It would be
made anew only in part, and then belong to neither.
"""

import importlib.util
import os
import shutil
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this file must also run on older interpreters
    sys.exit(
        "Bascule's controller needs Python 3.11 or later; this is {}.{} ({}). "
        "Name another one: make PYTHON=python3.12 ...".format(*sys.version_info[:2], sys.executable)
    )
if importlib.util.find_spec("ensurepip") is None:
    sys.exit("This Python has no 'venv'. On Debian and Ubuntu: apt-get install python3-venv")
made_by = os.path.join(sys.argv[1], "bin", "python3")  # noqa: PTH118 - older interpreters
if os.path.realpath(made_by) not in (os.path.abspath(made_by), os.path.realpath(sys.executable)):  # noqa: PTH100
    shutil.rmtree(sys.argv[1])
