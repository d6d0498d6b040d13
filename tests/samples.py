"""Small files that several tests read."""

from __future__ import annotations

from pathlib import Path

TOWNS = [
    f"{first}{last}" for first in ("Bar", "Kel", "Mon", "Tor", "Ves") for last in ("dal", "ham", "sk", "ton", "um")
]


def write_statements(file: Path) -> Path:
    """True and false, affirmed and negated sentences about 25 towns and as many words, in our own columns."""
    lines = ["text,label,topic,polarity,group"]
    for topic, form in (("towns", "The town of {} is{} in {}."), ("words", "The word {} does{} mean {}.")):
        for index, town in enumerate(TOWNS):
            for right in (1, 0):
                for polarity, word in (("affirmative", ""), ("negated", " not")):
                    text = form.format(town, word, ("north", "south")[(index + right) % 2])
                    label = right if polarity == "affirmative" else 1 - right
                    lines.append(f"{text},{label},{topic},{polarity},{topic}:{town}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def write_corpus(file: Path, entries: int = 20) -> Path:
    """A .txt corpus of about 50 tokens an entry for the tests' tokenizer."""
    text = "\n\n".join(
        f"Note {n}: the river rises in spring, and the {TOWNS[n % 25]} bridge closes." for n in range(entries)
    )
    file.write_text(text, encoding="utf-8")
    return file
