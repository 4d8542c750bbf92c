//! From a tenant to the ledger: the Management Activity API client, the lister and the fetcher.

pub mod feed_ledger;
