//! Services of tower, and so axum's routers, as services of hyper.
//!
//! tower has a service say that it is ready before it is called, and wants it whole for that (`&mut self`); hyper calls it as it
//! is. So each request has a clone of its own, which is waited for, called once, and dropped.

use super::{Body, Builder, ConnectionInfo, Server};
use crate::error::Error;
use crate::id::ShardId;
use crate::runtime::Handle;
use hyper::{Request, Response};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

/// A tower service as one of hyper's, for [`Builder::start_with`] and whoever else takes those; [`Builder::start_tower`] does it
/// by itself.
///
/// Each request has a clone of the service, which is polled until it is ready, called once, and dropped. Whatever a
/// connection's clones are to have in common must be behind something that clones share, as tower's own layers do it.
///
/// The service need be neither `Send` nor `Sync`.
///
/// # Examples
/// ```
/// use corelane::{Runtime, server::{ConnectionInfo, Server, Tower}};
/// let runtime = Runtime::builder().start()?;
/// let server = Server::builder().listen("127.0.0.1:0".parse()?).start_with(runtime.handle(), |_shard| {
///     let hello = tower::service_fn(|_request| async {
///         Ok::<_, std::convert::Infallible>(hyper::Response::new("Hello".to_owned()))
///     });
///     move |_: &ConnectionInfo| Tower::new(hello.clone())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tower<S> {
    service: S,
    connection: Option<ConnectionInfo>,
}

impl<S> Tower<S> {
    /// Serves by this.
    pub fn new(service: S) -> Tower<S> {
        Tower { service, connection: None }
    }

    /// The same for one connection: every request carries a copy of this [`ConnectionInfo`] in its extensions.
    pub fn of_connection(service: S, connection: &ConnectionInfo) -> Tower<S> {
        Tower { service, connection: Some(connection.clone()) }
    }
}

impl<S, B> hyper::service::Service<Request<Body>> for Tower<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = TowerCall<S>;

    #[inline]
    fn call(&self, mut request: Request<Body>) -> TowerCall<S> {
        if let Some(connection) = &self.connection {
            request.extensions_mut().insert(connection.clone());
        }
        let (service, request) = (self.service.clone(), Some(request));
        TowerCall { stage: Stage::Waits { service, request } }
    }
}

pin_project_lite::pin_project! {
    /// One request in a tower service, from waiting until the service is ready.
    pub struct TowerCall<S>
    where
        S: Service<Request<Body>>,
    {
        #[pin]
        stage: Stage<S, S::Future>,
    }
}

pin_project_lite::pin_project! {
    #[project = StageProjection]
    enum Stage<S, F> {
        Waits { service: S, request: Option<Request<Body>> },
        Works { #[pin] future: F },
    }
}

impl<S> Future for TowerCall<S>
where
    S: Service<Request<Body>>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let future = match this.stage.as_mut().project() {
                StageProjection::Works { future } => return future.poll(context),
                StageProjection::Waits { service, request } => {
                    ready!(service.poll_ready(context))?;
                    service.call(request.take().expect("it is called once"))
                }
            };
            this.stage.set(Stage::Works { future });
        }
    }
}

impl<S> fmt::Debug for TowerCall<S>
where
    S: Service<Request<Body>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = matches!(self.stage, Stage::Waits { .. });
        f.debug_struct("TowerCall").field("waits_until_ready", &waits).finish_non_exhaustive()
    }
}

impl Builder {
    /// [`start`](Self::start) with a tower service, such as axum's `Router`: `factory` runs once on every shard and makes the
    /// service there. Each connection has a clone, and each request one of that: see [`Tower`].
    ///
    /// Every request carries the [`ConnectionInfo`] of its connection in its extensions; with axum, `Extension<ConnectionInfo>`
    /// extracts it.
    ///
    /// A router that is made in `factory`, and not cloned into it, is the shard's own: requests on different cores then count no
    /// references of the same memory.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Examples
    /// ```
    /// use axum::{Extension, Router, routing::get};
    /// use corelane::{Runtime, server::{ConnectionInfo, Server}};
    /// async fn hello(Extension(connection): Extension<ConnectionInfo>) -> String {
    ///     format!("Hello, {}!", connection.peer)
    /// }
    /// let runtime = Runtime::builder().start()?;
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0".parse()?)
    ///     .start_tower(runtime.handle(), |_shard| Router::new().route("/", get(hello)))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_tower<F, S, B>(self, handle: &Handle, factory: F) -> Result<Server, Error>
    where
        F: FnOnce(ShardId) -> S + Clone + Send + 'static,
        S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.start_with(handle, |shard| {
            let service = factory(shard);
            move |connection: &ConnectionInfo| Tower::of_connection(service.clone(), connection)
        })
    }

    /// [`start_tower`](Self::start_tower) with a service that may be sent between threads, so that it can be served in either
    /// mode, as [`start_send`](Self::start_send) says.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_tower_send<S, B>(self, handle: &Handle, service: S) -> Result<Server, Error>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.start_send_with(handle, move |connection: &ConnectionInfo| {
            Tower::of_connection(service.clone(), connection)
        })
    }
}
