"""The paper's core capabilities (section 4.1, Table 12), as lm-eval measures them.

Prompts, few-shot examples, choices and metrics are lm-eval's own; this file says where the rows
come from. See ``docs/benchmarks/core.md``. ``prompts`` counts the documents of the
hub's datasets that lm-eval 0.4.13 asks; for ``core-arc``, 2,376 easy and 1,172 hard ones.
"""

from response_tuning.grade.benchmark import BENCHMARKS
from response_tuning.grade.lm_eval.tasks import LmEvalBenchmark
from response_tuning.grade.sources import BenchmarkSource

SUITE = "core"

BENCHMARKS.register("core-arc")(
    LmEvalBenchmark(
        "core-arc",
        SUITE,
        folder="arc",
        sources={
            part: BenchmarkSource(
                "core-arc", f"arc/{part}_validation.jsonl", "allenai/ai2_arc", "test"
            )
            for part in ("arc_easy", "arc_challenge")
        },
        columns=({"question": str, "choices": dict, "answerKey": str},),
        is_mean_of_tasks=True,
        prompts=3548,
    )
)
BENCHMARKS.register("core-gsm8k")(
    LmEvalBenchmark(
        "core-gsm8k",
        SUITE,
        folder="gsm8k",
        sources={
            "gsm8k_cot_llama": BenchmarkSource(
                "core-gsm8k", "gsm8k/test.jsonl", "openai/gsm8k", "test"
            )
        },
        columns=({"question": str, "answer": str},),
        metrics=("exact_match_strict", "exact_match_flexible"),
        prompts=1319,
    )
)
BENCHMARKS.register("core-hellaswag")(
    LmEvalBenchmark(
        "core-hellaswag",
        SUITE,
        folder="hellaswag",
        sources={
            "hellaswag": BenchmarkSource(
                "core-hellaswag",
                "hellaswag/hellaswag_val_subset_half.jsonl",
                "Rowan/hellaswag",
                "validation",
            )
        },
        columns=(
            # The first layout is what lm-eval makes of the second.
            {"query": str, "choices": list, "gold": int},
            {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list, "label": object},
        ),
        prompts=10_042,
    )
)
BENCHMARKS.register("core-mmlu")(
    LmEvalBenchmark(
        "core-mmlu",
        SUITE,
        folder="mmlu/default",
        sources={"mmlu": BenchmarkSource("core-mmlu", "mmlu/test_half.jsonl", "cais/mmlu", "test")},
        columns=({"subject": str, "question": str, "choices": list, "answer": int},),
        metrics=("acc",),
        prompts=14_042,
    )
)
BENCHMARKS.register("core-openbookqa")(
    LmEvalBenchmark(
        "core-openbookqa",
        SUITE,
        folder="openbookqa",
        sources={
            "openbookqa": BenchmarkSource(
                "core-openbookqa",
                "openbookqa/openbookqa_validation.jsonl",
                "allenai/openbookqa",
                "test",
            )
        },
        columns=({"question_stem": str, "choices": dict, "answerKey": str},),
        prompts=500,
    )
)
BENCHMARKS.register("core-piqa")(
    LmEvalBenchmark(
        "core-piqa",
        SUITE,
        folder="piqa",
        sources={
            "piqa": BenchmarkSource(
                "core-piqa", "piqa/piqa_validation_half.jsonl", "baber/piqa", "validation"
            )
        },
        columns=({"goal": str, "sol1": str, "sol2": str, "label": int},),
        prompts=1838,
    )
)
