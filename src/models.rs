//! Models of everything that crosses threads, explored by loom.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --lib --release --no-default-features models
//! ```
//!
//! A model runs the real tasks, wakers, handles, inboxes and sleep handshake, under every order in which its threads
//! can run and every value that the memory orderings let them read, up to a number of preemptions that each model
//! names (`LOOM_MAX_PREEMPTIONS` overrides it). What is not modelled: sockets and the kernel (a [`Bell`] stands for
//! eventfd and epoll), the inside of crossbeam's queues (`sync/model.rs` has what they promise), the clock, and the
//! shard's loop, of which [`Shard`] is a copy that polls until nothing is ready. Change one and you must change the
//! other.
//!
//! A model that cannot fail proves nothing. So each protocol has variants with one thing done wrong, by a [`Fault`] in
//! one thread or in the copy of the loop, and a test that the model rejects them. Those run in a process of their own:
//! a deadlock in loom can end in an abort.

mod calls;
mod ending;
mod guard;
mod join;
mod live;
mod park;
mod pool_end;
mod reentry;
mod references;
mod seats;
mod shutdown;
mod stealable;
mod stealing;
mod timer;
mod wake;

use crate::limits::{HANDOVERS_PER_POLL, Limits};
use crate::mesh::inbox::Inbox;
use crate::mesh::message::{Alarm, Notice};
use crate::park::{Bell, Ring};
use crate::sync::{Arc, Fault, commit};
use crate::task::home::Home;
use crate::task::join::JoinHandle;
use crate::task::waker;
use crate::time::wheel::Wheel;
use loom::thread::ThreadId;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic;
use std::pin::pin;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

thread_local! {
    /// Panics on this thread in the present run of its model.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Explores `model` with threads interrupted up to `preemptions` times per run, or as often as can be (`None`). A panic
/// that the runtime catches fails the model as well: it may be loom's.
fn check(preemptions: impl Into<Option<usize>>, model: impl Fn() + Sync + Send + 'static) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            usual(info);
        }));
    });
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = runs.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions.into());
    builder.max_branches = builder.max_branches.max(10_000);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        PANICS.set(0);
        model();
        assert_eq!(PANICS.get(), 0, "a panic was caught on the way");
    });
    println!("{} runs", runs.load(Ordering::Relaxed));
}

/// A test that a model with something wrong in it is rejected, and says what the model must say.
macro_rules! rejected {
    ($($(#[$doc:meta])* fn $name:ident() says $text:literal $body:block)*) => {
        $($(#[$doc])* #[test] fn $name() {
            $crate::models::assert_rejected(concat!(module_path!(), "::", stringify!($name)), $text, || $body);
        })*
    };
}
use rejected;

/// What loom says when all threads wait.
const DEADLOCK: &str = "deadlock; threads =";

/// Runs the test `path` again in a process of its own, where it explores `model`, and expects that process to fail.
fn assert_rejected(path: &str, text: &str, model: impl Fn()) {
    const CHILD: &str = "CORELANE_MODEL_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return model();
    }
    let (_, test) = path.split_once("::").expect("a path in this crate");
    let this = std::env::current_exe().expect("the test's own file");
    let child = Command::new(this).args(["--exact", test, "--nocapture"]).env(CHILD, "1").output();
    let child = child.expect("a second process");
    let said = [child.stdout, child.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(!child.status.success(), "the model did not notice:\n{said}");
    let text = if text == "deadlock" { DEADLOCK } else { text };
    assert!(said.contains(text), "rejected, but not with {text:?}:\n{said}");
}

/// What the copy of the shard's loop leaves out, for the variants that must be rejected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Omission {
    Nothing,
    /// The look at the inbox between the announcement and the wait.
    SecondLook,
    /// The return to AWAKE after the wait.
    Awake,
    /// To let those who wait for room know of it.
    MadeRoom,
    /// To answer what is left in the inbox at the end.
    InboxClose,
    /// To take the last wakes at the end.
    HomeClose,
}

/// A shard without sockets, on the thread that made it.
struct Shard {
    home: Home,
    /// Timers by their tick. Time passes while the shard sleeps.
    timers: RefCell<Wheel<Waker>>,
    now: Cell<u64>,
    notices: Cell<usize>,
    calls: Cell<usize>,
    parks: Cell<u64>,
    omission: Cell<Omission>,
}

impl Shard {
    fn new(inbox_capacity: usize) -> Shard {
        let limits = Limits { inbox_capacity, ..Limits::default() };
        Shard {
            home: Home::new(Arc::new(Inbox::new(Bell::new(), 1, &limits)), 0),
            timers: RefCell::new(Wheel::new(0)),
            now: Cell::new(0),
            notices: Cell::new(0),
            calls: Cell::new(0),
            parks: Cell::new(0),
            omission: Cell::new(Omission::Nothing),
        }
    }

    fn inbox(&self) -> &Arc<Inbox> {
        self.home.inbox()
    }

    fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        JoinHandle::spawn(&self.home, future)
    }

    /// Runs `f` as if in a turn.
    fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        let _home = waker::enter(&self.home);
        f()
    }

    /// One turn without its sleep. True: there was something to do.
    fn turn(&self) -> bool {
        self.enter(|| {
            let mut busy = self.read_inbox();
            while self.home.poll_next(HANDOVERS_PER_POLL) > 0 {
                busy = true;
            }
            busy
        })
    }

    fn read_inbox(&self) -> bool {
        if self.inbox().is_empty() {
            return false;
        }
        let woken = self.home.take_foreign();
        let (notices, calls) = (self.notices.get(), self.calls.get());
        while let Some(notice) = self.inbox().take_notice() {
            self.notices.set(self.notices.get() + 1);
            self.follow(notice);
        }
        while let Some(call) = self.inbox().take_call() {
            self.calls.set(self.calls.get() + 1);
            call.call();
        }
        let called = self.calls.get() > calls;
        if called && self.omission.get() != Omission::MadeRoom {
            self.inbox().made_room();
        }
        woken > 0 || called || self.notices.get() > notices
    }

    fn follow(&self, notice: Notice) {
        match notice {
            Notice::Run(run) => run(),
            Notice::Arm { alarm, .. } => {
                let key = self.timers.borrow_mut().insert(self.now.get() + 1, alarm_waker(&alarm));
                alarm.armed(key);
            }
            Notice::CancelAlarm(alarm) => {
                if let Some(key) = alarm.take_key() {
                    drop(self.timers.borrow_mut().remove(key));
                }
            }
            _ => unreachable!("no model sends this"),
        }
    }

    /// Works and sleeps until `done`.
    fn run_until(&self, done: impl Fn() -> bool) {
        loop {
            while self.turn() {}
            if done() {
                return;
            }
            self.sleep();
        }
    }

    /// Announces sleep, looks once more, and waits for the bell, or for the next timer if there is one.
    fn sleep(&self) {
        let unparker = self.inbox().unparker();
        unparker.announce();
        self.parks.set(self.parks.get() + 1);
        if self.omission.get() == Omission::SecondLook || self.inbox().is_empty() {
            let timer = self.timers.borrow().next_tick();
            match timer {
                Some(tick) => self.now.set(self.now.get().max(tick)),
                None => unparker.wait(),
            }
        }
        if self.omission.get() != Omission::Awake {
            unparker.awake();
        }
        self.fire();
    }

    fn fire(&self) {
        let mut fired = Vec::new();
        self.timers.borrow_mut().expire(self.now.get(), usize::MAX, &mut fired);
        self.enter(|| fired.into_iter().for_each(Waker::wake));
    }

    /// The end of a shard.
    fn close(&self) {
        self.enter(|| {
            self.home.cancel_all();
            self.read_inbox();
            self.home.cancel_all();
            if self.omission.get() != Omission::InboxClose {
                self.inbox().close();
            }
            let timers = self.timers.replace(Wheel::new(0));
            ring_all(timers);
            if self.omission.get() != Omission::HomeClose {
                self.home.close();
            }
        });
    }

    /// The end of a shard whose tasks have ended and whose handles and wakers are gone: the memory of all of them must
    /// be free by now.
    fn close_empty(&self) {
        while self.turn() {}
        assert_eq!(self.home.cells(), 0, "a task that nobody refers to was not freed");
        self.close();
    }
}

/// Wakes everybody who waits for a timer: a thread elsewhere must not sleep on.
fn ring_all(mut timers: Wheel<Waker>) {
    let mut left = Vec::new();
    while let Some(tick) = timers.next_tick() {
        timers.expire(tick, usize::MAX, &mut left);
    }
    left.into_iter().for_each(Waker::wake);
}

/// What the wheel wakes for an alarm. (Outside of models, `Alarm` is its own `Wake`; loom's Arc does not allow it.)
fn alarm_waker(alarm: &Arc<Alarm>) -> Waker {
    struct Rings(Arc<Alarm>);
    impl Wake for Rings {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.ring();
        }
    }
    Waker::from(std::sync::Arc::new(Rings(alarm.clone())))
}

/// Waits for a future on a thread that is no shard.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Sleeper(Bell);
    impl Wake for Sleeper {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.ring();
        }
    }
    let sleeper = std::sync::Arc::new(Sleeper(Bell::new()));
    let waker = Waker::from(sleeper.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        sleeper.0.wait();
    }
}

/// Notes where values are dropped.
#[derive(Clone, Default)]
struct Drops(std::sync::Arc<std::sync::Mutex<Vec<ThreadId>>>);

/// A value whose drop is noted.
struct Noted(Drops);

impl Drops {
    fn noted(&self) -> Noted {
        Noted(self.clone())
    }

    fn take(&self) -> Vec<ThreadId> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics with it"))
    }

    /// Each of `count` values was dropped, once, and here.
    fn assert_here(&self, count: usize) {
        assert_eq!(
            self.take(),
            vec![loom::thread::current().id(); count],
            "dropped elsewhere than at home, or not once"
        );
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.0.lock().expect("nobody panics with it").push(loom::thread::current().id());
    }
}

/// A thread that does `work` with something wrong.
fn spawn<T: 'static>(
    fault: Fault,
    work: impl FnOnce() -> T + 'static,
) -> loom::thread::JoinHandle<T> {
    loom::thread::spawn(move || {
        commit(fault);
        work()
    })
}
