//! Scenarios: the real binary against the simulated tenant, judged from what arrives.
//!
//! One test binary with many modules, because each binary is linked against everything.

mod archive;
mod check;
mod columns;
mod contract;
mod damage;
mod deploy;
mod faults;
mod full_disk;
mod health;
mod hec;
mod house;
mod kills;
mod logins;
mod oversized;
mod proxies;
mod real_archive;
mod real_azure;
mod real_hec;
mod real_kafka;
mod real_kql;
mod real_prometheus;
mod real_s3;
mod real_sentinel;
mod real_tampering;
mod real_timestamps;
mod reload;
mod restoring;
mod runs;
mod samples;
mod sentinel;
mod support;
mod terminal;
