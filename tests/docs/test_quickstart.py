from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_session_is_the_one_of_the_readme_which_a_test_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Sixty seconds")[1]
    session = readme.split("```")[1]
    assert "rtune finetune" in session
    assert f"```{session}```" in (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
