"""What does one question about one new picture cost? The simplest traffic, with nothing cached."""

from _client import ChatUser
from _media import Media, image_part, text_part


class SingleImage(ChatUser):
    """A question about one picture that the server has never seen."""

    def visit(self, media: Media) -> None:
        content = [image_part(media.image()), text_part(media.question())]
        self.ask([{"role": "user", "content": content}])
