import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_api.billing import slugs


@given(st.text(max_size=100))
def test_a_generated_slug_is_one_that_may_be_asked_for(name: str) -> None:
    slug = slugs.generate(name)
    assert re.fullmatch(slugs.PATTERN, slug)
    assert len(slug) <= slugs.MAX_LENGTH
    assert not slugs.is_reserved(slug)


def test_two_customers_of_one_name_get_two_slugs() -> None:
    assert len({slugs.generate("Acme") for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("name", "stem"),
    [("Ada's Wörkshop!", "ada-s-workshop-"), ("42", "app-42-"), ("日本", "app-"), ("www", "www-")],
)
def test_a_generated_slug_begins_like_the_name(name: str, stem: str) -> None:
    assert slugs.generate(name).startswith(stem)


@pytest.mark.parametrize("slug", ["www", "api", "app", "admin", "mail", "localhost", "sign-in", "wpad"])
def test_names_of_the_platform_are_reserved(slug: str) -> None:
    assert slugs.is_reserved(slug)
