"""Log-likelihood benchmarks, which lm-eval runs on a model of ours."""
