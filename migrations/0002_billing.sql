-- Everything Stripe can say of a subscription, free plans beside it, and what an instance leaves behind.

ALTER TABLE customer ADD COLUMN email_verified_at timestamptz;  -- a free plan is only for a verified address

ALTER TABLE checkout ADD COLUMN promo_code text;

-- Which work item an event made due; NULL for types that Berth does not act upon, which are kept all the same.
ALTER TABLE stripe_event
    ADD COLUMN subject_kind text,
    ADD COLUMN subject_key  text;
CREATE INDEX stripe_event_subject ON stripe_event (subject_kind, subject_key);
CREATE INDEX stripe_event_received ON stripe_event (received_at);

-- Up to when Stripe's own list of events has been read to its end: what webhooks lost before that is found.
CREATE TABLE stripe_sync (
    id           boolean PRIMARY KEY DEFAULT true CHECK (id),  -- one row
    events_until timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL DEFAULT now()
);

-- A free plan is a subscription of our own making (source 'free'), so that one path leads to an instance.
-- The times below are Stripe's, not when we came to know them: a replay decides the same.
ALTER TABLE subscription
    ALTER COLUMN interval DROP NOT NULL,
    ALTER COLUMN price_id DROP NOT NULL,
    DROP COLUMN status_since,
    ADD COLUMN source         text NOT NULL DEFAULT 'stripe' CHECK (source IN ('stripe', 'free')),
    ADD COLUMN quantity       integer NOT NULL DEFAULT 1,
    ADD COLUMN add_ons        jsonb NOT NULL DEFAULT '{}',  -- add-on name -> quantity
    ADD COLUMN trial_end      timestamptz,
    ADD COLUMN past_due_since timestamptz,  -- the grace period counts from here
    ADD COLUMN ended_at       timestamptz,  -- the retention period counts from here
    ADD COLUMN test_clock     text,
    ADD COLUMN review_since   timestamptz,  -- a dispute or full refund: nothing is deleted until a person looked
    ADD COLUMN review_reason  text;
CREATE UNIQUE INDEX subscription_one_free ON subscription (customer_id, product)
    WHERE source = 'free' AND status = 'active';
CREATE INDEX subscription_review ON subscription (review_since) WHERE review_since IS NOT NULL;

-- An instance outlives its subscription: who pays again within the retention period gets the same one back.
ALTER TABLE instance
    ADD COLUMN delete_at         timestamptz,  -- when retention ends; NULL while it is paid for
    ADD COLUMN final_backup_at   timestamptz,  -- verified; nothing that holds data is deleted without it
    ADD COLUMN final_backup_note text,         -- where it is and who vouches for it
    ADD COLUMN deleted_at        timestamptz;

-- Links in e-mails that open the customer's billing portal; only the token's hash is kept.
CREATE TABLE portal_link (
    token_sha256 bytea PRIMARY KEY,
    customer_id  text NOT NULL REFERENCES customer,
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX portal_link_expires ON portal_link (expires_at);

-- An e-mail goes to a customer or, about the platform itself, to the operator.
ALTER TABLE outbox ALTER COLUMN customer_id DROP NOT NULL;
