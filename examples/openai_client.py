"""Ask a running server about a picture with OpenAI's own client, which needs no change for pruning.

make serve
.venv/bin/python examples/openai_client.py assets/photos/cat.jpg "What is in this picture?"
"""

import base64
import sys
from pathlib import Path

from openai import OpenAI


def main() -> None:
    """Answer one question."""
    picture, question = sys.argv[1:3]
    url = "data:image/jpeg;base64," + base64.b64encode(Path(picture).read_bytes()).decode()
    client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
    completion = client.chat.completions.create(
        model=client.models.list().data[0].id,
        max_tokens=32,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": question},
                ],
            }
        ],
    )
    assert completion.usage is not None
    print(completion.usage.prompt_tokens, "prompt tokens:", completion.choices[0].message.content)


if __name__ == "__main__":
    main()
