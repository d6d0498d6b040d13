"""When two short answers are the same: the normalisation of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250)."""

from __future__ import annotations

import re
import string

_NO_MARKS = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """An answer as it is compared: lower case, without ASCII punctuation, articles and spare white space.

    The steps and their order are those of SQuAD's evaluation script (arXiv 1606.05250, section 6.1): marks are deleted,
    not made spaces (`rock-n-roll` is `rocknroll`), and articles are `a`, `an` and `the` as whole words. An answer of
    nothing else (`The A.`) becomes the empty string.

    **Arguments:**

    - `text`: an answer.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_MARKS)).split())


def tokens_of(text: str) -> list[str]:
    """The words of a normalised answer, of which SQuAD's F1 counts the common ones."""
    return normalise(text).split()
