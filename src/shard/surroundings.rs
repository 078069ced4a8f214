//! What the threads of a runtime have around them besides their shard: the context of another runtime.
//!
//! Each thread enters it before its shard's first turn and leaves it after the shard is closed, so that tasks are polled and
//! dropped in it. Most runtimes have none, and their threads pay a comparison at their start.

use crate::sync::Arc;

/// Something that a thread can be in.
pub(crate) trait Around: Send + Sync {
    /// Runs `body` in it, once.
    fn run(&self, body: &mut dyn FnMut());

    /// No thread of the runtime is in it any more. Waits until it has ended.
    fn end(&self);
}

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Surroundings(Option<Arc<dyn Around>>);

impl Surroundings {
    #[cfg(feature = "tokio-context")]
    pub(crate) fn new(around: impl Around + 'static) -> Surroundings {
        Surroundings(Some(Arc::new(around)))
    }

    /// Runs `body` in them.
    pub(crate) fn within<R>(&self, body: impl FnOnce() -> R) -> R {
        let Some(around) = &self.0 else { return body() };
        let (mut body, mut output) = (Some(body), None);
        around.run(&mut || output = body.take().map(|body| body()));
        output.expect("it was run")
    }

    /// To be called when all threads have left.
    pub(crate) fn end(&self) {
        if let Some(around) = &self.0 {
            around.end();
        }
    }
}
