-- One of everything that a dump has to carry.
CREATE EXTENSION hstore;
CREATE SCHEMA "odd Name";
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE loose START 7 INCREMENT 3;
SELECT nextval('loose');
CREATE TABLE "odd Name"."tab""le.x" (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "co, l" text DEFAULT 'x''\y',
    feeling mood,
    amount positive,
    tags hstore,
    data bytea,
    real4 real, real8 double precision, num numeric(20, 5), days interval, at timestamptz,
    list int[],
    doubled int GENERATED ALWAYS AS (amount * 2) STORED
);
INSERT INTO "odd Name"."tab""le.x"
    ("co, l", feeling, amount, tags, data, real4, real8, num, days, at, list)
SELECT CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'a,"b"\n\\.\tc' ELSE 'é€😀' END,
    CASE WHEN n % 2 = 0 THEN 'happy'::mood ELSE 'it''s ok' END, n, hstore('k', n::text),
    decode(repeat(lpad(to_hex(n % 256), 2, '0'), 300), 'hex'), n / 3.0, n / 7.0, n * 1.00001,
    n * interval '1 hour 3 seconds', '2024-03-31 01:30:00+00'::timestamptz + n * interval '1 day',
    ARRAY[n, NULL, n + 1]
FROM generate_series(1, 2000) n;
CREATE TABLE parent (id serial, made date, note text, PRIMARY KEY (id, made)) PARTITION BY RANGE (made);
CREATE TABLE parent_old PARTITION OF parent FOR VALUES FROM ('2020-01-01') TO ('2024-01-01');
CREATE TABLE parent_new PARTITION OF parent DEFAULT;
CREATE INDEX parent_note ON parent (lower(note));
INSERT INTO parent (made, note) SELECT '2023-12-01'::date + n, 'note ' || n FROM generate_series(1, 500) n;
CREATE TABLE child (parent int, made date, weight float CHECK (weight >= 0), UNIQUE (parent),
    FOREIGN KEY (parent, made) REFERENCES parent (id, made));
INSERT INTO child SELECT id, made, id / 2.0 FROM parent WHERE id < 100;
CREATE TABLE heir (more text) INHERITS (child);
INSERT INTO heir VALUES (NULL, NULL, 4.5, 'heir');
CREATE VIEW happy AS SELECT * FROM "odd Name"."tab""le.x" WHERE feeling = 'happy';
CREATE MATERIALIZED VIEW sums AS SELECT made, count(*) FROM parent GROUP BY made;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'touched'; RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION touch();
CREATE RULE nothing AS ON DELETE TO heir DO INSTEAD NOTHING;
ALTER TABLE child ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON child FOR SELECT TO seller USING (weight < 10);
GRANT SELECT ON happy TO seller;
GRANT USAGE ON SCHEMA "odd Name" TO seller WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO seller;
COMMENT ON TABLE parent IS E'two\nlines, and ''quotes''';
CREATE STATISTICS related ON id, made FROM parent;
CREATE PUBLICATION news FOR TABLE child;
ALTER TABLE heir OWNER TO seller;
SELECT lo_from_bytea(4711, '\xdeadbeef'), lo_from_bytea(4712, repeat('x', 100000)::bytea);
