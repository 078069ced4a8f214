//! `corelane::tls` as clients meet it: a runtime with two shards, each with a port of its own, and clients that are rustls,
//! OpenSSL and curl.
//!
//! Certificates are made anew for each test. Where something must not happen for ever, a generous bound stands.

mod certificates;
mod client;
mod clients;
mod files;
mod handshakes;
mod programs;
mod reload;
mod resumption;
mod site;
mod streams;
mod wrong;
