import pytest

from provisioner.deletion import Remains, Verdict, judge

CLAIMS = ("data",)


@pytest.mark.parametrize(
    ("remains", "backed_up", "expected"),
    [
        (Remains(), False, Verdict.GONE),
        (Remains(), True, Verdict.GONE),
        (Remains("u"), False, Verdict.REMOVE),
        (Remains("u", claims=CLAIMS), False, Verdict.KEEP),
        (Remains("u", claims=CLAIMS), True, Verdict.REMOVE),
        (Remains("u", terminating=True), False, Verdict.WAIT),
        (Remains("u", terminating=True, claims=CLAIMS), False, Verdict.WAIT),
    ],
)
def test_what_holds_data_goes_only_after_its_final_backup(
    remains: Remains, backed_up: bool, expected: Verdict
) -> None:
    assert judge(remains, backed_up=backed_up) is expected
