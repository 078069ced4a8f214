//! The two wishes that decide what threads do: how tasks are scheduled, and whether threads stay on their CPUs.

/// Whether shards must be pinned to their CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    /// Refuse to start if a shard cannot be pinned.
    Required,
    /// Try; where it is refused, run unpinned and say so in [`ShardInfo::pinned`](crate::ShardInfo::pinned).
    #[default]
    BestEffort,
    /// Leave threads where the scheduler puts them.
    Off,
}

/// How the tasks of a runtime are scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Each shard runs its own tasks, and no other's. Nothing is shared, and nothing is stolen.
    #[default]
    ThreadPerCore,
    /// Each shard is a worker of one pool: what is spawned with [`spawn`](crate::spawn) is run by whichever worker has time
    /// for it, and sockets and timers are shared. What is spawned with [`spawn_local`](crate::spawn_local), and with
    /// [`Handle::spawn_on`](crate::Handle::spawn_on), stays where it is.
    ///
    /// The thread of a [`Handle::block_on`](crate::Handle::block_on) is no worker. Its future runs there, and so does what that spawns, with
    /// [`spawn`](crate::spawn) too; nothing of it is stolen. To have something run by the pool, spawn it from one of the
    /// workers, which are reached by [`Handle::spawn_on`](crate::Handle::spawn_on) and [`Handle::submit_to`](crate::Handle::submit_to).
    WorkStealing,
}

impl Mode {
    /// How threads are pinned if nobody says: workers may be moved by the system as it sees fit.
    pub(crate) fn default_pin(self) -> Pin {
        match self {
            Mode::ThreadPerCore => Pin::BestEffort,
            Mode::WorkStealing => Pin::Off,
        }
    }
}
