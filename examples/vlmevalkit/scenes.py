"""VLMEvalKit with a data set of one's own: the demo's pictures and questions.

    LMUData=FOLDER python examples/vlmevalkit/scenes.py --config models.json --work-dir out

FOLDER has GQA_Scenes.tsv, as `benchmarks/harnesses.py` writes it; models.json names servers and
their settings (docs/evaluation.md). All other flags are those of `vlmeval.run`.
"""

from __future__ import annotations

from typing import Any

import vlmeval.dataset
from vlmeval import run
from vlmeval.dataset import ImageVQADataset
from vlmeval.dataset.image_base import ImageBaseDataset


class Scenes(ImageVQADataset):  # type: ignore[misc]  # VLMEvalKit has no types
    """Short answers. VLMEvalKit scores by the data set's name: with "GQA" in it an answer is right
    or wrong. Below each question it asks for "a single word or phrase"; this one leaves that out,
    since the demo's model knows its own questions only."""

    def build_prompt(self, line: Any) -> Any:
        return ImageBaseDataset.build_prompt(self, line)


if __name__ == "__main__":
    # A configuration names classes of this module.
    vlmeval.dataset.Scenes = Scenes
    run.main()
