"""``python -m response_tuning`` is ``rtune``: what a launcher such as torchrun needs."""

from response_tuning.cli.main import main

main()
