"""What can be known of the containers where no container engine runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from vllm_process import MODELS, environment

from vllm_pruner.telemetry import metrics

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILES = ["Dockerfile", "Dockerfile.cpu"]
BIN = Path(sys.executable).parent
COMPOSE = {
    name: yaml.safe_load((DOCKER / name).read_text())
    for name in ("compose.yaml", "compose.gpu.yaml")
}


def instructions(name: str) -> list[tuple[str, str]]:
    """Instruction and argument of every line of a Dockerfile, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DOCKER / name).read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def of(name: str, instruction: str) -> list[str]:
    return [rest for word, rest in instructions(name) if word == instruction]


def run(*command: str | Path) -> str:
    # Without what an outer `make test` hands down: its inner make would print its folder.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name) -> None:
    run(BIN / "hadolint", DOCKER / name)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_container_is_no_root_and_reports_its_health(name) -> None:
    words = [word for word, _ in instructions(name)]
    assert of(name, "USER") == ["10001:10001"]
    assert words.index("USER") < words.index("HEALTHCHECK")
    assert "/health" in of(name, "HEALTHCHECK")[0]
    assert of(name, "VOLUME") == ["/cache"]


def test_the_image_is_of_the_version_that_was_checked() -> None:
    from vllm_pruner.compat import SUPPORTED

    assert f"vllm/vllm-openai:v{SUPPORTED}.0" in " ".join(of("Dockerfile", "FROM"))


def test_the_cpu_image_is_built_and_started_as_make_serve_does() -> None:
    """Every command of its RUN lines is one of make's, but for Debian packages and the user."""
    dry = run("make", "--dry-run", "serve", "PYTHON=python3.11", "PORT=8000", "ARGS=")
    made = dry.replace("\\\n", " ").splitlines()
    commands = [part.strip() for rest in of("Dockerfile.cpu", "RUN") for part in rest.split("&&")]
    own = ("apt-get ", "rm -rf /var/lib/apt", "useradd ", "install ")
    assert {c for c in commands if not c.startswith(own)} == {line.strip() for line in made[:-1]}
    served = shlex.split(made[-1])
    variables = {word for word in served if re.match(r"[A-Z_]+=", word)}
    assert variables <= set(of("Dockerfile.cpu", "ENV")[0].split())
    (entry,) = of("Dockerfile.cpu", "ENTRYPOINT")
    assert json.loads(entry) == [word for word in served if word not in variables]


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_fits_the_schema(name) -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / name)


def test_what_compose_mounts_and_builds_exists() -> None:
    services = COMPOSE["compose.yaml"]["services"]
    assert set(services) == {"server", "prometheus", "grafana", "locust"}
    volumes = COMPOSE["compose.yaml"]["volumes"]
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        for source in (volume.split(":")[0] for volume in service.get("volumes", [])):
            assert source in volumes or (DOCKER / source).exists(), source
        if "dockerfile" in service.get("build", {}):
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert set(service.get("depends_on", [])) <= set(services)


def test_prometheus_and_grafana_find_each_other() -> None:
    """Addresses and folders in the provisioned files are those of the services and mounts."""
    services = COMPOSE["compose.yaml"]["services"]
    scrape = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape[0]["static_configs"][0]["targets"] == ["server:8000"]
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/vtprune.yaml").read_text())[
        "providers"
    ]
    targets = {volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    assert {provider["options"]["path"], "/etc/grafana/provisioning"} <= targets


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    """Names and labels of ours as `metrics` defines them, all of them shown; vLLM's as its source
    spells them."""
    board = json.loads((DOCKER / "grafana/dashboards/vtprune.json").read_text())
    targets = [target for panel in board["panels"] for target in panel.get("targets", [])]
    text = "\n".join(target["expr"] for target in targets)
    ours = {m.name: m for m in vars(metrics).values() if isinstance(m, metrics.Metric)}
    series = {f"{m.name}_total" if m.is_counter else m.name for m in ours.values()}
    series |= {f"{h.name}_bucket" for h in vars(metrics).values() if is_histogram(h)}
    assert set(re.findall(r"\bvtprune_\w+", text)) == series
    for labels, name in re.findall(r"by \(([\w, ]+)\) \(rate\((vtprune_\w+)_total", text):
        assert set(labels.split(", ")) <= set(ours[name].labels)
    (variable,) = board["templating"]["list"]
    chosen = f'{{{variable["name"]}=~"${variable["name"]}"}}'
    assert variable["name"] == "model_name"
    assert len(re.findall(r"\b(?:vtprune_|vllm:)\w+", text)) == text.count(chosen)
    source = (Path(find_spec("vllm").origin).parent / "v1/metrics/loggers.py").read_text()
    for name in set(re.findall(r"\bvllm:\w+", text)):
        assert f'"{re.sub("_(bucket|total)$", "", name)}"' in source, name


def is_histogram(value: object) -> bool:
    return isinstance(value, metrics.Histogram)


def commands() -> dict[str, list[str]]:
    """The arguments of `vllm serve` in every container."""
    deploy = DOCKER / "deploy"
    (stack,) = yaml.safe_load((deploy / "production-stack.yaml").read_text())["servingEngineSpec"][
        "modelSpec"
    ]
    runtime, _ = yaml.safe_load_all((deploy / "kserve.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    assert container["command"] == ["vllm", "serve"]
    (entry,) = of("Dockerfile.cpu", "ENTRYPOINT")
    return {
        "cpu": json.loads(entry)[2:],
        "gpu": COMPOSE["compose.gpu.yaml"]["services"]["server"]["command"],
        "production-stack": [stack["modelURL"], *stack["vllmConfig"]["extraArgs"]],
        "kserve": container["args"],
    }


SCRIPT = """
import json, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

commands, model, kwargs = json.load(sys.stdin)
parsed = {}
for name, arguments in commands.items():
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
    args.model = model  # `vllm serve` puts its first word here; the hub cannot be reached
    engine = AsyncEngineArgs.from_cli_args(args)
    parsed[name] = engine.mm_processor_kwargs["vtprune"]
config = AsyncEngineArgs(model=model, **kwargs).create_engine_config().model_config
settings = config.multimodal_config.mm_processor_kwargs
print("found", json.dumps([parsed, settings, str(config.model_class_overrides)]))
"""


@pytest.mark.slow
def test_vllm_takes_the_arguments_and_prunes() -> None:
    """vLLM's own parser for the command lines, its engine configuration for the Ray file."""
    ray = yaml.safe_load((DOCKER / "deploy" / "ray-serve.yaml").read_text())
    (llm,) = ray["applications"][0]["args"]["llm_configs"]
    sent: list[Any] = [commands(), str(MODELS / "demo"), llm["engine_kwargs"]]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(sent),
        env=environment(),
        cwd=MODELS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("found ")]
    parsed, kwargs, overrides = json.loads(line.removeprefix("found "))
    assert {name: settings.get("tokens") for name, settings in parsed.items()} == {
        "cpu": None,
        "gpu": None,
        "production-stack": 64,
        "kserve": 64,
    }
    assert kwargs["vtprune"]["tokens"] == 64
    assert "vllm_pruner" in overrides
