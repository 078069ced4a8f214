//! Finding what a request is for: the file, or a compressed form of it.

use super::Inner;
use super::codings::Coding;
use crate::sys::directory::{Kind, Opened, Unfound, Wait};
use hyper::StatusCode;

/// What was found.
#[derive(Debug)]
pub(super) enum Look {
    /// A file to be sent, in this coding.
    File(Opened, Option<Coding>),
    /// A directory, asked for as if it were a file.
    Directory,
    /// Nothing, and what is said of it.
    Nothing(StatusCode),
}

/// Looks for a file of this name, and for a form of it in one of these codings. None: it is not known without the disk.
pub(super) fn look(files: &Inner, name: &[u8], codings: &[Coding], wait: Wait) -> Option<Look> {
    let find = |name: &[u8]| match files.directory.find(name, files.symlinks, wait) {
        Err(Unfound::WouldBlock) => None,
        found => Some(found),
    };
    let opened = match find(name)? {
        Ok(opened) => opened,
        Err(unfound) => return Some(Look::Nothing(status(unfound))),
    };
    match opened.kind {
        Kind::Regular => {}
        Kind::Directory => return Some(Look::Directory),
        Kind::Other => return Some(Look::Nothing(StatusCode::NOT_FOUND)),
    }
    for coding in codings {
        match find(&[name, coding.end().as_bytes()].concat())? {
            // One that is older is of what the file was before.
            Ok(coded) if coded.kind == Kind::Regular && coded.modified >= opened.modified => {
                return Some(Look::File(coded, Some(*coding)));
            }
            _ => {}
        }
    }
    Some(Look::File(opened, None))
}

/// Of what is outside it is not even said that it is there.
fn status(unfound: Unfound) -> StatusCode {
    match unfound {
        Unfound::NotThere => StatusCode::NOT_FOUND,
        Unfound::Forbidden => StatusCode::FORBIDDEN,
        Unfound::Shortage | Unfound::WouldBlock => StatusCode::SERVICE_UNAVAILABLE,
        Unfound::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
