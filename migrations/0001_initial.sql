-- Berth's first schema. Ids are opaque text made by us (cus-like prefixes never reach Stripe).
-- The API's customer-facing queries run as role berth_customer, so that row-level security
-- stands under the API's own checks (invariant 11).

CREATE TABLE customer (
    id                 text PRIMARY KEY,
    email              text NOT NULL,
    name               text NOT NULL,
    stripe_customer_id text UNIQUE,
    created_at         timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX customer_email ON customer (lower(email));

CREATE TABLE api_token (
    id           text PRIMARY KEY,
    customer_id  text NOT NULL REFERENCES customer,
    token_sha256 bytea NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz
);
CREATE INDEX api_token_customer ON api_token (customer_id);

-- A checkout holds its slug while it is open; `id` travels in the subscription's metadata.
CREATE TABLE checkout (
    id                text PRIMARY KEY,
    customer_id       text NOT NULL REFERENCES customer,
    product           text NOT NULL,
    plan              text NOT NULL,
    interval          text NOT NULL CHECK (interval IN ('month', 'year')),
    slug              text NOT NULL,
    stripe_session_id text UNIQUE,
    url               text,
    expires_at        timestamptz NOT NULL,
    closed_at         timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX checkout_open_slug ON checkout (slug) WHERE closed_at IS NULL;
CREATE INDEX checkout_customer ON checkout (customer_id);

-- The inbox: every verified event, once. Effects come from Stripe's current state, not from
-- `payload`, but for an expired checkout session, which is final and only frees its slug.
CREATE TABLE stripe_event (
    id          text PRIMARY KEY,
    type        text NOT NULL,
    created     timestamptz NOT NULL,
    payload     jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);

-- What Stripe said when we last fetched a subscription.
CREATE TABLE subscription (
    id                   text PRIMARY KEY,
    customer_id          text NOT NULL REFERENCES customer,
    product              text NOT NULL,
    plan                 text NOT NULL,
    interval             text NOT NULL,
    price_id             text NOT NULL,
    status               text NOT NULL,
    status_since         timestamptz NOT NULL DEFAULT now(),  -- when we first saw it: a grace period counts from here
    current_period_end   timestamptz,
    cancel_at_period_end boolean NOT NULL DEFAULT false,
    fetched_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX subscription_customer ON subscription (customer_id);

CREATE TABLE instance (
    id                  text PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9]{3,39}$'),
    customer_id         text NOT NULL REFERENCES customer,
    subscription_id     text NOT NULL UNIQUE REFERENCES subscription,
    product             text NOT NULL,
    plan                text NOT NULL,
    slug                text NOT NULL,
    spec                jsonb NOT NULL,
    generation          bigint NOT NULL DEFAULT 1,
    observed_generation bigint NOT NULL DEFAULT 0,
    phase               text NOT NULL DEFAULT 'pending' CHECK (phase IN
        ('pending', 'provisioning', 'ready', 'degraded', 'suspended', 'restoring', 'deleting', 'deleted')),
    phase_since         timestamptz NOT NULL DEFAULT now(),
    conditions          jsonb NOT NULL DEFAULT '[]',
    paid_at             timestamptz,
    ready_at            timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX instance_slug ON instance (slug) WHERE phase <> 'deleted';
CREATE INDEX instance_customer ON instance (customer_id);

-- The timeline a person reads: phase changes and conditions that turned.
CREATE TABLE instance_event (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance_id text NOT NULL REFERENCES instance,
    at          timestamptz NOT NULL DEFAULT now(),
    reason      text NOT NULL,
    message     text NOT NULL
);
CREATE INDEX instance_event_instance ON instance_event (instance_id, id);

-- One row per object. due_at NULL: nothing to do. The row stays, so that epoch only ever grows.
CREATE TABLE work_item (
    kind        text NOT NULL,
    key         text NOT NULL,
    due_at      timestamptz,
    lease_until timestamptz,
    lease_owner text,
    epoch       bigint NOT NULL DEFAULT 0,
    seq         bigint NOT NULL DEFAULT 1,
    attempts    integer NOT NULL DEFAULT 0,
    last_error  text,
    parked_at   timestamptz,
    PRIMARY KEY (kind, key)
);
CREATE INDEX work_item_due ON work_item (kind, due_at) WHERE due_at IS NOT NULL AND parked_at IS NULL;

-- E-mail waits here, written in the transaction that causes it; dedupe_key makes one sending per cause.
CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dedupe_key  text NOT NULL UNIQUE,
    customer_id text NOT NULL REFERENCES customer,
    template    text NOT NULL,
    data        jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    sent_at     timestamptz
);

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'berth_customer') THEN
        CREATE ROLE berth_customer NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- roles are server-wide: another database made it first
END $$;

-- Who makes a role may grant it but, unless a superuser, not act as it: the API does, by SET ROLE.
DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'berth_customer', 'SET') THEN
        EXECUTE format('GRANT berth_customer TO %I', current_user);
    END IF;
END $$;

GRANT SELECT ON customer, checkout, subscription, instance, instance_event TO berth_customer;

ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
ALTER TABLE checkout ENABLE ROW LEVEL SECURITY;
ALTER TABLE subscription ENABLE ROW LEVEL SECURITY;
ALTER TABLE instance ENABLE ROW LEVEL SECURITY;
ALTER TABLE instance_event ENABLE ROW LEVEL SECURITY;

CREATE POLICY own ON customer TO berth_customer USING (id = current_setting('berth.customer_id', true));
CREATE POLICY own ON checkout TO berth_customer USING (customer_id = current_setting('berth.customer_id', true));
CREATE POLICY own ON subscription TO berth_customer USING (customer_id = current_setting('berth.customer_id', true));
CREATE POLICY own ON instance TO berth_customer USING (customer_id = current_setting('berth.customer_id', true));
CREATE POLICY own ON instance_event TO berth_customer
    USING (instance_id IN (SELECT id FROM instance));
