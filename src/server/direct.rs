//! Whether the body of a response is a file that the transport can send by itself.
//!
//! Only a body that is handed to hyper as it was made counts: one that something wraps is not known by its type, and
//! gives its own bytes.

use crate::http::Outgoing;
use crate::sync::Arc;

/// Has a file's body give stand-ins from now on.
#[cfg(feature = "files")]
pub(super) fn send_directly<B: 'static>(body: &mut B, outgoing: &Arc<Outgoing>) {
    let body: &mut dyn std::any::Any = body;
    if let Some(content) = body.downcast_mut::<crate::services::Content>() {
        content.send_directly(outgoing);
    }
}

#[cfg(not(feature = "files"))]
pub(super) fn send_directly<B: 'static>(_: &mut B, _: &Arc<Outgoing>) {}
