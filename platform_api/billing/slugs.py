"""Names of instances as they stand in host names."""

import re
import secrets
import unicodedata

# One DNS label that also serves as a Kubernetes name; "--" is kept out because "xn--" means something.
PATTERN = r"^[a-z](?:-?[a-z0-9]){2,39}$"
MAX_LENGTH = 40
RULE = (
    "A name is 3 to 40 small letters, digits and single hyphens; it begins with a letter and does not end"
    " with a hyphen"
)
"""The same for people."""

_RESERVED_WORDS = """
    about abuse account accounts admin administrator api apis app apps assets auth autoconfig autodiscover
    backup backups berth beta billing blog calendar cdn chat checkout cluster console control dashboard demo
    dev developer developers dns docs download downloads email events example explore ftp git grafana health
    help helpdesk home host hostmaster hosting http https imap info ingress internal invoice kubernetes legal
    local localhost login logout mail mailer manage metrics monitor monitoring mta-sts mx my news ns ns1 ns2
    oauth official operator payment payments platform pop pop3 portal postmaster preview pricing privacy prod
    production prometheus registry root sales sandbox secure security server service sign-in sign-up signin
    signup smtp ssl sso staff staging static stats status store stripe support sys system sysadmin team terms
    test testing tls update updates upload uploads vpn web webhook webhooks webmail webmaster wiki wpad www
    www1 www2
"""
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # without letters that are read as others
_STEM_LENGTH = 24
_SUFFIX_LENGTH = 5


def is_well_formed(slug: str) -> bool:
    """Say whether `slug` can stand in a host name as we make them."""
    return len(slug) <= MAX_LENGTH and re.fullmatch(PATTERN, slug) is not None


def is_reserved(slug: str) -> bool:
    """Say whether `slug` is a name that people would take for the platform's own."""
    return slug in _RESERVED_WORDS.split()


def generate(name: str) -> str:
    """Return a slug that begins like `name` and ends in 25 random bits."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_STEM_LENGTH].strip("-")
    if not stem or not stem[0].isalpha():
        stem = f"app-{stem}".strip("-")
    suffix = "".join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX_LENGTH))
    return f"{stem}-{suffix}"
