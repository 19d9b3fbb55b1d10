"""Settled when a server starts: a family's method and rate, and flags that cannot go with it."""

from __future__ import annotations

from typing import Any

import pytest
from started import engine_arguments
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm_process import MODELS

from vllm_pruner import compat, plugin
from vllm_pruner.settings.errors import ConfigError

pytestmark = pytest.mark.server
ADAPTERS = {"enable_tower_connector_lora": True, "enable_lora": True}
FOREIGN = {"model_impl": "transformers"}
older = pytest.mark.skipif(not compat.encoder_graphs_known(), reason="another vLLM, 0.31")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"method": "vispruner", "rate": 0.5}),
        ({"method": "triad", "rate": None}, {"method": "triad", "rate": 0.5}),
        ({"rate": 0.3}, {"method": "vispruner", "rate": 0.3}),
        ({"method": "scope", "tokens": 9}, {"method": "scope", "tokens": 9}),
        ({"rate": 0.0}, {"method": "vispruner", "rate": 0.0}),
        (
            {"options": {"step": 4}, "limits": {"max_rate": 0.6, "methods": ["vispruner"]}},
            {
                "method": "vispruner",
                "rate": 0.5,
                "options": {"step": 4},
                "limits": {"max_rate": 0.6, "methods": ["vispruner"]},
            },
        ),
    ],
    ids=str,
)
def test_a_family_has_a_method_and_a_rate_of_its_own_unless_the_operator_names_them(
    settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The same for every configuration made of the same arguments; some callers make two."""
    arguments = engine_arguments("demo-qwen3", settings)
    for _ in range(2):
        config: Any = arguments.create_model_config().multimodal_config
        assert config.mm_processor_kwargs["vtprune"] == expected
    assert arguments.mm_processor_kwargs == {"vtprune": expected}


def test_scope_keeps_one_ninth_of_llava_s() -> None:
    config: Any = engine_arguments("demo", {}).create_model_config().multimodal_config
    assert config.mm_processor_kwargs["vtprune"] == {"method": "scope", "rate": 8 / 9}


@pytest.mark.parametrize(
    ("model", "limits", "sentence"),
    [
        ("demo", {"max_rate": 0.6}, "rate is 0.888889; allowed: rates from 0 to 0.6, by limits"),
        ("demo-qwen3", {"min_rate": 0.6}, "rate is 0.5; allowed: rates from 0.6 to below 1, by "),
    ],
)
def test_the_limits_hold_for_a_family_s_own_rate(
    model: str, limits: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        engine_arguments(model, {"limits": limits}).create_model_config()
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("model", "flag", "sentence"),
    [
        (
            "demo",
            '--prune-limits={"max_rate": 0.6}',
            "--prune-rate is 0.888889; allowed: rates from 0 to 0.6, by --prune-limits",
        ),
        (
            "demo",
            '--prune-options={"step": 4}',
            "--prune-options.step is 4 but scope has no such option; allowed: alpha; "
            "--prune-method vispruner has it",
        ),
        (
            "demo-qwen3",
            '--prune-options={"alpha": 1}',
            "--prune-options.alpha is 1 but vispruner has no such option; "
            "allowed: important_ratio, step; --prune-method hiprune or scope has it",
        ),
        (
            "demo-qwen3",
            '--prune-limits={"methods": ["scope"]}',
            "--prune-method is 'vispruner'; allowed: scope, by --prune-limits",
        ),
    ],
    ids=["rate", "option", "qwen's option", "qwen's method"],
)
def test_what_only_the_model_can_refuse_is_said_in_flags_too(
    model: str, flag: str, sentence: str
) -> None:
    plugin.register()
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    args = parser.parse_args([f"--model={MODELS / model}", "--plugin=vtprune", flag])
    with pytest.raises(SystemExit) as raised:
        EngineArgs.from_cli_args(args).create_model_config()
    assert str(raised.value) == f"vtprune: {sentence}"


def test_a_class_of_somebody_else_is_not_replaced() -> None:
    theirs = {"Qwen3VLForConditionalGeneration": "elsewhere:Mine"}
    arguments = engine_arguments("demo-qwen3", {}, model_class_overrides=theirs)
    with pytest.raises(ConfigError, match=r"^model_class_overrides has Qwen3VLFor"):
        arguments.create_model_config()


@pytest.mark.parametrize(
    ("model", "flags", "sentence"),
    [
        (
            "demo-qwen3",
            {"pipeline_parallel_size": 2},
            "pipeline_parallel_size is 2; allowed: 1 with this model, ",
        ),
        pytest.param(
            "demo-qwen2",
            {"video_pruning_rate": 0.5},
            "video_pruning_rate is 0.5, but beside vtprune this vLLM does not prune the videos of "
            "qwen2_vl; allowed: 0",
            marks=older,
        ),
        pytest.param(
            "demo-qwen3.5",
            {"video_pruning_rate": 0.5},
            "video_pruning_rate is 0.5, but beside vtprune this vLLM does not prune the videos of "
            "qwen3_5; ",
            marks=older,
        ),
        (
            "demo-qwen3",
            {"compilation_config": {"compile_mm_encoder": True}},
            "compile_mm_encoder is True; allowed: False, ",
        ),
        (
            "demo",
            {"mm_encoder_tp_mode": "data", "tensor_parallel_size": 2},
            "mm_encoder_tp_mode is 'data'; allowed: 'weights' with this model, ",
        ),
        ("demo", FOREIGN, "model_impl is 'transformers'; allowed: 'auto' or 'vllm', "),
        ("demo-qwen2.5", FOREIGN, "model_impl is 'transformers'; allowed: 'auto' or 'vllm', "),
        ("demo-qwen2.5", ADAPTERS, "enable_tower_connector_lora is True; allowed: False, "),
    ],
    ids=["pipeline", "video", "broken video", "compiled", "shards", "llava", "qwen", "adapters"],
)
def test_a_flag_that_cannot_be_right_is_named(
    model: str, flags: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        engine_arguments(model, {}, **flags).create_model_config()
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("settings", "flags", "sentence"),
    [
        (
            {"shadow": 0.5},
            {"disable_log_stats": True},
            "disable_log_stats is True beside shadow 0.5; allowed: False, ",
        ),
        (
            {"shadow": 0.5, "shadow_log": "/nowhere/shadows.jsonl"},
            {},
            "shadow_log is /nowhere/shadows.jsonl but no such file or directory; allowed: a file ",
        ),
    ],
    ids=["stats", "log"],
)
def test_shadows_that_could_not_be_are_refused(
    settings: dict[str, Any], flags: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        engine_arguments("demo", settings, **flags).create_model_config()
    assert str(raised.value).startswith(sentence)


def test_graphs_that_end_before_the_selection_are_switched_off(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.logger.parent, "propagate", True)
    arguments = engine_arguments(
        "demo-mistral3", {}, compilation_config={"cudagraph_mm_encoder": True}
    )
    arguments.create_model_config()
    assert not arguments.compilation_config.cudagraph_mm_encoder
    assert "cudagraph_mm_encoder is switched off" in caplog.text


@older
@pytest.mark.parametrize(
    ("settings", "flags", "on_cuda", "captured"),
    [
        ({}, {}, True, True),
        ({}, {}, False, False),
        ({"tower_graphs": False}, {}, True, False),
        ({}, {"enforce_eager": True}, True, False),
    ],
    ids=["default", "no GPU", "off", "eager"],
)
def test_the_tower_of_llava_runs_as_graphs_on_a_gpu(
    settings: dict[str, Any],
    flags: dict[str, Any],
    on_cuda: bool,
    captured: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the operator's own `cudagraph_mm_encoder` says, which goes with a sentence."""
    monkeypatch.setattr(compat, "on_cuda", lambda: on_cuda)
    monkeypatch.setattr(plugin.logger.parent, "propagate", True)
    for asked in (False, True):
        caplog.clear()
        asked_for = {"cudagraph_mm_encoder": asked}
        arguments = engine_arguments("demo", settings, compilation_config=asked_for, **flags)
        arguments.create_model_config()
        assert arguments.compilation_config.cudagraph_mm_encoder == captured
        assert ("is switched off" in caplog.text) == (asked and not captured)


ASKED_FOR = """qwen2 qwen2.5 qwen3 qwen3-moe qwen3.5 qwen3.5-moe glm4v glm4v-moe
    qwen4 ernie4.5 internvl internvl-chat idefics3 smolvlm llama4"""


@older
@pytest.mark.parametrize(
    ("name", "asked"), [("qwen2.5", False), *((name, True) for name in ASKED_FOR.split())]
)
def test_other_towers_run_as_graphs_where_that_is_asked_for(
    name: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "on_cuda", lambda: True)
    flags = {"compilation_config": {"cudagraph_mm_encoder": asked}, "trust_remote_code": True}
    arguments = engine_arguments(f"demo-{name}", {}, **flags)
    arguments.create_model_config()
    assert arguments.compilation_config.cudagraph_mm_encoder == asked


@older
@pytest.mark.parametrize(
    ("name", "settings", "flags"),
    [
        ("qwen2.5", {"rate": 0.0}, {}),
        ("qwen2.5", {"rate": 0.0}, {"mm_encoder_tp_mode": "data"}),
        ("qwen2.5", {"tower_graphs": False}, {}),
        ("gemma3", {"rate": 0.0}, {}),
        ("kimi", {"rate": 0.0}, {}),
        *((name, {}, {}) for name in ("kimi", "kimi-k2.5", "kimi-k3", "minimax-m3")),
        ("gemma4", {}, {}),
    ],
    ids=str,
)
def test_vllms_own_graphs_alone_are_as_the_operator_asks(
    name: str, settings: dict[str, Any], flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "on_cuda", lambda: True)
    for asked in (False, True):
        compilation = {"compilation_config": {"cudagraph_mm_encoder": asked}}
        both = {"trust_remote_code": True, **compilation, **flags}
        arguments = engine_arguments(f"demo-{name}", settings, **both)
        arguments.create_model_config()
        assert arguments.compilation_config.cudagraph_mm_encoder == asked


@older
@pytest.mark.parametrize(
    ("settings", "flags", "on_cuda"),
    [
        ({"rate": 0.0, "rate_under_load": 0.5}, {"enforce_eager": True}, True),
        ({"rate": 0.0}, {"enforce_eager": True}, True),
        ({"rate": 0.0}, {}, False),
    ],
    ids=["eager under load", "eager", "no GPU"],
)
def test_what_stops_vllms_own_graphs(
    settings: dict[str, Any], flags: dict[str, Any], on_cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "on_cuda", lambda: on_cuda)
    compilation = {"compilation_config": {"cudagraph_mm_encoder": True}}
    arguments = engine_arguments("demo-qwen2.5", settings, **compilation, **flags)
    arguments.create_model_config()
    assert not arguments.compilation_config.cudagraph_mm_encoder


def test_flags_that_only_move_positions_do_not_matter_to_llava() -> None:
    assert engine_arguments("demo", {}, pipeline_parallel_size=2).create_model_config()
