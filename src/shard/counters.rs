//! What a shard counts, and how others see it.
//!
//! The shard adds to plain cells. At each look at its sockets it copies them into atomics on cache lines that only it writes, where
//! anybody may read them: a reader costs the shard nothing but that line's way to the reader and back.

use crate::sync::{AtomicU64, CachePadded, Ordering};
use std::cell::Cell;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The shard's own counts.
        #[derive(Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Cell<u64>,)* }

        /// The counts as of the last look at the sockets.
        #[derive(Default)]
        pub(crate) struct Published { $($name: AtomicU64,)* }

        /// What one shard has done since it started, as of its last look at its sockets. Fields are read one by one:
        /// they may belong to different looks.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ShardStats { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Copies every count. Plain stores: this shard is the only writer.
            pub(crate) fn publish(&self, published: &Published) {
                $(published.$name.store(self.$name.get(), Ordering::Relaxed);)*
            }
        }

        impl Published {
            pub(crate) fn read(&self) -> ShardStats {
                ShardStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl ShardStats {
            /// Every count with its name, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Passes of the shard's loop.
    turns,
    /// Times a task was polled.
    polls,
    /// Times the shard slept, or was about to.
    parks,
    /// Looks at the sockets: `epoll_wait` calls, with and without waiting.
    io_polls,
    /// Wakes of a task by its own shard.
    local_wakes,
    /// Wakes of a task by another thread. Several that arrive before the task runs count once. In work-stealing mode also
    /// those by threads that are no workers, of tasks that any worker may run; each counts at one worker or another.
    foreign_wakes,
    /// Calls and notices received from other threads.
    inbox_messages,
    /// Times another thread had to wake the sleeping shard by a system call. Never more than `parks`.
    eventfd_writes,
    /// Connections accepted.
    accepts,
    /// Connections that could not be accepted.
    accept_errors,
    /// Connections that the HTTP server has open now. In work-stealing mode those of all workers, at the first.
    connections,
    /// Connections of the HTTP server that moved to another shard between two requests.
    connections_moved,
    /// Connections of the HTTP server that came from another shard.
    connections_arrived,
    /// Connections that the HTTP server accepted here and handed over to another shard, as a
    /// [`Policy`](crate::balance::Policy) says. They are among the `accepts` here.
    connections_handed_over,
    /// Connections that another shard accepted and handed over to this one. They are not among the `accepts` here. Over all
    /// shards there are as many as were handed over, but those on their way and those that a shutdown's deadline cut off.
    connections_taken_over,
    /// Connections that the HTTP server turned away because there were as many as there may be.
    connections_turned_away,
    /// Sockets that moved here from another shard.
    sockets_adopted,
    /// Tasks that a worker took out of another's queue. Work-stealing mode only.
    steals,
    /// Timers that fired.
    timers_fired,
    /// Tasks spawned.
    tasks_spawned,
    /// Tasks alive now. In work-stealing mode those that any worker may run are counted at the first.
    tasks,
    /// Panics caught: in tasks, drops and wakers.
    panics,
    /// Nanoseconds spent other than waiting for something to do.
    busy_nanos,
    /// Nanoseconds spent looking at the inbox before a park.
    spin_nanos,
}

/// The published counts of one shard, on lines of their own.
pub(crate) type PublishedLine = CachePadded<Published>;
