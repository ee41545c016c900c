import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.labels import APPLIED
from provisioner.render import sealed
from provisioner.secrets import RootKey, derive, fingerprint, secret_manifest
from provisioner.values import values
from tests.instance_specs import PLATFORM, ROOT, SPEC, default_target, renderer, spec

NAMES = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=20)


def test_invariant_6_a_secret_is_stable() -> None:
    # A changed derivation would change every customer's secrets: this value must never change.
    assert derive(ROOT, "iabcd2345", "SESSION_KEY") == "Q6XKvpScNGptS8DcSVHDawfhChBZ82Yhnq_zoJGKf3w"
    assert derive(ROOT, "iabcd2345", "SESSION_KEY") == derive(ROOT, "iabcd2345", "SESSION_KEY", version=1)


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(1, 99)), min_size=2, max_size=6, unique=True))
def test_invariant_6_every_instance_name_and_version_has_another_secret(
    keys: list[tuple[str, str, int]],
) -> None:
    secrets = {derive(ROOT, instance, name, version) for instance, name, version in keys}
    assert len(secrets) == len(keys)


def test_invariant_6_each_part_of_a_secrets_name_matters_where_it_stands() -> None:
    secrets = {
        derive(ROOT, *parts)
        for parts in (("ab", "c", 1), ("a", "bc", 1), ("ab", "c", 2), ("c", "ab", 1), ("ab1", "c", 1))
    }
    assert len(secrets) == 5


def test_invariant_6_another_root_key_gives_other_secrets() -> None:
    assert derive(ROOT, "i", "n") != derive(RootKey(ROOT.value + b"!"), "i", "n")


def test_invariant_6_secrets_stand_in_the_secret_and_nowhere_else() -> None:
    secret = derive(ROOT, SPEC.instance_id, "SESSION_KEY")
    manifest = secret_manifest(ROOT, SPEC)
    assert manifest is not None
    assert b64decode(manifest["data"]["SESSION_KEY"]).decode() == secret
    target = default_target()
    others = json.dumps([target.namespace, *target.isolation, *target.workload])
    given_values = json.dumps(values(SPEC, PLATFORM, fingerprint(ROOT, SPEC)))
    for text in (others, given_values):
        assert secret not in text
        assert manifest["data"]["SESSION_KEY"] not in text
        assert ROOT.value.decode() not in text


async def test_a_new_secret_restarts_the_pods_and_the_same_ones_do_not() -> None:
    before = default_target().workload
    again = (await renderer().target(spec())).workload
    after = (await renderer().target(spec(secret_names=("SESSION_KEY", "OTHER_KEY")))).workload
    template = [
        next(m for m in manifests if m["kind"] == "Deployment")["spec"]["template"]["metadata"]
        for manifests in (before, again, after)
    ]
    assert template[0] == template[1]
    assert template[0] != template[2]


def test_the_hash_on_a_secret_is_made_with_the_root_key() -> None:
    manifest = secret_manifest(ROOT, SPEC)
    assert manifest is not None
    hashes = {
        sealed(manifest, key)["metadata"]["annotations"][APPLIED]
        for key in (ROOT, RootKey(ROOT.value + b"!"), None)
    }
    assert len(hashes) == 3


def test_no_secret_is_made_for_an_app_that_wants_none() -> None:
    assert secret_manifest(ROOT, spec(secret_names=())) is None


def test_a_short_root_key_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        RootKey(b"short-but-secret")
    assert "root key" not in repr(ROOT)
