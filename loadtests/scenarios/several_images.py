"""What happens when visual tokens fill the context? Two to four new pictures in one question."""

from _client import ChatUser
from _media import Media, image_part, text_part


class SeveralImages(ChatUser):
    """A question about two to four new pictures."""

    def visit(self, media: Media) -> None:
        pictures = [image_part(media.image()) for _ in range(media.choose.randint(2, 4))]
        self.ask([{"role": "user", "content": [*pictures, text_part(media.question())]}])
