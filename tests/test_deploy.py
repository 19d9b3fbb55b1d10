"""The manifests of `docker/deploy` against the schemas of the projects that read them.

The schemas are those of a checkout each in the folder that `VTPRUNE_SCHEMAS` names, as the workflow
`nightly` makes it; that of Ray is in Ray itself. Nothing of theirs is in this repository.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

DEPLOY = Path(__file__).parents[1] / "docker" / "deploy"
SCHEMAS = Path(os.environ.get("VTPRUNE_SCHEMAS", ""))

needs_schemas = pytest.mark.skipif(
    not os.environ.get("VTPRUNE_SCHEMAS"), reason="VTPRUNE_SCHEMAS names no folder of checkouts"
)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed; `make test-ray`"
)


_HANDED_ON = "containerSecurityContext"
"""A value that the production stack hands on whole; its schema names one key of it."""


def strict(schema: Any) -> Any:
    """The same schema, which takes no key that it does not name where it names any: a cluster would
    drop such a key in silence, and so a misspelt one."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if _HANDED_ON in schema.get("properties", ()):
        made["properties"][_HANDED_ON] = {"type": "object"}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        open_to_all = schema.get("x-kubernetes-preserve-unknown-fields", False)
        made.setdefault("additionalProperties", bool(open_to_all))
    return made


def faults(schema: Any, manifest: Any) -> list[str]:
    validator = Draft202012Validator(strict(schema))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def crd(kind: str) -> Any:
    """What KServe's definition of a kind says of the version that the manifest names."""
    file = SCHEMAS / f"kserve/config/crd/full/serving.kserve.io_{kind.lower()}s.yaml"
    definition = yaml.load(file.read_text(), yaml.CSafeLoader)
    return {
        each["name"]: each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"]
    }


def values_schema() -> Any:
    return json.loads((SCHEMAS / "production-stack/helm/values.schema.json").read_text())


@needs_schemas
def test_kserve_knows_every_field() -> None:
    manifests = list(yaml.safe_load_all((DEPLOY / "kserve.yaml").read_text()))
    assert [manifest["kind"] for manifest in manifests] == ["ServingRuntime", "InferenceService"]
    for manifest in manifests:
        schema = crd(manifest["kind"])[manifest["apiVersion"].rpartition("/")[2]]
        for always in ("apiVersion", "kind", "metadata"):
            assert always in schema["properties"]
        schema["properties"]["metadata"] = True  # the cluster's own
        assert faults(schema, manifest) == []
        assert faults(schema, {**manifest, "spec": {**manifest["spec"], "modles": 1}}) != []


@needs_schemas
def test_the_production_stack_knows_every_value() -> None:
    values = yaml.safe_load((DEPLOY / "production-stack.yaml").read_text())
    assert faults(values_schema(), values) == []
    (model,) = values["servingEngineSpec"]["modelSpec"]
    model["vllmConfig"]["extraArg"] = []
    assert faults(values_schema(), values) != []


@needs_ray
def test_ray_takes_the_configuration() -> None:
    """Its own classes, as `serve run` reads it."""
    from ray.llm._internal.serve.core.ingress.builder import LLMServingArgs
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(
        yaml.safe_load((DEPLOY / "ray-serve.yaml").read_text())
    )
    (application,) = config.applications
    (llm,) = LLMServingArgs.model_validate(application.args).llm_configs
    assert llm.engine_kwargs["mm_processor_kwargs"] == {"vtprune": {"tokens": 64}}
