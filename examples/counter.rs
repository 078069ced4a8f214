//! A counter with a part on every shard, and a sum that is made only when somebody asks.
//!
//! ```text
//! cargo run --release --example counter
//! ```
//!
//! `Sharded` keeps one plain `Cell` per shard: no lock, no atomic. Each shard counts its own events at the price of an
//! addition, tells its neighbour of one in a hundred (a call that can be seen in the code and in the counters), and
//! `map_reduce` visits every shard for the sum. It ends by itself; `--demo` is taken and changes nothing.

use corelane::{Handle, Runtime, ShardId, Sharded};
use std::cell::Cell;
use std::error::Error;
use std::time::{Duration, Instant};

/// What one shard counts.
#[derive(Default)]
struct Tally {
    own: Cell<u64>,
    from_neighbour: Cell<u64>,
}

const EVENTS: u64 = 10_000;
const TELL_EVERY: u64 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().start()?;
    let handle = runtime.handle().clone();
    let shards = handle.shard_count() as u64;

    // This thread is a shard of its own for the length of `block_on`, and may call those of the runtime.
    runtime.block_on(async {
        let tally = Sharded::new(&handle, |_shard| Tally::default()).await?;

        let began = Instant::now();
        let for_each = tally.clone();
        let results = handle.broadcast(move |shard| count(for_each, shard)).await;
        results.into_iter().collect::<Result<Vec<_>, _>>()?;
        println!("{shards} shards counted {EVENTS} events each in {:?}", began.elapsed());

        for shard in handle.shards() {
            let (own, told) =
                tally.on(shard, |tally| (tally.own.get(), tally.from_neighbour.get())).await?;
            println!("{shard}: {own} of its own, {told} that its neighbour told it of");
        }
        let sum = tally.map_reduce(|tally| tally.own.get(), 0, |sum, own| sum + own).await?;
        let told =
            tally.map_reduce(|tally| tally.from_neighbour.get(), 0, |sum, own| sum + own).await?;
        println!("in all: {sum} events, {told} told");
        if (sum, told) != (shards * EVENTS, shards * EVENTS / TELL_EVERY) {
            return Err("the sum is wrong".into());
        }
        Ok::<(), Box<dyn Error>>(())
    })?;

    runtime.shutdown(Duration::from_secs(1));
    for (shard, stats) in handle.shards().zip(handle.stats()) {
        println!(
            "{shard}: {} messages received, slept {} times, woken by a system call {} times",
            stats.inbox_messages, stats.parks, stats.eventfd_writes
        );
    }
    Ok(())
}

/// Runs on `shard`, as does everything it touches but the closure that it sends.
async fn count(tally: Sharded<Tally>, shard: ShardId) {
    let handle = Handle::current();
    let neighbour = ShardId::new(((shard.index() + 1) % handle.shard_count()) as u16);
    let mine = tally.local();
    for event in 1..=EVENTS {
        mine.own.set(mine.own.get() + 1);
        if event % TELL_EVERY == 0 {
            // Waits for room in the neighbour's inbox if it is full, and for the answer.
            let told = tally.on(neighbour, |tally| {
                tally.from_neighbour.set(tally.from_neighbour.get() + 1);
            });
            told.await.expect("no shard stops before all have counted");
        }
    }
}
