"""Writes models that vLLM builds from the parts of another: a checkpoint of that one, then what is
their own."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from intern import write as write_intern
from omni import write as write_omni
from qwen import write as write_qwen
from qwen4 import write_qwen4
from qwen_relatives import as_cosmos3, write_exaone
from shapes import InternShape, QwenShape, RelativeShape
from weights import load_weights, save_weights

HERE = Path(__file__).parent
CODE = "configuration_relatives"
BANKS = 2
"""Of experts, that four layers of Intern-S2-Mobius share."""
Config = dict[str, Any]


def rewrite(folder: Path, architecture: str, model_type: str, own: str = "", **fields: Any) -> None:
    """Change the configuration.

    Args:
        folder: of the checkpoint.
        architecture: as vLLM calls it.
        model_type: as its authors call it.
        own: the class of the configuration, if transformers has none.
        fields: others; None takes one away.
    """
    file = folder / "config.json"
    config = json.loads(file.read_text()) | {"architectures": [architecture], **fields}
    config |= {"model_type": model_type, "auto_map": None}
    if own:
        config["auto_map"] = {"AutoConfig": f"{CODE}.{own}"}
        shutil.copy(HERE / "remote" / f"{CODE}.py", folder)
    known = {name: value for name, value in config.items() if value is not None}
    file.write_text(json.dumps(known, indent=2))


def write_interns1(seed: int, folder: Path) -> None:
    write_intern(InternShape(2, seed, chat=False, text="qwen3"), folder)
    rewrite(folder, "InternS1ForConditionalGeneration", "interns1", "InternS1Config")


def write_skywork(seed: int, folder: Path) -> None:
    write_intern(InternShape(2, seed), folder)
    rewrite(folder, "SkyworkR1VChatModel", "skywork_chat", "SkyworkChatConfig")


def write_qianfan(seed: int, folder: Path) -> None:
    """vLLM has its configuration."""
    write_intern(InternShape(2, seed, text="qwen3"), folder)
    parent: Config = json.loads((folder / "config.json").read_text())
    parts = {"text_config": parent["llm_config"], "llm_config": None}
    parts["vision_config"] = parent["vision_config"] | {"model_type": "qianfan_ocr_vision"}
    rewrite(folder, "QianfanOCRForConditionalGeneration", "qianfan_ocr", **parts)


def write_interns2(seed: int, folder: Path) -> None:
    """With weights for time series, which vLLM leaves out."""
    write_qwen(QwenShape("3.5-moe", 4, seed, dtype="bfloat16"), folder)
    own = ("intern_s2_preview", "InternS2PreviewConfig")
    rewrite(folder, "InternS2PreviewForConditionalGeneration", *own)
    series = {"model.time_series.encoder.weight": torch.ones(4, 4)}
    save_weights(load_weights(folder) | series, folder)


def write_mobius(seed: int, folder: Path) -> None:
    """The routed experts of the first layers are banks, of which each layer has the next one."""
    write_qwen(QwenShape("3.5-moe", 4, seed, dtype="bfloat16"), folder)
    file = folder / "config.json"
    text = json.loads(file.read_text())["text_config"] | {"num_blocks": BANKS}
    own = ("interns2_mobius", "InternS2MobiusConfig")
    rewrite(folder, "InternS2MobiusForConditionalGeneration", *own, text_config=text)
    save_weights(with_banks(load_weights(folder)), folder)


def with_banks(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    made = {}
    for name, weight in weights.items():
        routed = re.match(r"(.*)layers\.(\d+)\.mlp\.((?:gate|experts)\..*)", name)
        if routed is None:
            made[name] = weight
        elif int(routed[2]) < BANKS:
            made[f"{routed[1]}meta_mlp.{routed[2]}.{routed[3]}"] = weight
    return made


def write_cosmos3(seed: int, folder: Path) -> None:
    write_qwen(QwenShape("3", 4, seed), folder)
    rewrite(folder, "Cosmos3ForConditionalGeneration", "cosmos3_omni")
    for part, weights in as_cosmos3(load_weights(folder)).items():
        (folder / part).mkdir()
        save_weights(weights, folder / part)
    (folder / "model.safetensors").unlink()


WRITERS: dict[str, Callable[[int, Path], None]] = {
    "interns1": write_interns1,
    "interns2": write_interns2,
    "mobius": write_mobius,
    "exaone4.5": write_exaone,
    "cosmos3": write_cosmos3,
    "skywork": write_skywork,
    "qianfan": write_qianfan,
    "qwen4": write_qwen4,
    "qwen2.5-omni": lambda seed, folder: write_omni(QwenShape("2.5", 2, seed), folder),
    "qwen3-omni": lambda seed, folder: write_omni(QwenShape("3-moe", 4, seed), folder),
}


def write(shape: RelativeShape, folder: Path) -> None:
    WRITERS[shape.name](shape.seed, folder)
