"""Do later turns find the pruned picture in the prefix cache? A conversation about one picture."""

from _client import ChatUser
from _media import QUESTIONS, Media, image_part, text_part

TURNS = 4


class MultiTurn(ChatUser):
    """Four questions about one new picture, each after the answer to the last.

    The first turn, in which the picture is new, is reported separately.
    """

    def visit(self, media: Media) -> None:
        questions = media.choose.sample(QUESTIONS, TURNS)
        content = [image_part(media.image()), text_part(questions[0])]
        messages: list[dict[str, object]] = [{"role": "user", "content": content}]
        for question in [*questions[1:], None]:
            first = len(messages) == 1
            answer = self.ask(messages, f"{self.name}: {'first turn' if first else 'later turn'}")
            messages.append({"role": "assistant", "content": answer})
            messages.append({"role": "user", "content": question})
