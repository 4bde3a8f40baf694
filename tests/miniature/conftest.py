from itertools import islice

import pytest

from response_tuning.miniature.corpus import documents
from response_tuning.miniature.writer import Mixture


@pytest.fixture(scope="session")
def corpus() -> str:
    """The first 12,000 documents of the corpus, kept apart by a byte that no document holds."""
    return "\n\0\n".join(islice(documents(0, Mixture()), 12000))
