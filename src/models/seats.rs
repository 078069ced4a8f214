//! Connections that count at a shard's seat while others choose by the count.

use super::{check, rejected, spawn};
use crate::balance::seats::{Bounds, Counted, Seat};
use crate::id::ShardId;
use crate::sync::{Arc, Fault, commit};

fn seat() -> Arc<Seat> {
    let seat = Seat::new(ShardId::new(0), 0, Bounds::NONE);
    seat.open();
    seat
}

/// Two shards choose the same seat because it has nobody, one connection each; a third connection ends there.
fn claimed(fault: Fault) {
    let seat = seat();
    let ends = Counted::new(&seat);
    let claims = || {
        let seat = seat.clone();
        spawn(fault, move || Counted::claim(&seat, 0))
    };
    let (one, other) = (claims(), claims());
    commit(fault);
    drop(ends);
    commit(Fault::Nothing);
    let claims = [one, other].map(|claim| claim.join().expect("does not panic"));
    let count = claims.iter().flatten().count() as u64;
    assert!(count <= 1, "both have got it by the same count");
    assert_eq!(
        seat.load(),
        Some(count),
        "a connection that does not count, or that counts and is none"
    );
    drop(claims);
    assert_eq!(seat.load(), Some(0));
}

/// Would catch two that are given the same place, and a count that is lost.
#[test]
fn one_of_two_who_choose_by_the_same_count_gets_the_seat() {
    check(None, || claimed(Fault::Nothing));
}

/// A shard stops taking connections while one is sent there, and another ends.
fn closed(fault: Fault) {
    let seat = seat();
    let ends = Counted::new(&seat);
    let claims = {
        let seat = seat.clone();
        spawn(fault, move || seat.load().and_then(|load| Counted::claim(&seat, load)))
    };
    let leaves = spawn(fault, move || drop(ends));
    commit(fault);
    seat.close();
    commit(Fault::Nothing);
    let claimed = claims.join().expect("does not panic");
    leaves.join().expect("does not panic");
    assert_eq!(seat.load(), None, "it is open again");
    assert!(Counted::claim(&seat, 0).is_none());
    let count = u64::from(claimed.is_some());
    seat.open();
    assert_eq!(seat.load(), Some(count));
}

/// Would catch a close that is overwritten by who counts at the same moment.
#[test]
fn a_seat_that_is_closed_stays_closed_whoever_comes_or_goes() {
    check(None, || closed(Fault::Nothing));
}

rejected! {
    /// Both read the count before either writes it.
    fn claims_in_two_steps() says "both have got it by the same count" {
        check(3, || claimed(Fault::TornUpdates));
    }

    /// The close is written over.
    fn counts_in_two_steps_beside_a_close() says "it is open again" {
        check(3, || closed(Fault::TornUpdates));
    }
}
