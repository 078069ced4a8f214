//! Where a socket is registered, and its way from one shard to another.

use super::{Socket, Source, assumed};
use crate::mesh::inbox::Inbox;
use crate::mesh::message::Notice;
use crate::reactor::engine::{Descriptor, Held, lost};
use crate::reactor::slots::SlotKey;
use crate::shard::context::with_current;
use crate::sync::{Arc, Ordering, lock};
use crate::task::home::add;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::slice;

/// One shard that knows the socket.
pub(super) struct Registration {
    pub(super) inbox: Arc<Inbox>,
    pub(super) key: SlotKey,
    /// How often the shard was told that the socket has left.
    left: u32,
}

impl Registration {
    /// Tells the shard that the socket has left it for another.
    pub(super) fn leave(&mut self) {
        self.left += 1;
        self.inbox.notify(Notice::MovedAway(self.key, self.left));
    }
}

/// The shards that know a socket. Mostly it is one, which takes no memory of its own.
#[derive(Default)]
pub(super) enum Registrations {
    #[default]
    None,
    One(Registration),
    Several(Vec<Registration>),
}

impl Registrations {
    fn push(&mut self, new: Registration) {
        *self = match std::mem::take(self) {
            Registrations::None => Registrations::One(new),
            Registrations::One(old) => Registrations::Several(vec![old, new]),
            Registrations::Several(mut all) => {
                all.push(new);
                Registrations::Several(all)
            }
        };
    }

    fn retain(&mut self, keep: impl Fn(&Registration) -> bool) {
        match self {
            Registrations::One(one) if !keep(one) => *self = Registrations::None,
            Registrations::None | Registrations::One(_) => {}
            Registrations::Several(all) => all.retain(keep),
        }
    }
}

impl Deref for Registrations {
    type Target = [Registration];

    fn deref(&self) -> &[Registration] {
        match self {
            Registrations::None => &[],
            Registrations::One(one) => slice::from_ref(one),
            Registrations::Several(all) => all,
        }
    }
}

impl DerefMut for Registrations {
    fn deref_mut(&mut self) -> &mut [Registration] {
        match self {
            Registrations::None => &mut [],
            Registrations::One(one) => slice::from_mut(one),
            Registrations::Several(all) => all,
        }
    }
}

impl<S: Socket> Source<S> {
    /// Registers here if it is registered nowhere, so that the next operation asks the kernel only if that reports
    /// readiness, or if it is assumed. On a thread that is no shard it does nothing.
    pub(crate) fn settle(&self) -> io::Result<()> {
        if assumed(self.place.load(Ordering::Relaxed)).is_some() {
            self.move_here()?;
        }
        Ok(())
    }

    /// Registers with the current shard. False: there is none, or the socket cannot move now.
    #[cold]
    pub(super) fn move_here(&self) -> io::Result<bool> {
        if self.is_held() {
            return Ok(false);
        }
        let moved = with_current(|shard| -> io::Result<()> {
            let homes = &mut lock(&self.homes).at;
            if let Some(shared) = shard.shared() {
                return self.join_pool(shared, homes);
            }
            if self.pooled.get().is_some() {
                // Since the caller looked: it looks again.
                return Ok(());
            }
            let uid = shard.inbox().uid();
            let before = self.place.load(Ordering::Relaxed);
            let fd = self.shared.fd().as_raw_fd();
            let known = homes.iter().find(|home| home.inbox.uid() == uid);
            let back = |home: &&Registration| shard.reactor.take_back(home.key, fd, home.left);
            let key = match known.filter(back).map(|home| home.key) {
                Some(key) => key,
                None => {
                    homes.retain(|home| home.inbox.uid() != uid && !home.inbox.is_closed());
                    let assumed = assumed(before).unwrap_or_default();
                    let key = shard.reactor.register(self.shared.clone(), assumed)?;
                    if !homes.is_empty() {
                        add(&shard.counters.sockets_adopted, 1);
                    }
                    homes.push(Registration { inbox: shard.inbox().clone(), key, left: 0 });
                    key
                }
            };
            if self.holds(Held::Lost) {
                shard.reactor.fail(key, lost());
            }
            self.place.store(key.to_bits(), Ordering::Relaxed);
            // The home before lets go unless somebody waits there; those before it have been told.
            let before = SlotKey::from_bits(before).owner();
            let other =
                |home: &&mut Registration| home.inbox.uid() != uid && home.inbox.uid() == before;
            if let Some(home) = homes.iter_mut().find(other) {
                home.leave();
            }
            Ok(())
        });
        moved.transpose().map(|moved| moved.is_some())
    }

    /// Ends every registration. `open`: the fd lives on, so the kernel must be told.
    pub(super) fn leave(&mut self, open: bool) {
        if let Some(pooled) = self.pooled.take() {
            pooled.leave(self.shared.fd().as_raw_fd(), open);
        }
        let homes = std::mem::take(&mut lock(&self.homes).at);
        self.place.store(0, Ordering::Relaxed);
        for home in &*homes {
            let here = with_current(|shard| {
                let here = shard.inbox().uid() == home.inbox.uid();
                if here && open {
                    shard.reactor.send_and_deregister(home.key);
                } else if here {
                    shard.reactor.forget_slot(home.key);
                }
                here
            });
            if here != Some(true) {
                home.inbox.notify(Notice::Dropped(home.key));
            }
        }
    }
}
