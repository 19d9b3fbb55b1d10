"""The data sets by name: built-in synthetic ones, published ones read from local files, own, and
any task of lmms-eval."""

from vtprune_evaluate.datasets.gqa import GQA
from vtprune_evaluate.datasets.mme import MME
from vtprune_evaluate.datasets.own import OWN
from vtprune_evaluate.datasets.pages import PAGES, PAGES_LARGE
from vtprune_evaluate.datasets.pope import POPE
from vtprune_evaluate.datasets.scienceqa import SCIENCEQA
from vtprune_evaluate.datasets.synthetic import SYNTHETIC, SYNTHETIC_2, SYNTHETIC_RAGGED
from vtprune_evaluate.datasets.textvqa import TEXTVQA
from vtprune_evaluate.datasets.vqav2 import VQAV2
from vtprune_evaluate.lmms.task import LMMS_EVAL

__all__ = ["DATASETS"]

DATASETS = {
    dataset.name: dataset
    for dataset in (
        *(SYNTHETIC, SYNTHETIC_2, SYNTHETIC_RAGGED, PAGES, PAGES_LARGE),
        *(GQA, MME, POPE, SCIENCEQA, TEXTVQA, VQAV2, OWN, LMMS_EVAL),
    )
}
