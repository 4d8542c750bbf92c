-- What of a hole was not listed since. Windows are at most a day long, so that a hole may need several.
ALTER TABLE hole ADD COLUMN left_from INTEGER;
ALTER TABLE hole ADD COLUMN left_to INTEGER;
UPDATE hole SET left_from = starts, left_to = ends;
