"""Do pictures delay those who only write? One half of the requests has no picture."""

from _client import ChatUser
from _media import Media, image_part, text_part

WORDS = 60


class MixedTraffic(ChatUser):
    """A new picture or a text without one, each in half of the requests and reported apart."""

    def visit(self, media: Media) -> None:
        if media.choose.random() < 0.5:
            content = [image_part(media.image()), text_part(media.question())]
            self.ask([{"role": "user", "content": content}], f"{self.name}: picture")
        else:
            content = [text_part(f"Add these numbers: {media.digits(WORDS)}")]
            self.ask([{"role": "user", "content": content}], f"{self.name}: text")
