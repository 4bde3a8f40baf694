import pytest

from response_tuning.data.grades import digits_of, similarities


def test_likeness_is_1_to_the_same_words_and_0_to_others() -> None:
    found = similarities(
        ["the capital is Ambelle", "is Ambelle the capital", "cats purr", "?"],
        ["the capital is Ambelle", "the capital is Ambelle", "dogs bark", "dogs bark"],
    )
    assert found.tolist() == pytest.approx([1, 1, 0, 0])


def test_likeness_counts_rare_words_more_than_common_ones() -> None:
    rare, common = similarities(["the Ambelle", "the and"], ["so Ambelle", "so the"])
    assert rare > common > 0


def test_texts_without_words_have_no_likeness() -> None:
    assert similarities(["?", "!"], ["?", "."]).tolist() == [0, 0]


def test_ten_classes_are_of_equal_size_and_in_order() -> None:
    values = [float(n) for n in range(30)]
    assert digits_of(values) == [n // 3 for n in range(30)]
    assert digits_of([-v for v in values]) == [9 - n // 3 for n in range(30)]


def test_each_value_counts_by_its_rank_so_that_no_scale_wins() -> None:
    small, large = [0.0, 0.1, 0.2, 0.3], [3e6, 2e6, 1e6, 0.0]
    assert len({*digits_of(small, large)}) == 1, "opposite ranks cancel out"
    assert digits_of(small, [v * 1000 for v in small]) == digits_of(small)


def test_equal_answers_have_one_class() -> None:
    assert digits_of([1.0, 1.0, 1.0, 5.0]) == [3, 3, 3, 8]  # ranks 2, 2, 2, 4 of 4
