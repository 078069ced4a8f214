//! One value per shard.
//!
//! The values never move: each is made, used and dropped on its shard, so it need be neither `Send` nor `Sync`. What
//! travels is the name under which every shard keeps its own.

use super::calls::CallError;
use super::handle::Handle;
use crate::id::ShardId;
use crate::mesh::message::Notice;
use crate::shard::context::{outside, with_current};
use crate::sync::Arc;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::rc::Rc;

/// A value of type `T` on every shard of a runtime. Cloning it clones the name, not the values; when the last clone
/// is gone every shard drops its value.
///
/// # Examples
/// ```
/// use corelane::{Runtime, ShardId, Sharded};
/// use std::cell::Cell;
/// let runtime = Runtime::builder().cores("1".parse()?).start()?;
/// let handle = runtime.handle().clone();
/// let total = corelane::block_on(async {
///     let hits = Sharded::new(&handle, |_shard| Cell::new(0)).await?;
///     hits.on(ShardId::new(0), |hits| hits.set(hits.get() + 1)).await?;
///     hits.map_reduce(|hits| hits.get(), 0, |sum, hits| sum + hits).await
/// })?;
/// assert_eq!(total, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sharded<T> {
    name: Arc<Name>,
    _value: PhantomData<fn() -> T>,
}

struct Name {
    handle: Handle,
    number: u64,
}

impl<T: 'static> Sharded<T> {
    /// Makes one value on each shard, by `make`, which runs there.
    ///
    /// # Errors
    /// If a shard has shut down or `make` panicked there. The values that were made are dropped.
    ///
    /// # Cancel safety
    /// Safe: dropped early, every shard drops the value that it has made, or makes none.
    pub async fn new<F>(handle: &Handle, make: F) -> Result<Sharded<T>, CallError>
    where
        F: FnOnce(ShardId) -> T + Clone + Send + 'static,
    {
        let number = handle.fleet().next_sharded();
        let sharded = Sharded {
            name: Arc::new(Name { handle: handle.clone(), number }),
            _value: PhantomData,
        };
        // Notices overtake calls: the word that the name is gone may be here before this.
        let name = Arc::downgrade(&sharded.name);
        let made = handle.broadcast(move |shard| async move {
            // Held until the value is kept, so that the word to forget it comes later.
            let Some(_name) = name.upgrade() else { return };
            let value: Rc<T> = Rc::new(make(shard));
            with_current(|shard| shard.keep(number, value));
        });
        made.await.into_iter().collect::<Result<Vec<()>, CallError>>()?;
        Ok(sharded)
    }

    /// This shard's value.
    ///
    /// # Panics
    /// Outside a shard of the runtime that the values were made on.
    #[track_caller]
    pub fn local(&self) -> Rc<T> {
        // Another runtime counts its values from 0 too.
        let fleet = self.name.handle.fleet();
        let kept = with_current(|shard| {
            Arc::ptr_eq(shard.fleet(), fleet).then(|| shard.kept(self.name.number)).flatten()
        });
        match kept.flatten() {
            Some(value) => value,
            None => outside("Sharded::local of this runtime"),
        }
    }

    /// Runs `f` with another shard's value, on that shard.
    ///
    /// # Errors
    /// As [`Handle::submit_to`].
    pub async fn on<F, R>(&self, shard: ShardId, f: F) -> Result<R, CallError>
    where
        F: FnOnce(&T) -> R + Send + 'static,
        R: Send + 'static,
    {
        let this = self.clone();
        self.name.handle.submit_to(shard, move || async move { f(&this.local()) }).await
    }

    /// Runs `f` with another shard's value, on that shard, and the future it makes.
    ///
    /// # Errors
    /// As [`Handle::submit_to`].
    pub async fn on_async<F, Fut>(&self, shard: ShardId, f: F) -> Result<Fut::Output, CallError>
    where
        F: FnOnce(Rc<T>) -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        let this = self.clone();
        self.name.handle.submit_to(shard, move || f(this.local())).await
    }

    /// Runs `map` with every shard's value, there, and folds what they return here.
    ///
    /// # Errors
    /// As [`Handle::map_reduce`].
    pub async fn map_reduce<F, R, A>(
        &self,
        map: F,
        init: A,
        reduce: impl FnMut(A, R) -> A,
    ) -> Result<A, CallError>
    where
        F: FnOnce(&T) -> R + Clone + Send + 'static,
        R: Send + 'static,
    {
        let this = self.clone();
        self.name
            .handle
            .map_reduce(move |_shard| async move { map(&this.local()) }, init, reduce)
            .await
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let number = self.number;
        for inbox in self.handle.fleet().inboxes() {
            let forget = move || drop(with_current(|shard| shard.forget(number)));
            inbox.notify(Notice::Run(Box::new(forget)));
        }
    }
}

impl<T> Clone for Sharded<T> {
    fn clone(&self) -> Self {
        Sharded { name: self.name.clone(), _value: PhantomData }
    }
}

impl<T> fmt::Debug for Sharded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharded").field("number", &self.name.number).finish_non_exhaustive()
    }
}
