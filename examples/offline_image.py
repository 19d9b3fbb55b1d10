"""Ask a model about a picture without a server, keeping 64 of its visual tokens.

    python examples/offline_image.py MODEL PICTURE "What is this?"

Needs vLLM and vtprune. With the demo model on a CPU, after `make setup`:
`.venv/bin/python examples/offline_image.py demo/llava assets/scene.png "What color is the heart?"`
"""

import base64
import sys
from pathlib import Path

from vllm import LLM, SamplingParams


def main() -> None:
    """Answer one question."""
    model, picture, question = sys.argv[1:4]
    url = "data:image/jpeg;base64," + base64.b64encode(Path(picture).read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": question},
    ]
    llm = LLM(model, max_model_len=4096, mm_processor_kwargs={"vtprune": {"tokens": 64}})
    sampling = SamplingParams(temperature=0, max_tokens=32)
    (output,) = llm.chat([{"role": "user", "content": content}], sampling)
    print(len(output.prompt_token_ids or []), "prompt tokens:", output.outputs[0].text)


if __name__ == "__main__":
    main()
