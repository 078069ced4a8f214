//! The life of a shard's thread, from its report to its end.

use super::builder::refused;
use crate::error::Error;
use crate::id::{CpuId, ShardId};
use crate::mode::Pin;
use crate::shard::counters::PublishedLine;
use crate::shard::fleet::Fleet;
use crate::shard::{Seed, Shard};
use crate::stealing::pool::Pool;
use crate::stealing::queue::Local;
use crate::stealing::worker::Worker;
use crate::sync::Arc;
use crate::sys::affinity;
use crate::sys::thread::ThreadNumber;
use crate::task::stealable::Job;
use std::rc::Rc;
use std::sync::mpsc;

/// What a new thread says when it is ready to turn, or why it is not.
pub(super) type Report = Result<Ready, Error>;

pub(super) struct Ready {
    pub(super) pinned: bool,
    pub(super) number: Option<ThreadNumber>,
}

/// A worker's part in a pool.
pub(super) type Part = (std::sync::Arc<Pool>, Local<Job>);

/// What a thread turns.
enum Loop {
    Shard(Rc<Shard>),
    Worker(Worker),
}

impl Loop {
    fn run(&self) {
        match self {
            Loop::Shard(shard) => shard.run(),
            Loop::Worker(worker) => worker.run(),
        }
    }
}

/// However the loop ends, the shard is closed, so that nobody waits for an answer from it.
impl Drop for Loop {
    fn drop(&mut self) {
        match self {
            Loop::Shard(shard) => shard.close(),
            Loop::Worker(worker) => worker.close(),
        }
    }
}

/// What a thread is to be.
pub(super) struct Plan {
    pub(super) id: ShardId,
    pub(super) cpu: CpuId,
    pub(super) pin: Pin,
    pub(super) seed: Seed,
    /// As a worker.
    pub(super) part: Option<Part>,
    pub(super) fleet: Arc<Fleet>,
}

/// The whole life of a shard's thread.
pub(super) fn run(plan: Plan, tell: &mpsc::Sender<Report>, go: &mpsc::Receiver<()>) {
    let Plan { id, cpu, pin, seed, part, fleet } = plan;
    let ready =
        pin_to(id, cpu, pin).map(|pinned| Ready { pinned, number: ThreadNumber::current() });
    let failed = ready.is_err();
    let published = fleet.published(id);
    // A starting thread that has gone away hears nothing, and says nothing either: `go` fails below.
    let _ = tell.send(ready);
    if failed {
        return;
    }
    let surroundings = fleet.surroundings().clone();
    surroundings.within(|| turn(id, seed, part, fleet, published, go));
}

fn turn(
    id: ShardId,
    seed: Seed,
    part: Option<Part>,
    fleet: Arc<Fleet>,
    published: Arc<PublishedLine>,
    go: &mpsc::Receiver<()>,
) {
    let seat = seed.seat.clone();
    let shard = Shard::new(Some(id), seed, fleet, published);
    let turned = match part.zip(seat) {
        Some(((pool, local), seat)) => Loop::Worker(Worker::new(shard, pool, local, seat)),
        None => Loop::Shard(shard),
    };
    if go.recv().is_ok() {
        turned.run();
    }
}

fn pin_to(shard: ShardId, cpu: CpuId, pin: Pin) -> Result<bool, Error> {
    if pin == Pin::Off {
        return Ok(false);
    }
    match affinity::pin_current_thread(cpu) {
        Ok(()) => Ok(true),
        Err(error) if pin == Pin::Required => {
            Err(refused(format!("{shard} cannot be pinned to {cpu}"), error))
        }
        Err(_) => Ok(false),
    }
}
