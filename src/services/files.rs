//! The files below a directory.
//!
//! - `name`: from a path to a name
//! - `look`: from a name to an open file, by `openat2`
//! - `codings`: which compressed form of it a client prefers
//! - `conditions`, `ranges`: whether the client wants it still, and which bytes
//! - `reply`: the head of the response
//! - `body`: its body
//!
//! A shard looks for a file in what the system has in memory of its directories. If that does not say, a thread that may wait for
//! the disk looks.

mod body;
mod codings;
mod conditions;
mod look;
mod name;
mod ranges;
mod reply;

pub(in crate::services) use body::FileBody;

use super::{Content, Head, is_other_method, leave_body_out, plain, refuse_method};
use crate::error::{Error, ErrorKind};
use crate::sys::directory::{Directory, Symlinks, Wait};
use crate::task::join::JoinHandle;
use hyper::header::{HeaderValue, LOCATION};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use look::{Look, look};
use name::Refusal;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The files below a directory, for `GET` and `HEAD`.
///
/// The path of a request is the name of a file, without its percent-encoding; of a directory, with a slash at its end, that of its
/// index. Responses have a strong `ETag` and `Last-Modified`, and conditions, ranges and several ranges are answered as RFC 9110
/// says (13, 14). Names that begin with a dot are not served, but for `.well-known` at the beginning. Only regular files are.
///
/// That nothing outside the directory is served is the kernel's promise, by `openat2`: also if something is renamed meanwhile. The
/// directory is opened once, and stays the same if another gets its name.
///
/// No shard waits for a disk: what the system does not have in memory is read by [`spawn_blocking`](crate::spawn_blocking). A
/// response holds 64 KiB of its file in memory. If the file becomes shorter while it is sent the connection is cut, or the stream of
/// HTTP/2 reset; a file that is replaced, by renaming another to its name, is sent to its end as it was.
///
/// The response must be polled on a shard.
///
/// ```
/// use corelane::{Runtime, server::Server, services::Files};
/// let directory = std::env::temp_dir();
/// let files = Files::new(&directory)?.index("start.html").precompressed(true);
/// let runtime = Runtime::builder().start()?;
/// let server = Server::builder().listen("127.0.0.1:0".parse()?).start(runtime.handle(), move |_shard| files)?;
/// assert!(Files::new(directory.join("there is none")).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Files(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    directory: Arc<Directory>,
    index: String,
    precompressed: bool,
    symlinks: Symlinks,
    dotfiles: bool,
    cache_control: Option<HeaderValue>,
}

impl Files {
    /// Those below this directory.
    ///
    /// # Errors
    /// It cannot be opened; or the system has no `openat2`: Linux has it from 5.6 on, and a sandbox must allow it.
    pub fn new(directory: impl AsRef<Path>) -> Result<Files, Error> {
        let directory = directory.as_ref();
        let opened = Directory::open(directory).map_err(|why| {
            Error::new(ErrorKind::Config, format!("the directory {} {why}", directory.display()))
        })?;
        Ok(Files::of(Arc::new(opened)))
    }

    pub(crate) fn of(directory: Arc<Directory>) -> Files {
        Files(Arc::new(Inner {
            directory,
            index: "index.html".to_owned(),
            precompressed: false,
            symlinks: Symlinks::default(),
            dotfiles: false,
            cache_control: None,
        }))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Files {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The file that stands for its directory. Default `index.html`; with an empty name there is none, and directories get 404.
    #[must_use]
    pub fn index(self, index: impl Into<String>) -> Files {
        self.change(|files| files.index = index.into())
    }

    /// Whether a client that takes it gets the file beside this one with `.br`, `.zst` or `.gz` behind its name, if that is not older.
    /// Default false.
    #[must_use]
    pub fn precompressed(self, precompressed: bool) -> Files {
        self.change(|files| files.precompressed = precompressed)
    }

    /// Which symbolic links are followed. Default: those that lead to something below the directory.
    #[must_use]
    pub fn symlinks(self, symlinks: Symlinks) -> Files {
        self.change(|files| files.symlinks = symlinks)
    }

    /// Whether names that begin with a dot are served. Default false.
    #[must_use]
    pub fn dotfiles(self, dotfiles: bool) -> Files {
        self.change(|files| files.dotfiles = dotfiles)
    }

    /// What is said of how long the file may be kept. Default: nothing, and browsers guess.
    #[must_use]
    pub fn cache_control(self, cache_control: impl Into<Option<HeaderValue>>) -> Files {
        self.change(|files| files.cache_control = cache_control.into())
    }

    /// `rest` is the part of the path that names the file.
    pub(crate) fn answer(&self, head: Head<'_>, rest: &str) -> Answering {
        if is_other_method(head.method) {
            return Answering::ready(head, refuse_method());
        }
        let mut name = match name::parse(rest, self.0.dotfiles) {
            Ok(name) => name,
            Err(Refusal::Bad) => return Answering::ready(head, BAD.response()),
            Err(Refusal::Hidden) => return Answering::ready(head, NOTHING.response()),
        };
        if name.is_empty() || name.ends_with(b"/") {
            if self.0.index.is_empty() {
                return Answering::ready(head, NOTHING.response());
            }
            name.extend_from_slice(self.0.index.as_bytes());
        }
        let codings =
            if self.0.precompressed { codings::preferred(head.headers) } else { Vec::new() };
        if let Some(found) = look(&self.0, &name, &codings, Wait::Never) {
            return Answering::ready(head, self.0.reply(found, head, &name));
        }
        let (files, wanted) = (self.0.clone(), name.clone());
        let looking = crate::spawn_blocking(move || look(&files, &wanted, &codings, Wait::Allowed));
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.headers_mut() = head.headers.clone();
        let files = self.0.clone();
        Answering(Stage::Looking(Box::new(Looking { looking, files, request, name })))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

impl Inner {
    fn reply(&self, found: Look, head: Head<'_>, name: &[u8]) -> Response<Content> {
        match found {
            Look::File(opened, coding) => reply::reply(self, opened, coding, head, name),
            Look::Directory => with_slash(head),
            Look::Nothing(StatusCode::NOT_FOUND) => NOTHING.response(),
            Look::Nothing(StatusCode::FORBIDDEN) => FORBIDDEN.response(),
            Look::Nothing(status) => Said(status, "Not now.\n").response(),
        }
    }
}

/// A directory, whose relative links would begin at the wrong place without a slash behind its name.
fn with_slash(head: Head<'_>) -> Response<Content> {
    let (path, query) = (head.uri.path(), head.uri.query());
    let location =
        format!("{path}/{}{}", if query.is_some() { "?" } else { "" }, query.unwrap_or(""));
    // Two slashes would begin a host.
    let location = Some(location).filter(|location| !location.starts_with("//"));
    let Some(location) = location.and_then(|text| HeaderValue::try_from(text).ok()) else {
        return NOTHING.response();
    };
    let mut response = Response::new(Content::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    response
}

struct Said(StatusCode, &'static str);

impl Said {
    fn response(&self) -> Response<Content> {
        plain(self.0, self.1)
    }
}

const BAD: Said = Said(StatusCode::BAD_REQUEST, "That is no name of a file.\n");
const NOTHING: Said = Said(StatusCode::NOT_FOUND, "Nothing here.\n");
const FORBIDDEN: Said = Said(StatusCode::FORBIDDEN, "Not for you.\n");

impl<B> Service<Request<B>> for Files {
    type Response = Response<Content>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        self.answer(Head::of(&request), path.strip_prefix('/').unwrap_or(path))
    }
}

/// An answer, which is mostly there at once.
#[derive(Debug)]
pub struct Answering(Stage);

// Nearly every answer is of the large kind.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Stage {
    Ready(Option<Response<Content>>),
    Looking(Box<Looking>),
}

struct Looking {
    looking: JoinHandle<Option<Look>>,
    files: Arc<Inner>,
    request: Request<()>,
    name: Vec<u8>,
}

impl fmt::Debug for Looking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looking").finish_non_exhaustive()
    }
}

impl Answering {
    /// The answer to a request with this head.
    #[inline(always)]
    pub(crate) fn ready(head: Head<'_>, mut response: Response<Content>) -> Answering {
        if *head.method == Method::HEAD {
            leave_body_out(&mut response);
        }
        Answering(Stage::Ready(Some(response)))
    }
}

impl Future for Answering {
    type Output = Result<Response<Content>, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Stage::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("it is polled no more once it was ready")))
            }
            Stage::Looking(looking) => looking.poll(context).map(Ok),
        }
    }
}

impl Looking {
    #[cold]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Response<Content>> {
        // A thread that has gone has found nothing.
        let found = ready!(Pin::new(&mut self.looking).poll(context)).ok().flatten();
        let found = found.unwrap_or(Look::Nothing(StatusCode::SERVICE_UNAVAILABLE));
        let mut response = self.files.reply(found, Head::of(&self.request), &self.name);
        if *self.request.method() == Method::HEAD {
            leave_body_out(&mut response);
        }
        Poll::Ready(response)
    }
}
