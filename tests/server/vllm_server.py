"""A real server as a test sees it: chat completions, metrics, caches and what the ranks record."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from forked import ForkedProcess
from latent_attention import latent_backend
from python_path import path_with
from vllm_process import VllmProcess

# vLLM would serve the float32 checkpoint in bfloat16, whose rounding hides what is compared here.
_COMMON = ["--dtype", "float32", "--max-num-seqs", "64", "--enable-prompt-tokens-details"]
# 256 MB of KV cache instead of 1 GiB: up to nine servers run at once.
_COMMON += ["--num-gpu-blocks-override", "512"]
_PROBE = [
    *["--worker-extension-cls", "worker_probe.WorkerProbe"],
    *["--middleware", "preprocess_probe.PreprocessProbe"],
]


def core() -> dict[str, str]:
    """A core for the engines of each of pytest's processes; vLLM binds all to the first one."""
    if not (worker := os.environ.get("PYTEST_XDIST_WORKER")):
        return {}
    number = int(worker.removeprefix("gw")) % (os.cpu_count() or 1)
    return {"VLLM_CPU_OMP_THREADS_BIND": str(number)}


class Server(VllmProcess):
    """A `vllm serve` with the probes loaded; forked from `launcher.py` unless `fork` is false."""

    def __init__(
        self, log: Path, *arguments: str, model: str = "demo", fork: bool = True, **env: str
    ) -> None:
        env = {"PYTHONPATH": path_with(Path(__file__).parent), **core(), **env}
        backend = latent_backend(model)
        attention = ["--attention-backend", backend] if backend else []
        super().__init__(log, model, *_COMMON, *_PROBE, *attention, *arguments, **env)
        self._fork = fork
        # uvicorn closes an idle connection after 5 seconds, which is httpx's default as well.
        limits = httpx.Limits(max_keepalive_connections=20, keepalive_expiry=2)
        self.client = httpx.Client(base_url=self.url, timeout=300, limits=limits)

    def _launch(self, log: int) -> Any:
        if self._fork:
            return ForkedProcess(self._command, self._environment, log, log)
        return super()._launch(log)

    def __enter__(self) -> Server:
        self.start()
        return self

    def post(self, content: Any, **body: Any) -> httpx.Response:
        """Send one chat completion; `content` is the user message's."""
        return self.client.post(
            "/v1/chat/completions",
            json={
                "model": "demo",
                "messages": [{"role": "user", "content": content}],
                "max_tokens": 12,
                "temperature": 0,
                **body,
            },
        )

    def ask(self, content: Any, **body: Any) -> dict[str, Any]:
        """Send one chat completion that has to succeed and return its body."""
        response = self.post(content, **body)
        assert response.status_code == 200, response.text
        completion: dict[str, Any] = response.json()
        return completion

    def text(self, content: Any, **body: Any) -> str:
        """Send one chat completion and return what was answered."""
        return str(self.ask(content, **body)["choices"][0]["message"]["content"])

    def texts_at_once(self, contents: Sequence[Any], **body: Any) -> list[str]:
        """Send all requests together and return the answers in order."""
        with ThreadPoolExecutor(len(contents)) as pool:
            return list(pool.map(lambda content: self.text(content, **body), contents))

    def rpc(self, method: str) -> list[dict[str, Any]]:
        """Call a method of `WorkerProbe` on every rank."""
        response = self.client.post("/collective_rpc", json={"method": method})
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    def preprocessed(self) -> int:
        """How many images HF's image processor was called with, in the only API server."""
        return int(self.client.get("/preprocessed").json()["images"])

    def forget(self) -> None:
        """Empty all caches: KV prefixes, encoder outputs, preprocessed images, features."""
        for cache in ("prefix", "mm", "encoder"):
            assert self.client.post(f"/reset_{cache}_cache").status_code == 200, cache
        if "--plugin" in self._command:
            self.rpc("forget_features")

    def metric(self, name: str) -> float:
        """Return the sum of a Prometheus counter over its labels."""
        values = self.metrics(name)
        assert values, f"{name} is not in /metrics"
        return sum(values.values())

    def metrics(self, name: str) -> dict[str, float]:
        """Return the samples of /metrics whose line begins with `name`, without the label
        `model_name`, which each of them has."""
        lines = self.client.get("/metrics").text.splitlines()
        pairs = [line.rpartition(" ") for line in lines if line.startswith(name)]
        return {_without_model(sample): float(value) for sample, _, value in pairs}


def _without_model(sample: str) -> str:
    assert 'model_name="demo"' in sample, sample
    return re.sub(r',model_name="demo"|model_name="demo",?', "", sample).replace("{}", "")
