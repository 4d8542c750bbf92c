-- Where a feed began, so that a restart does not make a configured start a later one; and that its subscription was found
-- missing, so that a restart does not make what was lost by that look listed.
ALTER TABLE feed ADD COLUMN listed_from INTEGER;
ALTER TABLE feed ADD COLUMN unsubscribed INTEGER NOT NULL DEFAULT 0;

-- The nearest that is known of feeds that began before: the hour of their first blob.
UPDATE feed
SET listed_from = min(watermark, coalesce((SELECT min(hour.hour) * 3600000000 FROM hour WHERE hour.feed = feed.id), watermark))
WHERE watermark IS NOT NULL;
