"""Fork `vllm serve` commands from a process that has imported vLLM once.

Importing vLLM takes more processor time than all else that a small server does until it is ready,
and a plain start pays it in the API server, the engine core and every worker. Run as a script, this
is the parent of a pytest process's servers: each request on its socket is a command line, which a
forked child runs through vLLM's own entry point, or as Python runs a script if it begins with one.
Within a server vLLM forks as it does on GPUs.

The thread count of OpenMP and the settings of the compiler are read at import. They are vLLM's own
for a worker with one core, whichever core `VLLM_CPU_OMP_THREADS_BIND` names; a server with several
cores a worker is started plainly.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from multiprocessing import context
from pathlib import Path
from typing import Any, NoReturn

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1",
}

_SPIN_S, _RECHECK_MS = 0.001, 50

_OURS = str(Path(__file__).parents[2] / "environment")
"""What a script imports from, besides its own folder, as tests do."""

# What `vllm serve` and a worker import, as far as vtprune patches none of it.
_MODULES = [
    *(
        f"vllm.entrypoints.cli.{name}"
        for name in ("main", "benchmark.main", "collect_env", "download_kernels", "launch")
    ),
    *(f"vllm.entrypoints.cli.{name}" for name in ("openai", "run_batch", "serve")),
    *("vllm.v1.worker.cpu_worker", "vllm.model_executor.kernels.linear"),
    *("mistral_common", "compressed_tensors", "jsonschema", "uvicorn.protocols.http.auto"),
]


def main() -> None:
    """Serve requests until pytest's end of the socket is closed."""
    control = socket.socket(fileno=int(sys.argv[1]))
    # vLLM asks for `spawn` on CPUs because of OpenMP's threads, of which there are none here.
    contexts = context._concrete_contexts  # type: ignore[attr-defined]
    contexts["spawn"] = contexts["fork"]
    for module in _MODULES:
        with contextlib.suppress(ModuleNotFoundError):  # some are not in every release
            importlib.import_module(module)
    inspect_models_in_process()
    wait_asleep()
    share_compiled_code()
    share_compiled_kernels()
    load_compiled_functions()
    importlib.import_module("any_rows").multiply_any_rows()
    importlib.import_module("any_attributes").search_any_attributes()
    gc.collect()
    gc.freeze()
    children: dict[int, socket.socket] = {}
    while (request := _next_request(control, children)) is not None:
        message, (stdout, stderr, exit_pipe) = request
        answers = socket.socket(fileno=exit_pipe)
        if not (pid := os.fork()):
            control.close()
            for other in (answers, *children.values()):
                other.close()
            _become(json.loads(message), stdout, stderr)
            _run_to_the_end()
        os.close(stdout)
        os.close(stderr)
        answers.send(str(pid).encode())
        children[pid] = answers
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def inspect_models_in_process() -> None:
    """Have vLLM look at a model's class here, not in a new process that imports vLLM for it.

    It does that so that CUDA is not initialised, at the first start of every class whose file has
    changed: twice, for stock's and for ours, on a fresh machine for all families.
    """
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda look: look()


def wait_asleep() -> None:
    """Have a server's processes sleep while they wait for one another.

    vLLM lets a reader spin for a second after it was last written to: the worker after each step,
    the engine during it. On two cores that took the time of whatever else the tests run. A reader
    that does not spin misses a wake-up now and then, one in eight of lone requests here, and looks
    again after five seconds of its own.
    """
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    if hasattr(shm_broadcast, "SHM_READER_RECHECK_INTERVAL_MS"):  # not in 0.31
        shm_broadcast.SHM_READER_RECHECK_INTERVAL_MS = _RECHECK_MS
    spin = inspect.signature(SpinCondition).parameters["busy_loop_s"]
    assert SpinCondition.__init__.__defaults__ == (spin.default,)
    SpinCondition.__init__.__defaults__ = (_SPIN_S,)


def share_compiled_code() -> None:
    """Have vLLM find what it compiled for a server on another core: one core is like another.

    It stores compiled code under all of its environment, the number of the core included, so that
    what a server of one of pytest's processes compiled was compiled again in the other.
    """
    from vllm import envs

    factors = envs.compile_factors

    def without_core() -> dict[str, object]:
        return {k: v for k, v in factors().items() if k != "VLLM_CPU_OMP_THREADS_BIND"}

    envs.compile_factors = without_core


def share_compiled_kernels() -> None:
    """Have Inductor find what it compiled for a server with other flags.

    It looks for it by the graph or the source that it was made of, in one folder. vLLM gives it one
    for each set of flags, where most of the C++ was the same again: 21 seconds of processor time
    for each, of which 8 are left (2026-11-30).
    """
    importlib.import_module("torch._inductor.codecache")
    from torch._inductor.runtime import cache_dir_utils
    from vllm import envs

    own = cache_dir_utils.cache_dir
    folder = Path(envs.VLLM_CACHE_ROOT) / "torch_compile_cache" / "inductor"
    folder.mkdir(parents=True, exist_ok=True)
    for module in list(sys.modules.values()):
        if vars(module).get("cache_dir") is own:
            module.cache_dir = lambda: str(folder)  # type: ignore[attr-defined]


def load_compiled_functions() -> None:
    """Have vLLM load what it compiled and stored for a server on a CPU.

    It stores a plain function there, and fails to load it for want of a method of its own class, of
    which it does not say that it is missing before it has compiled all again: eight seconds of
    processor time in each server (2026-12-01; vLLM 0.32 and 0.33).
    """
    from torch import compiler

    load = compiler.load_compiled_function

    def loaded(*arguments: Any, **options: Any) -> Any:
        found = load(*arguments, **options)
        function = found._artifacts.compiled_fn
        if not hasattr(function, "finalize_loading"):
            function.finalize_loading = lambda config: None
        return found

    compiler.load_compiled_function = loaded


def compile_nothing() -> None:
    """Run as it is what vLLM compiles even with `enforce_eager`.

    That is one comparison, of log-probabilities: five seconds of processor time in every process
    that is asked for some.
    """
    from torch import compiler

    compiler.set_stance("force_eager")


def _run_to_the_end() -> NoReturn:
    """Run what `sys.argv` says and exit as Python would, but leave the memory to the kernel.

    Python takes its modules apart at the end, which here would copy nearly every page that is
    shared with the parent: it took most of a server's stop.
    """
    code: object = 1
    try:
        _run()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if not isinstance(code, int | None):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _run() -> NoReturn:
    if sys.argv[0].endswith(".py"):
        sys.path[:0] = [os.path.dirname(sys.argv[0]), _OURS]
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    from vllm.entrypoints.cli.main import main as vllm

    sys.exit(vllm())


def _next_request(
    control: socket.socket, children: dict[int, socket.socket]
) -> tuple[bytes, list[int]] | None:
    """Report the exit codes of children until a request comes, or None at the end."""
    while not select.select([control], [], [], 0.05)[0]:
        while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with children.pop(ended[0]) as answers, contextlib.suppress(OSError):
                answers.send(str(os.waitstatus_to_exitcode(ended[1])).encode())
    message, descriptors, *_ = socket.recv_fds(control, 1 << 20, 3)
    return (message, descriptors) if message else None


def _become(request: dict[str, object], stdout: int, stderr: int) -> None:
    """Make this fork what executing the command line would have made it."""
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    environment, arguments = request["environment"], request["command"]
    assert isinstance(environment, dict) and isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    if "--enforce-eager" in arguments:
        compile_nothing()
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*paths, *(path for path in sys.path[1:] if path not in paths)]
    # Several API servers count in files of this folder. prometheus_client decides that at import.
    if "PROMETHEUS_MULTIPROC_DIR" in environment:
        from prometheus_client import values

        values.ValueClass = values.get_value_class()


if __name__ == "__main__":
    main()
