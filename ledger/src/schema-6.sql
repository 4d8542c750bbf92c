-- When a feed's subscription was last asked to start: the API wants 15 minutes between two starts, whoever runs.
ALTER TABLE feed ADD COLUMN started_at INTEGER;
