-- The tables of ledger.sqlite, format version 1. Times are microseconds since 1970, UTC.

-- Single facts about the ledger itself: its id, who made it, where the duplicate index stands, counters.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenant (
    id              INTEGER PRIMARY KEY,
    guid            TEXT    NOT NULL UNIQUE,
    next_seq        INTEGER NOT NULL DEFAULT 1,
    folded_seqs     INTEGER NOT NULL DEFAULT 0, -- numbers whose rows were folded into sums
    superseded_seqs INTEGER NOT NULL DEFAULT 0, -- numbers whose blob was spooled again under a later number
    spooled_bytes   INTEGER NOT NULL DEFAULT 0  -- live bytes in the spool
) STRICT;

CREATE TABLE feed (
    id           INTEGER PRIMARY KEY,
    tenant       INTEGER NOT NULL REFERENCES tenant (id),
    content_type TEXT    NOT NULL,
    watermark    INTEGER,
    swept_at     INTEGER,
    UNIQUE (tenant, content_type)
) STRICT;

CREATE TABLE segment (
    number      INTEGER PRIMARY KEY,
    length      INTEGER NOT NULL, -- bytes of the file that count; what is behind them is cut off at the start
    live_bytes  INTEGER NOT NULL,
    live_bodies INTEGER NOT NULL
) STRICT;

-- One row a blob, and one for each retry. Numbers are never used twice: the duplicate index names blobs by them.
CREATE TABLE blob (
    work         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant       INTEGER NOT NULL REFERENCES tenant (id),
    feed         INTEGER NOT NULL REFERENCES feed (id),
    kind         TEXT    NOT NULL CHECK (kind IN ('blob', 'retry')),
    origin       INTEGER,          -- of a retry: the work whose records it holds
    content_id   TEXT    NOT NULL,
    created      INTEGER NOT NULL,
    expires      INTEGER NOT NULL,
    listed_at    INTEGER NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('listed', 'spooled', 'settled', 'gap', 'quarantined')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    not_before   INTEGER NOT NULL DEFAULT 0, -- 0: due
    last_error   TEXT,
    broken_sha   BLOB,             -- the last malformed body, and how often in a row it came
    broken_times INTEGER NOT NULL DEFAULT 0,
    reason       TEXT,             -- of a gap or a quarantine
    ended_at     INTEGER,          -- when it was settled, became a gap or was quarantined
    panics       INTEGER NOT NULL DEFAULT 0,
    seq          INTEGER,
    spooled_at   INTEGER,
    sha256       BLOB,
    bytes        INTEGER NOT NULL DEFAULT 0,
    records      INTEGER NOT NULL DEFAULT 0,
    duplicates   INTEGER NOT NULL DEFAULT 0,
    dropped      BLOB,             -- positions of the duplicates, see positions.rs
    segment      INTEGER,          -- where the body is while it is spooled
    offset       INTEGER,
    stored       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX blob_listed_once ON blob (feed, content_id) WHERE kind = 'blob';
CREATE INDEX blob_fresh    ON blob (tenant, created)    WHERE state = 'listed' AND not_before = 0;
CREATE INDEX blob_expiring ON blob (tenant, expires)    WHERE state = 'listed' AND not_before = 0;
CREATE INDEX blob_waiting  ON blob (tenant, not_before) WHERE state = 'listed' AND not_before > 0;
CREATE INDEX blob_stale    ON blob (expires)            WHERE state = 'listed';
CREATE INDEX blob_body     ON blob (segment)            WHERE segment IS NOT NULL;
CREATE INDEX blob_ended    ON blob (expires)            WHERE ended_at IS NOT NULL;
CREATE INDEX blob_lost     ON blob (state, work)        WHERE state IN ('gap', 'quarantined');
CREATE INDEX blob_hour     ON blob (feed, created);

CREATE TABLE sink (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    required    INTEGER NOT NULL,
    start_from  TEXT    NOT NULL CHECK (start_from IN ('spooled', 'now')),
    configured  INTEGER NOT NULL,
    met_at      INTEGER NOT NULL,
    forgotten_at INTEGER,
    state       BLOB,
    UNIQUE (name, incarnation)
) STRICT;

CREATE TABLE delivery (
    work       INTEGER NOT NULL REFERENCES blob (work),
    sink       INTEGER NOT NULL REFERENCES sink (id),
    tenant     INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    state      TEXT    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    due        INTEGER NOT NULL,           -- records in it that are no duplicates
    begun      INTEGER NOT NULL DEFAULT 0, -- how often its records may be at the sink without a receipt
    attempts   INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0, -- 0: due; the largest number: its body is being fetched again
    last_error TEXT,
    delivered  INTEGER NOT NULL DEFAULT 0,
    filtered   INTEGER NOT NULL DEFAULT 0,
    dead       INTEGER NOT NULL DEFAULT 0,
    resent     INTEGER NOT NULL DEFAULT 0,
    reason     TEXT,                       -- of a dead one
    settled_at INTEGER,
    PRIMARY KEY (work, sink)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_due     ON delivery (sink, tenant, seq) WHERE state = 'pending' AND not_before = 0;
CREATE INDEX delivery_waiting ON delivery (sink, not_before)  WHERE state = 'pending' AND not_before > 0;
CREATE INDEX delivery_begun   ON delivery (begun)             WHERE state = 'pending' AND begun > 0;

-- To which sinks a retry goes whose body has yet to be fetched.
CREATE TABLE retry_sink (
    work INTEGER NOT NULL REFERENCES blob (work),
    sink INTEGER NOT NULL REFERENCES sink (id),
    PRIMARY KEY (work, sink)
) STRICT, WITHOUT ROWID;

CREATE TABLE hole (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    feed         INTEGER NOT NULL REFERENCES feed (id),
    tenant       INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    starts       INTEGER NOT NULL,
    ends         INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    recorded_at  INTEGER NOT NULL,
    recovered_at INTEGER
) STRICT;
CREATE INDEX hole_open ON hole (feed, ends) WHERE recovered_at IS NULL;

-- A dead letter keeps what is needed to understand and retry it when its blob's row is folded long ago. The bytes
-- come last, so that reading the other columns does not read them.
CREATE TABLE dead_letter (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    work       INTEGER NOT NULL,
    feed       INTEGER NOT NULL REFERENCES feed (id),
    content_id TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    sink       INTEGER,          -- none: it was refused for every sink
    position   INTEGER,          -- none: a part of a body that is no array of records, or a whole delivery
    records    INTEGER NOT NULL, -- how many records it stands for
    reason     TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    retry      INTEGER,          -- the work that retries it
    done_at    INTEGER,          -- when that work was settled
    size       INTEGER NOT NULL, -- of the bytes that are kept
    bytes      BLOB
) STRICT;
CREATE INDEX dead_letter_work  ON dead_letter (work);
CREATE INDEX dead_letter_retry ON dead_letter (retry) WHERE retry IS NOT NULL AND done_at IS NULL;
CREATE INDEX dead_letter_open  ON dead_letter (id)    WHERE retry IS NULL;

CREATE TABLE acknowledgement (
    finding TEXT PRIMARY KEY,
    reason  TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Sums of an hour of contentCreated. `listed` counts from the moment of listing; the others are added when a row is
-- folded, so that until then the rows prove the count.
CREATE TABLE hour (
    feed        INTEGER NOT NULL REFERENCES feed (id),
    hour        INTEGER NOT NULL, -- hours since 1970
    listed      INTEGER NOT NULL DEFAULT 0,
    fetched     INTEGER NOT NULL DEFAULT 0,
    gaps        INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    records     INTEGER NOT NULL DEFAULT 0,
    duplicates  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (feed, hour)
) STRICT, WITHOUT ROWID;
CREATE TABLE hour_sink (
    feed      INTEGER NOT NULL REFERENCES feed (id),
    hour      INTEGER NOT NULL,
    sink      TEXT    NOT NULL,
    retry     INTEGER NOT NULL, -- 1: records of retries
    due       INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    filtered  INTEGER NOT NULL DEFAULT 0,
    dead      INTEGER NOT NULL DEFAULT 0,
    resent    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (feed, hour, sink, retry)
) STRICT, WITHOUT ROWID;
