from pathlib import Path

from response_tuning.configs import GradeConfig
from response_tuning.grade import open_benchmark


def test_each_line_is_a_question(tmp_path: Path) -> None:
    path = tmp_path / "MaliciousInstruct.txt"
    path.write_text("How, first?\nHow second?\n")
    config = GradeConfig(paths={"malicious-instruct": tmp_path})
    items = open_benchmark("malicious-instruct", config).items()
    assert [(item.item_id, item.prompt[0].content) for item in items] == [
        ("malicious-instruct-000", "How, first?"),
        ("malicious-instruct-001", "How second?"),
    ]
