"""How the sandbox counts tokens: simply, and the same way everywhere.

What is read costs one token for every four UTF-8 bytes begun, and four more for each message.
What is said is cut into tokens: runs of whole characters of at most four UTF-8 bytes.
For ASCII both are the same count.
"""

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4


def size(text: str) -> int:
    """In UTF-8 bytes; a lone surrogate, which JSON can carry, counts as the three it would take."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count(text: str) -> int:
    return -(-size(text) // BYTES_PER_TOKEN)


def of_message(text: str) -> int:
    return TOKENS_PER_MESSAGE + count(text)


def split(text: str) -> list[str]:
    """The tokens of a text that is said; together they are the text."""
    if text.isascii():
        return [text[start : start + BYTES_PER_TOKEN] for start in range(0, len(text), BYTES_PER_TOKEN)]
    pieces: list[str] = []
    room = 0
    for character in text:
        taken = size(character)
        if taken > room:
            pieces.append("")
            room = BYTES_PER_TOKEN
        pieces[-1] += character
        room -= taken
    return pieces
