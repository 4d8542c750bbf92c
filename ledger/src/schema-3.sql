-- A tenant's numbers, for statements on a span of them.
CREATE INDEX blob_seq ON blob (tenant, seq) WHERE seq IS NOT NULL;
