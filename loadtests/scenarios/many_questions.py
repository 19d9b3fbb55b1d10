"""How much is saved when many users ask different questions about a few pictures?"""

from functools import cache

from _client import ChatUser
from _media import Media, image_part, text_part

PICTURES = 4


class ManyQuestions(ChatUser):
    """A question about one of four pictures, which all users share."""

    def visit(self, media: Media) -> None:
        urls = _shared(f"{self.options.seed}/shared", self.options.pictures)
        text = f"{media.question()} Remember the number {media.digits(4)}."
        content = [image_part(media.choose.choice(urls)), text_part(text)]
        self.ask([{"role": "user", "content": content}])


@cache
def _shared(seed: str, kind: str) -> list[str]:
    media = Media(seed, kind)
    return [media.image() for _ in range(PICTURES)]
