//! Who sleeps, who searches, and who is woken: the queues of a pool with two workers, and a third thread that pushes or one
//! of the two that does.
//!
//! [`worker`] is a copy of what `stealing::worker` does between two tasks. Not modelled: the inside of crossbeam's deques
//! (`sync/model.rs` has what they promise), sockets and timers. The guard is in `guard`.

use super::{check, rejected, spawn};
use crate::park::{Bell, Ring, Unparker};
use crate::stealing::idle::Idle;
use crate::stealing::queue::{Local, Queues};
use crate::sync::{Arc, Fault, commit};
use loom::sync::atomic::{AtomicUsize, Ordering};

const WORKERS: usize = 2;
const TASKS: usize = 2;

/// Everything that the threads of a model share.
struct Shared {
    queues: Queues<usize>,
    idle: Idle,
    unparkers: [Unparker<Bell>; WORKERS],
    /// How often each task has run.
    runs: [AtomicUsize; TASKS],
    ran: AtomicUsize,
    /// Rung by the last task; the first waits for it, if they are to run at the same time.
    together: Option<Bell>,
    variant: Variant,
}

#[derive(Clone, Copy)]
struct Variant {
    pusher: Fault,
    worker: Fault,
    /// The pusher has a queue of its own, as a worker has, and does not empty it.
    own_queue: bool,
    together: bool,
    /// The second worker leaves when it has slept once, whatever there is to do.
    leaves: bool,
    omission: Omission,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Omission {
    Nothing,
    /// The look at the queues between the announcement and the wait.
    LastLook,
    /// To wake another when the search was successful and there is more.
    Chain,
    /// To stop being the searcher before the last look.
    Resign,
    /// To stop being the searcher before it leaves, and to wake another in its place.
    Farewell,
}

const CORRECT: Variant = Variant {
    pusher: Fault::Nothing,
    worker: Fault::Nothing,
    own_queue: false,
    together: false,
    leaves: false,
    omission: Omission::Nothing,
};

impl Shared {
    fn notify(&self) {
        if let Some(worker) = self.idle.notify() {
            self.unparkers[worker].unpark();
        }
    }

    fn run(&self, task: usize) {
        self.runs[task].fetch_add(1, Ordering::Relaxed);
        if let Some(bell) = &self.together {
            if task == 0 {
                bell.wait();
            } else {
                bell.ring();
            }
        }
        if self.ran.fetch_add(1, Ordering::SeqCst) + 1 == TASKS {
            self.unparkers.iter().for_each(Unparker::unpark);
        }
    }

    fn is_done(&self) -> bool {
        self.ran.load(Ordering::SeqCst) == TASKS
    }

    fn found(&self, searcher: &mut bool) {
        if std::mem::replace(searcher, false) {
            self.idle.found();
            if self.variant.omission != Omission::Chain && self.queues.has_any() {
                self.notify();
            }
        }
    }
}

/// Runs tasks, searches and sleeps until all tasks have run, or it is to leave.
fn worker(shared: &Shared, local: &Local<usize>) {
    let index = local.index();
    let mut searcher = false;
    let leaves = shared.variant.leaves && index == 1;
    let mut slept = false;
    while !shared.is_done() && !(leaves && slept) {
        if let Some(task) = local.pop(&shared.queues) {
            shared.found(&mut searcher);
            shared.run(task);
            continue;
        }
        if searcher || shared.idle.search() {
            searcher = true;
            if let Some(task) = shared.queues.steal(local, index) {
                shared.found(&mut searcher);
                shared.run(task);
                continue;
            }
        }
        let omission = shared.variant.omission;
        let resigns = omission != Omission::Resign && std::mem::replace(&mut searcher, false);
        shared.idle.sleep(index, resigns);
        let unparker = &shared.unparkers[index];
        unparker.announce();
        let looks = omission != Omission::LastLook;
        let found = looks
            && (!shared.idle.sleeps(index)
                || (shared.queues.has_any() && !shared.idle.another_searches(index)));
        let stays = !found;
        if stays && !shared.is_done() {
            unparker.wait();
        }
        unparker.awake();
        searcher |= shared.idle.wake(index);
        slept = true;
    }
    if leaves && shared.variant.omission != Omission::Farewell {
        if searcher {
            shared.idle.found();
        }
        shared.notify();
    }
}

fn shared(queues: Queues<usize>, variant: Variant) -> Arc<Shared> {
    Arc::new(Shared {
        queues,
        idle: Idle::new(),
        unparkers: [(); WORKERS].map(|()| Unparker::new(Bell::new())),
        runs: [(); TASKS].map(|()| AtomicUsize::new(0)),
        ran: AtomicUsize::new(0),
        together: variant.together.then(Bell::new),
        variant,
    })
}

fn assert_each_ran_once(shared: &Shared) {
    for runs in &shared.runs {
        assert_eq!(runs.load(Ordering::Relaxed), 1, "a task did not run once");
    }
}

/// A worker pushes two tasks to its own queue, and takes them back unless the other is faster.
fn own_tasks(variant: Variant) {
    let (queues, mut locals) = Queues::new(WORKERS);
    let shared = shared(queues, variant);
    let second = locals.pop().expect("two workers");
    let first = locals.pop().expect("two workers");
    let there = shared.clone();
    let other = spawn(variant.worker, move || worker(&there, &second));
    commit(variant.pusher);
    for task in 0..TASKS {
        first.push(task);
        shared.notify();
    }
    worker(&shared, &first);
    commit(Fault::Nothing);
    other.join().expect("no thread panics");
    assert_each_ran_once(&shared);
}

/// Two tasks are pushed one after the other; both workers run until both have run.
fn pool(variant: Variant) {
    let (queues, mut locals) = Queues::new(WORKERS + usize::from(variant.own_queue));
    let shared = shared(queues, variant);
    let own = if variant.own_queue { locals.pop() } else { None };
    let second = locals.pop().expect("two workers");
    let first = locals.pop().expect("two workers");
    let there = shared.clone();
    let pusher = spawn(variant.pusher, move || {
        for task in 0..TASKS {
            match &own {
                Some(local) => local.push(task),
                None => there.queues.inject(task),
            }
            there.notify();
        }
    });
    let there = shared.clone();
    let other = spawn(variant.worker, move || worker(&there, &second));
    commit(variant.worker);
    worker(&shared, &first);
    commit(Fault::Nothing);
    for thread in [pusher, other] {
        thread.join().expect("no thread panics");
    }
    assert_each_ran_once(&shared);
}

/// Would catch a task that is pushed while the workers fall asleep and stays there, and one that runs twice.
#[test]
fn tasks_for_everybody_are_found() {
    check(2, || pool(CORRECT));
}

/// Would catch the same of tasks in the queue of a worker that is held up.
#[test]
fn tasks_of_a_worker_that_is_held_up_are_stolen() {
    check(2, || pool(Variant { own_queue: true, ..CORRECT }));
}

/// Would catch a second task that waits although a worker sleeps, because all rely on the one that searches.
#[test]
fn the_one_that_has_found_something_wakes_the_next() {
    check(2, || pool(Variant { together: true, ..CORRECT }));
}

/// Would catch a last task that its worker and a thief both get, or neither.
#[test]
fn a_worker_takes_its_own_tasks_back_unless_they_are_stolen() {
    check(3, || own_tasks(CORRECT));
}

/// Would catch the second of them left to a worker that is held up by the first.
#[test]
fn what_a_worker_does_not_take_back_is_stolen() {
    check(3, || own_tasks(Variant { together: true, ..CORRECT }));
}

/// Would catch a task for which a worker was woken that leaves instead.
#[test]
fn a_worker_that_leaves_wakes_another_in_its_place() {
    check(2, || pool(Variant { leaves: true, ..CORRECT }));
}

rejected! {
    /// Owner and thief find the same task.
    fn a_deque_whose_last_task_is_taken_in_two_steps() says "taken twice" {
        let torn = Fault::TornUpdates;
        check(3, move || own_tasks(Variant { pusher: torn, worker: torn, ..CORRECT }));
    }

    /// The thief's last look may come before the owner's push is seen.
    fn an_owner_without_its_fence() says "deadlock" {
        check(3, || own_tasks(Variant { pusher: Fault::NoFences, together: true, ..CORRECT }));
    }

    /// Everybody relies on a searcher that is gone.
    fn a_searcher_that_leaves_without_a_word() says "deadlock" {
        check(2, || pool(Variant { leaves: true, omission: Omission::Farewell, ..CORRECT }));
    }

    /// A worker that has searched in vain may miss what was pushed meanwhile.
    fn a_worker_that_does_not_look_again() says "deadlock" {
        check(2, || pool(Variant { omission: Omission::LastLook, ..CORRECT }));
    }

    /// The worker's last look may come before others see that nobody searches.
    fn a_worker_without_its_fences() says "deadlock" {
        check(2, || pool(Variant { worker: Fault::NoFences, ..CORRECT }));
    }

    /// The pusher's look may come before its push is seen.
    fn a_pusher_without_its_fence() says "deadlock" {
        check(2, || pool(Variant { pusher: Fault::NoFences, ..CORRECT }));
    }

    /// Everybody relies on a searcher that works.
    fn a_searcher_that_tells_nobody_of_the_rest() says "deadlock" {
        check(2, || pool(Variant { omission: Omission::Chain, together: true, ..CORRECT }));
    }

    /// Everybody relies on a searcher that sleeps.
    fn a_searcher_that_sleeps() says "deadlock" {
        check(2, || pool(Variant { omission: Omission::Resign, ..CORRECT }));
    }
}
