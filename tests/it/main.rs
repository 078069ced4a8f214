//! Behaviour at the crate's boundary, with a real kernel, real threads and real sockets: one program for all of it.
//!
//! Nothing here sleeps in order to wait for something, and no test asserts on a time tighter than a generous bound.
//! Tests that need a process of their own (its memory, its CPU mask, its death) run this program again.

mod harness;
mod pretence;
mod process;

#[cfg(feature = "cli")]
mod balance;
#[cfg(feature = "compare")]
mod compare;
#[cfg(feature = "cli")]
mod config;
mod net;
#[cfg(feature = "cli")]
mod serve;
#[cfg(feature = "cli")]
mod services;
#[cfg(feature = "server")]
mod steering;
#[cfg(feature = "tls")]
mod tls;

mod calls;
mod fairness;
mod goaway;
mod hosted;
mod join_set;
mod long;
mod memory;
mod panics;
mod runtime;
mod sharing;
mod stealing;
mod stopping;
mod tasks;
mod threads;
mod tidy;
mod timers;
#[cfg(all(feature = "tokio-context", feature = "tower"))]
mod tokio_context;
#[cfg(feature = "tracing")]
mod tracing;
mod turns;
mod wakers;
mod watched;
