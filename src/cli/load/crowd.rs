//! The silent connections of one thread: they ask once, and are there.
//!
//! They stand before anything is measured, so that the crowd is what the server has, not what it is given meanwhile. One that is
//! lost comes again.

use super::connection::{PAUSE, Target};
use crate::task::JoinHandle;
use crate::time::{sleep, timeout};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Connections of one thread that are made at a time: fewer than a server's backlog usually holds.
const AT_A_TIME: usize = 512;

pub(super) struct Crowd {
    wanted: u64,
    /// Connections that are there.
    present: Cell<u64>,
    /// Those that the server answered and did not keep, and that are not back yet.
    turned_away: Cell<u64>,
    /// Who waits until all are there.
    waiting: RefCell<Option<Waker>>,
    turns: Semaphore,
}

impl Crowd {
    /// Starts so many; the tasks run for ever.
    pub(super) fn gather(wanted: u64, target: &Target) -> (Rc<Crowd>, Vec<JoinHandle<()>>) {
        let crowd = Rc::new(Crowd {
            wanted,
            present: Cell::default(),
            turned_away: Cell::default(),
            waiting: RefCell::default(),
            turns: Semaphore::new(AT_A_TIME),
        });
        let one = |_| crate::spawn_local(idle(target.clone(), crowd.clone()));
        let tasks = (0..wanted).map(one).collect();
        (crowd, tasks)
    }

    /// Waits until all are there, but for those that the server does not keep, and no longer than that.
    pub(super) async fn stands(&self, within: Duration) {
        let all = poll_fn(|context| {
            if self.present.get() + self.turned_away.get() >= self.wanted {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        });
        let _ = timeout(within, all).await;
    }

    /// How many are not there now.
    pub(super) fn missing(&self) -> u64 {
        self.wanted.saturating_sub(self.present.get())
    }

    fn changed(&self, count: &Cell<u64>) {
        count.set(count.get() + 1);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// Asks once, and then keeps the connection open and silent.
async fn idle(target: Target, crowd: Rc<Crowd>) {
    let mut turned_away = false;
    loop {
        let turn = crowd.turns.acquire().await;
        if let Ok(mut link) = target.connect().await {
            match link.ask(&target, 1, |_| ()).await {
                Ok(true) => {
                    drop(turn);
                    if std::mem::take(&mut turned_away) {
                        crowd.turned_away.set(crowd.turned_away.get() - 1);
                    }
                    crowd.changed(&crowd.present);
                    // Nothing comes but the end.
                    let _ = link.stream.readable().await;
                    crowd.present.set(crowd.present.get() - 1);
                }
                Ok(false) if !turned_away => {
                    turned_away = true;
                    crowd.changed(&crowd.turned_away);
                }
                _ => {}
            }
        }
        sleep(PAUSE).await;
    }
}
