"""Serve a model by Ray Serve LLM with vtprune in every replica.

    python examples/ray_serve.py MODEL [REPLICAS]

OpenAI's routes are then on port 8000. What passes through Ray and what does not is in
docs/scale.md, and so is how Ray is installed beside vLLM. With the demo model on a CPU:
`python examples/ray_serve.py demo/llava`.
"""

import os
import sys

import ray
import torch
from ray import serve
from ray.serve.llm import LLMConfig, build_openai_app

SETTINGS = {"rate": 0.75, "limits": {"max_rate": 0.9}}
"""What `--prune-*` says to `vllm serve`, by the names in docs/settings.md."""

REPLICAS = int(sys.argv[2]) if len(sys.argv) > 2 else 1

AUTOSCALING = {
    "min_replicas": REPLICAS,
    "max_replicas": 2 * REPLICAS,
    "target_ongoing_requests": 16,
    "upscale_delay_s": 10,
    "downscale_delay_s": 300,
}
"""A pruned request is shorter, so a replica holds more of them at once: measure the target of yours
by `make loadtest`. A new replica begins with empty caches; it should not go soon after it came."""

ENGINE = {"max_model_len": 4096, "mm_processor_kwargs": {"vtprune": SETTINGS}}

ON_CPU = not torch.cuda.is_available()


def main() -> None:
    """Start a Ray on this machine, or join that of `RAY_ADDRESS`, and serve until Ctrl-C."""
    config = LLMConfig(
        model_loading_config={"model_id": "demo", "model_source": sys.argv[1]},
        deployment_config={"autoscaling_config": AUTOSCALING, "health_check_period_s": 2},
        engine_kwargs={**ENGINE, "enforce_eager": ON_CPU},
        accelerator_config={"kind": "cpu"} if ON_CPU else None,
    )
    # Ray counts CPUs as it is told: a replica asks for two and its router for one.
    cores = None if "RAY_ADDRESS" in os.environ else max(8, os.cpu_count() or 1)
    ray.init(num_cpus=cores)
    serve.run(build_openai_app({"llm_configs": [config]}), blocking=True)


if __name__ == "__main__":
    main()
