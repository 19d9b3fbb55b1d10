"""The data sets by name: the built-in synthetic ones, and published ones from local files."""

from vllm_pruner.evaluate.datasets.gqa import GQA
from vllm_pruner.evaluate.datasets.mme import MME
from vllm_pruner.evaluate.datasets.pope import POPE
from vllm_pruner.evaluate.datasets.scienceqa import SCIENCEQA
from vllm_pruner.evaluate.datasets.synthetic import SYNTHETIC, SYNTHETIC_2
from vllm_pruner.evaluate.datasets.textvqa import TEXTVQA
from vllm_pruner.evaluate.datasets.vqav2 import VQAV2

__all__ = ["DATASETS"]

DATASETS = {
    dataset.name: dataset
    for dataset in (SYNTHETIC, SYNTHETIC_2, GQA, MME, POPE, SCIENCEQA, TEXTVQA, VQAV2)
}
