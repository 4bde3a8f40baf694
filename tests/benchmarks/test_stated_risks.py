import runpy
from pathlib import Path

import numpy as np

from response_tuning.report.selective import Answers

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/stated_risks.py"))


def test_thresholds_that_count_every_answer_break_their_word_more_often() -> None:
    """All eight answers about a fact are right, or none is."""
    draw = np.random.default_rng(0)
    of_fact = draw.uniform(0.5, 1, size=60)
    right = np.repeat(draw.uniform(size=60) < of_fact, 8).astype(float)
    sure, facts = np.repeat(of_fact, 8), np.repeat(np.arange(60), 8)
    answers = Answers(sure, right, np.arange(480), facts)
    halved = SCRIPT["halved"]
    by_cluster = halved(answers, 0.2, by_cluster=True, splits=100)
    alone = halved(answers, 0.2, by_cluster=False, splits=100)
    assert by_cluster.found < alone.found
    assert by_cluster.exceeded <= 5 < alone.exceeded
