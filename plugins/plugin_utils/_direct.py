# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ways of the host program to a host.

Starting an AnsiballZ module is the largest cost of a host. Where the connection can pipeline, the
program's source, the request and the bundle therefore go down one standard input to a bare
interpreter. Everywhere else the module of the same name does the same work.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import importlib.util
import json
import marshal
import secrets
import shlex
import types
import typing as t
import zlib
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure

from ..module_utils._errors import HostError
from ._reconnect import KilledError, persist

if t.TYPE_CHECKING:
    from ansible.plugins.action import ActionBase

PACKAGE = "bascule_host"
MARK = "BASCULE-RESULT:"
# What only a load balancer's host needs, what only a look at a target does, and what all do.
AT_PROXY = frozenset(
    {
        "_capabilities",
        "_routing_data",
        "_traffic",
        "_routed",
        "_router",
        "_balancer",
        "_connections",
        "_eds",
        "_envoy",
        "_envoy_admin",
        "_envoy_router",
        "_envoy_routes",
        "_haproxy",
        "_haproxy_router",
        "_nginx",
        "_nginx_files",
        "_nginx_process",
        "_nginx_router",
        "_spare",
    }
)
LOOKING = frozenset({"_drift", "_running"})
SHARED = frozenset({"_errors", "_entry"})
# What only a module needs: the direct way has no terminal.
MODULES = frozenset({"_apart"})
# What goes on with something that was begun on the host before.
CONTINUED = frozenset({"lifecycle", "traffic"})
# Beyond this size a bundle is copied as a file: standard input is held in memory by every worker.
INLINE_LIMIT = 64 * 1024 * 1024

_BOOTSTRAP = """\
import importlib.machinery,importlib.util,json,marshal,sys,zlib
i=sys.stdin.buffer
h=json.loads(i.readline())
p=i.read(h["program"])
c=i.read(h["compiled"])
s=json.loads(zlib.decompress(p))
c=marshal.loads(zlib.decompress(c)) if h["magic"]==importlib.util.MAGIC_NUMBER.hex() else {}
q=json.loads(i.read(h["request"]))
class F:
 def find_spec(self,n,p=None,t=None):
  if n in s:return importlib.machinery.ModuleSpec(n,self,is_package=s[n][0])
 def create_module(self,m):pass
 def exec_module(self,m):
  n=m.__name__
  exec(marshal.loads(c[n]) if n in c else compile(s[n][1],n,"exec"),m.__dict__)
sys.meta_path.insert(0,F())
import bascule_host._host._entry as e
b=open(h["bundle"],"rb") if h["bundle"] else i if h["inline"] else None
r=json.dumps(e.run(q,b))
while h["inline"] and i.read(1<<20):pass
sys.stdout.write("\\n%s%d\\n%s\\n"%(h["mark"],len(r),r))
sys.stdout.flush()
"""
_ANY_PYTHON = (
    "$(command -v python3 || command -v platform-python || echo /usr/libexec/platform-python)"
)


def program(operation: str) -> tuple[bytes, bytes]:
    """Return the part of the host program that an operation needs, compressed: source and code.

    The source is the JSON ``{module name: [is package, text]}``. Compiling it is half of a run, so
    the code that this interpreter makes of it goes along, as marshalled ``{module name: code}``; a
    host uses it if its own interpreter has the same bytecode (PEP 3147's magic number), and
    compiles what it imports if not.
    """
    return _part(at_proxy=operation == "traffic", looks=operation == "drift")


@functools.cache
def _part(*, at_proxy: bool, looks: bool) -> tuple[bytes, bytes]:
    floor = Path(__file__).resolve().parent.parent / "module_utils"
    shared = [floor / f"{name}.py" for name in ("_errors", "_capabilities", "_routing_data")]
    paths = [*shared, *sorted((floor / "_host").glob("_[!_]*.py"))]
    paths = [path for path in paths if path.stem not in MODULES]
    paths = [path for path in paths if path.stem in SHARED or (path.stem in AT_PROXY) == at_proxy]
    if not looks:
        paths = [path for path in paths if path.stem not in LOOKING]
    sources: dict[str, tuple[bool, str]] = {PACKAGE: (True, ""), f"{PACKAGE}._host": (True, "")}
    code = {name: marshal.dumps(compile("", name, "exec")) for name in sources}
    for path in paths:
        name = _module_name(path)
        sources[name] = (False, path.read_text(encoding="utf-8"))
        code[name] = marshal.dumps(_compiled(path, name))
    if not at_proxy:
        # Read only where CodeDeploy's agent has installed the revision before.
        for path in sorted(floor.glob("_appspec*.py")):
            sources[_module_name(path)] = (False, path.read_text(encoding="utf-8"))
    return zlib.compress(json.dumps(sources).encode()), zlib.compress(marshal.dumps(code))


def _compiled(path: Path, name: str) -> types.CodeType:
    """Return the code of a module as Python keeps it beside its source (PEP 3147), or makes it.

    On a host the module has no file; in a traceback its name stands there.
    """
    code = importlib.machinery.SourceFileLoader(name, str(path)).get_code(name)
    return _renamed(t.cast("types.CodeType", code), name)


def _renamed(code: types.CodeType, name: str) -> types.CodeType:
    inner = tuple(
        _renamed(one, name) if isinstance(one, types.CodeType) else one for one in code.co_consts
    )
    return code.replace(co_filename=name, co_consts=inner)


def _module_name(path: Path) -> str:
    home = f"{PACKAGE}._host" if path.parent.name == "_host" else PACKAGE
    return f"{home}.{path.stem}"


def compose(
    request: dict[str, t.Any], *, inline: bool = False, bundle_path: str | None = None
) -> bytes:
    """Return what goes before the bundle on the interpreter's standard input."""
    body = json.dumps(request).encode()
    source, code = program(request["operation"])
    head = {
        "program": len(source),
        "compiled": len(code),
        "magic": importlib.util.MAGIC_NUMBER.hex(),
        "request": len(body),
        "bundle": bundle_path,
        "inline": inline,
        "mark": MARK,
    }
    return json.dumps(head).encode() + b"\n" + source + code + body


def read_result(stdout: str) -> dict[str, t.Any] | None:
    """Find the result in what came back; banners and shell noise around it are passed over."""
    start = stdout.rfind(f"\n{MARK}")
    if start < 0:
        return None
    length, _newline, rest = stdout[start + 1 + len(MARK) :].partition("\n")
    try:
        result = json.loads(rest[: int(length)])
    except ValueError:
        return None
    return t.cast("dict[str, t.Any]", result)


def run_on_host(
    action: ActionBase,
    task_vars: dict[str, t.Any],
    request: dict[str, t.Any],
    bundle_path: str | None = None,
    *,
    reconnect: float = 0.0,
) -> dict[str, t.Any]:
    """Run one operation of the host program on the task's host (or on the one delegated to).

    :param action: the running action; its connection and become settings are used
    :param request: what ``module_utils/_host/_entry.run`` takes
    :param bundle_path: archive on the controller that the operation needs
    :param reconnect: seconds for which a host is tried again whose connection was lost
    :returns: the operation's result
    :raises HostError: the host cannot be reached, or has no Python that runs the program
    """
    # By this name a call that is sent again finds what it had come to.
    request = {**request, "call": secrets.token_hex(8)}
    run = _run_directly if action._connection.is_pipelining_enabled() else _run_as_module
    copies: list[str] = []
    try:
        return persist(
            action,
            lambda: run(action, task_vars, request, bundle_path, copies),
            host=_delegated_to(action) or str(task_vars.get("inventory_hostname", "")),
            limit=reconnect,
            # Whoever only looks has begun nothing there.
            new=request["operation"] not in CONTINUED or bool(request.get("check")),
        )
    finally:
        for path in copies:
            with contextlib.suppress(AnsibleConnectionFailure):
                action._remove_tmp_path(str(Path(path).parent))


def configured_interpreter(task_vars: dict[str, t.Any], delegated_to: str | None) -> t.Any:
    """Return the setting ``ansible_python_interpreter`` of the host that the task runs on."""
    variables = task_vars
    if delegated_to:
        variables = task_vars.get("ansible_delegated_vars", {}).get(delegated_to, {})
    return variables.get("ansible_python_interpreter")


def interpreter(configured: str | None) -> str:
    """Return the shell words that start Python on the host.

    A configured interpreter is used as it is. Without one, the host's own shell looks for Python:
    Ansible's discovery would cost a run of its own.
    """
    if not configured or str(configured).startswith("auto"):
        return _ANY_PYTHON
    return shlex.quote(str(configured))


def _run_directly(
    action: ActionBase,
    task_vars: dict[str, t.Any],
    request: dict[str, t.Any],
    bundle_path: str | None,
    copies: list[str],
) -> dict[str, t.Any]:
    configured = configured_interpreter(task_vars, _delegated_to(action))
    python = interpreter(action._templar.template(configured))
    command = f"{python} -c {shlex.quote(_BOOTSTRAP)}"
    if bundle_path is None:
        data = compose(request)
        answer = action._low_level_execute_command(command, in_data=data)
    elif Path(bundle_path).stat().st_size <= INLINE_LIMIT:
        data = compose(request, inline=True) + Path(bundle_path).read_bytes()
        answer = action._low_level_execute_command(command, in_data=data)
    else:
        data = compose(request, bundle_path=_copy_bundle(action, bundle_path, copies))
        answer = action._low_level_execute_command(command, in_data=data)
    result = read_result(answer["stdout"])
    if result is None:
        _look_for_signal(answer["rc"])
        seen = _last_lines(answer["stderr"] or answer["stdout"])
        looked = "python3 and platform-python" if python == _ANY_PYTHON else python
        raise HostError(
            f"The host program ended with status {answer['rc']} and without a result. It needs "
            f"Python 3.8 or later on the host (looked for {looked}); set "
            f"ansible_python_interpreter if it is elsewhere. Last output:\n{seen}"
        )
    return result


def _run_as_module(
    action: ActionBase,
    task_vars: dict[str, t.Any],
    request: dict[str, t.Any],
    bundle_path: str | None,
    copies: list[str],
) -> dict[str, t.Any]:
    arguments: dict[str, t.Any] = {"request": request}
    if bundle_path:
        arguments["bundle"] = _copy_bundle(action, bundle_path, copies)
    result: dict[str, t.Any] = action._execute_module(
        module_name=f"bascule.deploy.{request['operation']}",
        module_args=arguments,
        task_vars=task_vars,
    )
    if result.get("unreachable"):
        raise AnsibleConnectionFailure(str(result.get("msg", "")))
    if result.get("failed") and "module_stdout" in result:
        _look_for_signal(result.get("rc", 0))
        seen = _last_lines(f"{result.get('module_stderr', '')}{result['module_stdout']}")
        raise HostError(f"The host program ended without a result. Last output:\n{seen}")
    result.pop("invocation", None)
    return result


def _look_for_signal(status: int) -> None:
    """Raise a KilledError for the status of a program that was ended by a signal."""
    number = status - 128 if status > 128 else -status
    if 0 < number < 65:
        raise KilledError(f"The host program was ended by signal {number}.")


def _copy_bundle(action: ActionBase, bundle_path: str, copies: list[str]) -> str:
    folder = action._make_tmp_path()
    remote = action._connection._shell.join_path(folder, Path(bundle_path).name)
    copies.append(remote)
    action._transfer_file(bundle_path, remote)
    action._fixup_perms2([folder, remote])
    return t.cast("str", remote)


def _delegated_to(action: ActionBase) -> str | None:
    return t.cast("str | None", action._task.delegate_to)


def _last_lines(text: str, count: int = 8) -> str:
    return "\n".join(text.strip().splitlines()[-count:]) or "(nothing)"
