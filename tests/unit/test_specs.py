from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalogue.schema import Product, Purchase
from provisioner.contract.spec import SPEC, Desired, InstanceSpec, Probe, Size
from provisioner.specs import Owner, build_spec, change_plan, slug_candidates

MEBI = 1 << 20
OWNER = Owner("iabc", "c1", "acme")
APPS = "http://{slug}.apps.localhost:8088"


def plan(memory: str, storage: str, notes: int | str) -> dict[str, Any]:
    return {
        "title": "A plan",
        "prices": {"month": {"lookup_key": f"key_{memory}", "amount": "29.00"}},
        "limits": {"notes": notes},
        "size": {"cpu": {"request": "50m", "limit": "500m"}, "memory": memory, "storage": storage},
    }


PRODUCT = Product.model_validate(
    {
        "product": "mindroom",
        "title": "MindRoom",
        "image": "berth.local/sample:1",
        "port": 8080,
        "data_path": "/data",
        "probe": {"path": "/health", "startup": 90},
        "entitlement": {"environment": {"MAX_NOTES": "notes"}},
        "secrets": ["APP_KEY"],
        "meters": {"notes": {"title": "Notes"}},
        "add_ons": {
            "more": {
                "title": "More notes",
                "prices": {"month": {"lookup_key": "more_month", "amount": "5.00"}},
                "grants": {"notes": 25},
            }
        },
        "plans": {"starter": plan("128Mi", "1Gi", 10), "pro": plan("256Mi", "512Mi", "unlimited")},
    }
)


def bought(plan: str, quantity: int = 1, product: Product = PRODUCT, **add_ons: int) -> Purchase:
    return Purchase(product, plan, quantity, add_ons)


def starter() -> InstanceSpec:
    return build_spec(OWNER, bought("starter"), APPS, "1.2.3")


def test_everything_a_new_instance_needs_is_pinned() -> None:
    assert starter() == InstanceSpec(
        instance_id="iabc",
        customer_id="c1",
        product="mindroom",
        title="MindRoom",
        plan="starter",
        slug="acme",
        host="acme.apps.localhost",
        desired=Desired.RUNNING,
        chart="instance",
        chart_version="1.2.3",
        image="berth.local/sample:1",
        port=8080,
        data_path="/data",
        size=Size(cpu_request=50, cpu_limit=500, memory=128 * MEBI, storage=1024 * MEBI, replicas=1),
        limits={"notes": 10},
        probe=Probe(path="/health", startup=90),
        entitlement_file="/etc/berth/entitlements.json",
        environment={"MAX_NOTES": "10"},
        secret_names=("APP_KEY",),
        quantity=1,
        add_ons={},
        plan_title="A plan",
    )


def test_quantities_and_add_ons_raise_limits_and_nothing_else() -> None:
    spec = change_plan(starter(), bought("starter", 3, more=2))
    limits = {"notes": 3 * 10 + 2 * 25}
    assert spec == replace(
        starter(), quantity=3, add_ons={"more": 2}, limits=limits, environment={"MAX_NOTES": "80"}
    )
    assert build_spec(OWNER, bought("starter", 3, more=2), APPS, "1.2.3") == spec
    assert change_plan(spec, bought("starter")) == starter()
    assert change_plan(spec, bought("pro", 2, more=1)).limits == {"notes": None}


def test_a_spec_written_before_there_were_quantities_is_read_as_bought_once() -> None:
    old = SPEC.dump_python(starter(), mode="json")
    del old["quantity"], old["add_ons"]
    assert SPEC.validate_python(old) == starter()
    assert change_plan(SPEC.validate_python(old), bought("starter")) == starter()


def test_a_spec_survives_its_way_through_the_database() -> None:
    assert SPEC.validate_json(SPEC.dump_json(starter())) == starter()


def test_another_plan_changes_size_limits_and_environment_but_no_storage_shrinks() -> None:
    before = starter()
    assert change_plan(before, bought("pro")) == replace(
        before,
        plan="pro",
        size=replace(before.size, memory=256 * MEBI, storage=1024 * MEBI),
        limits={"notes": None},
        environment={"MAX_NOTES": "unlimited"},
    )


def test_invariant_12_storage_never_shrinks_through_any_sequence_of_plans() -> None:
    spec, largest = starter(), 0
    for name in ("pro", "starter", "pro"):
        spec = change_plan(spec, bought(name))
        assert spec.size.storage >= largest
        largest = spec.size.storage


@pytest.mark.parametrize(
    "edit",
    [
        {"image": "berth.local/sample:2"},
        {"title": "Renamed"},
        {"plans": {"starter": plan("64Mi", "9Gi", 99), "pro": plan("256Mi", "512Mi", "unlimited")}},
    ],
)
def test_a_changed_catalogue_changes_no_instance_on_the_same_plan(edit: dict[str, Any]) -> None:
    edited = Product.model_validate(PRODUCT.model_dump(exclude_unset=True, mode="json") | edit)
    assert change_plan(starter(), bought("starter", product=edited)) == starter()


def test_changing_the_plan_keeps_the_image_that_was_pinned() -> None:
    edited = PRODUCT.model_copy(update={"image": "berth.local/sample:2"})
    assert change_plan(starter(), bought("pro", product=edited)).image == "berth.local/sample:1"


@given(
    wanted=st.none() | st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True),
    subscription=st.text(min_size=1, max_size=40),
)
@example(wanted="a" * 63, subscription="sub_1")
@example(wanted="a" * 45 + "-" * 17 + "a", subscription="sub_1")
def test_slug_candidates_are_distinct_dns_labels_and_always_the_same(
    wanted: str | None, subscription: str
) -> None:
    candidates = list(slug_candidates(wanted, "mindroom", subscription))
    assert candidates == list(slug_candidates(wanted, "mindroom", subscription))
    assert len(set(candidates)) == len(candidates) == (4 if wanted else 3)
    assert candidates[0] == wanted or wanted is None
    for candidate in candidates:
        assert 1 <= len(candidate) <= 63
        assert set(candidate) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert not candidate.startswith("-")
        assert not candidate.endswith("-")


def test_slugs_of_two_subscriptions_differ() -> None:
    assert set(slug_candidates(None, "mindroom", "sub_1")).isdisjoint(
        slug_candidates(None, "mindroom", "sub_2")
    )
