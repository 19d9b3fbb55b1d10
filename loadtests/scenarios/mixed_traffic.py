"""Do pictures delay requests without any? Half of the requests have no picture."""

from _client import ChatUser
from _media import Media, image_part, text_part

WORDS = 60


class MixedTraffic(ChatUser):
    """A new picture or only a text, each in half of the requests and reported separately."""

    def visit(self, media: Media) -> None:
        if media.choose.random() < 0.5:
            content = [image_part(media.image()), text_part(media.question())]
            self.ask([{"role": "user", "content": content}], f"{self.name}: picture")
        else:
            content = [text_part(f"Add these numbers: {media.digits(WORDS)}")]
            self.ask([{"role": "user", "content": content}], f"{self.name}: text")
