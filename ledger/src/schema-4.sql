-- Restores: records that an operator puts back from an archive, for one sink. Each piece of them is a row of `blob` of
-- the kind 'retry' that names its restore, so that no row of the large tables has to be written anew.
CREATE TABLE restore (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    sink     INTEGER NOT NULL REFERENCES sink (id),
    asked    TEXT    NOT NULL,           -- what was asked for: asked again while it is unfinished, it goes on
    starts   INTEGER NOT NULL,           -- CreationTimes that are restored: from this one …
    ends     INTEGER NOT NULL,           -- … to before this one
    begun_at INTEGER NOT NULL,
    ended_at INTEGER,                    -- when all of it was in the spool, or it was given up
    works    INTEGER NOT NULL DEFAULT 0,
    records  INTEGER NOT NULL DEFAULT 0  -- that were put back so far
) STRICT;
CREATE UNIQUE INDEX restore_open ON restore (sink, asked) WHERE ended_at IS NULL;

-- How far an unfinished restore is in each object of the archive.
CREATE TABLE restore_object (
    restore INTEGER NOT NULL REFERENCES restore (id),
    object  TEXT    NOT NULL,
    lines   INTEGER NOT NULL, -- so many are dealt with
    done    INTEGER NOT NULL, -- 1: all of them
    PRIMARY KEY (restore, object)
) STRICT, WITHOUT ROWID;

ALTER TABLE blob ADD COLUMN restore INTEGER REFERENCES restore (id);
CREATE INDEX blob_restore ON blob (restore) WHERE restore IS NOT NULL;
