import pytest

from distpert.arguments import check_type


def test_types():
    check_type("one", 3, int, made_by="counting")
    check_type("one", True, str, int, made_by="counting")
    with pytest.raises(TypeError, match=r"^one: expected str or int, made by counting; got float$"):
        check_type("one", 3.0, str, int, made_by="counting")
