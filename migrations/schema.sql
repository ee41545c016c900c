-- Made by `python -m migrations.schema` from all migrations; a test compares it.

CREATE TABLE public.api_token (
    id text NOT NULL,
    customer_id text NOT NULL,
    token_sha256 bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone
);

CREATE TABLE public.checkout (
    id text NOT NULL,
    customer_id text NOT NULL,
    product text NOT NULL,
    plan text NOT NULL,
    "interval" text NOT NULL,
    slug text NOT NULL,
    stripe_session_id text,
    url text,
    expires_at timestamp with time zone NOT NULL,
    closed_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    promo_code text,
    CONSTRAINT checkout_interval_check CHECK (("interval" = ANY (ARRAY['month'::text, 'year'::text])))
);

CREATE TABLE public.customer (
    id text NOT NULL,
    email text NOT NULL,
    name text NOT NULL,
    stripe_customer_id text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    email_verified_at timestamp with time zone
);

CREATE TABLE public.instance (
    id text NOT NULL,
    customer_id text NOT NULL,
    subscription_id text NOT NULL,
    product text NOT NULL,
    plan text NOT NULL,
    slug text NOT NULL,
    spec jsonb NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    observed_generation bigint DEFAULT 0 NOT NULL,
    phase text DEFAULT 'pending'::text NOT NULL,
    phase_since timestamp with time zone DEFAULT now() NOT NULL,
    conditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    paid_at timestamp with time zone,
    ready_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    delete_at timestamp with time zone,
    final_backup_at timestamp with time zone,
    final_backup_note text,
    deleted_at timestamp with time zone,
    CONSTRAINT instance_id_check CHECK ((id ~ '^[a-z][a-z0-9]{3,39}$'::text)),
    CONSTRAINT instance_phase_check CHECK ((phase = ANY (ARRAY['pending'::text, 'provisioning'::text, 'ready'::text, 'degraded'::text, 'suspended'::text, 'restoring'::text, 'deleting'::text, 'deleted'::text])))
);

CREATE TABLE public.instance_event (
    id bigint NOT NULL,
    instance_id text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    is_internal boolean DEFAULT false NOT NULL
);

ALTER TABLE public.instance_event ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.instance_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.outbox (
    id bigint NOT NULL,
    dedupe_key text NOT NULL,
    customer_id text,
    template text NOT NULL,
    data jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    sent_at timestamp with time zone
);

ALTER TABLE public.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.portal_link (
    token_sha256 bytea NOT NULL,
    customer_id text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.schema_migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.stripe_event (
    id text NOT NULL,
    type text NOT NULL,
    created timestamp with time zone NOT NULL,
    payload jsonb NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    subject_kind text,
    subject_key text
)
WITH (toast_tuple_target='8160');

CREATE TABLE public.stripe_sync (
    id boolean DEFAULT true NOT NULL,
    events_until timestamp with time zone NOT NULL,
    finished_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT stripe_sync_id_check CHECK (id)
);

CREATE TABLE public.subscription (
    id text NOT NULL,
    customer_id text NOT NULL,
    product text NOT NULL,
    plan text NOT NULL,
    "interval" text,
    price_id text,
    status text NOT NULL,
    current_period_end timestamp with time zone,
    cancel_at_period_end boolean DEFAULT false NOT NULL,
    fetched_at timestamp with time zone DEFAULT now() NOT NULL,
    source text DEFAULT 'stripe'::text NOT NULL,
    quantity integer DEFAULT 1 NOT NULL,
    add_ons jsonb DEFAULT '{}'::jsonb NOT NULL,
    trial_end timestamp with time zone,
    past_due_since timestamp with time zone,
    ended_at timestamp with time zone,
    test_clock text,
    review_since timestamp with time zone,
    review_reason text,
    CONSTRAINT subscription_source_check CHECK ((source = ANY (ARRAY['stripe'::text, 'free'::text])))
);

CREATE TABLE public.work_item (
    kind text NOT NULL,
    key text NOT NULL,
    due_at timestamp with time zone,
    lease_until timestamp with time zone,
    lease_owner text,
    epoch bigint DEFAULT 0 NOT NULL,
    seq bigint DEFAULT 1 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    last_error text,
    parked_at timestamp with time zone
);

ALTER TABLE ONLY public.api_token
    ADD CONSTRAINT api_token_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.api_token
    ADD CONSTRAINT api_token_token_sha256_key UNIQUE (token_sha256);

ALTER TABLE ONLY public.checkout
    ADD CONSTRAINT checkout_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.checkout
    ADD CONSTRAINT checkout_stripe_session_id_key UNIQUE (stripe_session_id);

ALTER TABLE ONLY public.customer
    ADD CONSTRAINT customer_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.customer
    ADD CONSTRAINT customer_stripe_customer_id_key UNIQUE (stripe_customer_id);

ALTER TABLE ONLY public.instance_event
    ADD CONSTRAINT instance_event_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.instance
    ADD CONSTRAINT instance_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.instance
    ADD CONSTRAINT instance_subscription_id_key UNIQUE (subscription_id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_dedupe_key_key UNIQUE (dedupe_key);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.portal_link
    ADD CONSTRAINT portal_link_pkey PRIMARY KEY (token_sha256);

ALTER TABLE ONLY public.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.stripe_event
    ADD CONSTRAINT stripe_event_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.stripe_sync
    ADD CONSTRAINT stripe_sync_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.subscription
    ADD CONSTRAINT subscription_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.work_item
    ADD CONSTRAINT work_item_pkey PRIMARY KEY (kind, key);

CREATE INDEX api_token_customer ON public.api_token USING btree (customer_id);

CREATE INDEX checkout_customer ON public.checkout USING btree (customer_id);

CREATE UNIQUE INDEX checkout_open_slug ON public.checkout USING btree (slug) WHERE (closed_at IS NULL);

CREATE UNIQUE INDEX customer_email ON public.customer USING btree (lower(email));

CREATE INDEX instance_customer ON public.instance USING btree (customer_id);

CREATE INDEX instance_event_instance ON public.instance_event USING btree (instance_id, id);

CREATE UNIQUE INDEX instance_slug ON public.instance USING btree (slug) WHERE (phase <> 'deleted'::text);

CREATE INDEX portal_link_expires ON public.portal_link USING btree (expires_at);

CREATE INDEX stripe_event_received ON public.stripe_event USING btree (received_at);

CREATE INDEX stripe_event_subject ON public.stripe_event USING btree (subject_kind, subject_key);

CREATE INDEX subscription_customer ON public.subscription USING btree (customer_id);

CREATE UNIQUE INDEX subscription_one_free ON public.subscription USING btree (customer_id, product) WHERE ((source = 'free'::text) AND (status = 'active'::text));

CREATE INDEX subscription_review ON public.subscription USING btree (review_since) WHERE (review_since IS NOT NULL);

CREATE INDEX work_item_due ON public.work_item USING btree (kind, due_at) WHERE ((due_at IS NOT NULL) AND (parked_at IS NULL));

ALTER TABLE ONLY public.api_token
    ADD CONSTRAINT api_token_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customer(id);

ALTER TABLE ONLY public.checkout
    ADD CONSTRAINT checkout_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customer(id);

ALTER TABLE ONLY public.instance
    ADD CONSTRAINT instance_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customer(id);

ALTER TABLE ONLY public.instance_event
    ADD CONSTRAINT instance_event_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES public.instance(id);

ALTER TABLE ONLY public.instance
    ADD CONSTRAINT instance_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES public.subscription(id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customer(id);

ALTER TABLE ONLY public.portal_link
    ADD CONSTRAINT portal_link_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customer(id);

ALTER TABLE ONLY public.subscription
    ADD CONSTRAINT subscription_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customer(id);

ALTER TABLE public.checkout ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.customer ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.instance ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.instance_event ENABLE ROW LEVEL SECURITY;

CREATE POLICY own ON public.checkout TO berth_customer USING ((customer_id = current_setting('berth.customer_id'::text, true)));

CREATE POLICY own ON public.customer TO berth_customer USING ((id = current_setting('berth.customer_id'::text, true)));

CREATE POLICY own ON public.instance TO berth_customer USING ((customer_id = current_setting('berth.customer_id'::text, true)));

CREATE POLICY own ON public.instance_event TO berth_customer USING (((NOT is_internal) AND (instance_id IN ( SELECT instance.id
   FROM public.instance))));

CREATE POLICY own ON public.subscription TO berth_customer USING ((customer_id = current_setting('berth.customer_id'::text, true)));

ALTER TABLE public.subscription ENABLE ROW LEVEL SECURITY;

GRANT SELECT ON TABLE public.checkout TO berth_customer;

GRANT SELECT ON TABLE public.customer TO berth_customer;

GRANT SELECT ON TABLE public.instance TO berth_customer;

GRANT SELECT ON TABLE public.instance_event TO berth_customer;

GRANT SELECT ON TABLE public.subscription TO berth_customer;
