//! A value that is replaced while threads read it.

use super::{check, rejected, spawn};
use crate::sync::live::{Known, Live};
use crate::sync::{Arc, Fault, commit};

/// A thread replaces a value, another does so twice, and a third reads meanwhile.
fn replaced(writers: Fault) {
    let live = Arc::new(Live::new(0));
    let replace = |values: &'static [u32]| {
        let live = live.clone();
        spawn(writers, move || values.iter().for_each(|value| live.replace(*value)))
    };
    let (first, second) = (replace(&[1]), replace(&[2, 3]));
    let known = Known::new(live.clone());
    let early = **known.get();
    first.join().expect("does not panic");
    second.join().expect("does not panic");
    commit(Fault::Nothing);
    // Whatever it has seen before, now it must see what is there.
    let last = **Known::new(live.clone()).get();
    assert_ne!(last, 0);
    assert_eq!(**known.get(), last, "a reader has kept an old value; it saw {early} before");
}

/// Would catch a reader that takes an old value for a new one, and keeps it.
#[test]
fn a_value_that_two_threads_replace_is_seen_by_who_read_before() {
    check(5, || replaced(Fault::Nothing));
}

/// A thread replaces a value twice, while another looks, looks again, and so on.
fn replaced_in_turn() {
    let live = Arc::new(Live::new(0));
    let writer = {
        let live = live.clone();
        spawn(Fault::Nothing, move || (1..=2).for_each(|value| live.replace(value)))
    };
    let known = Known::new(live);
    let mut seen = 0;
    for _ in 0..3 {
        let now = **known.get();
        assert!(now >= seen, "{now} after {seen}");
        seen = now;
    }
    writer.join().expect("does not panic");
    assert_eq!(**known.get(), 2);
}

/// Would catch a reader that goes back in time.
#[test]
fn who_has_seen_a_new_value_never_sees_an_older() {
    check(None, replaced_in_turn);
}

rejected! {
    /// The number goes back to what it was: who knows the value of that time believes to know the new one.
    fn writers_that_count_in_two_steps() says "a reader has kept an old value" {
        check(5, || replaced(Fault::TornUpdates));
    }
}
