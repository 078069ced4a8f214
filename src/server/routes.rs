//! What requests get by listener, host and path, which can be replaced while the server runs.
//!
//! Each shard, in a pool each connection, keeps the table that it knows, and a request finds out whether there is another by one
//! look (`sync/live`). So a replacement holds on every shard from one store on, and no request sees a part of it.
//!
//! All shards read the same table, and nothing in it is written by a request: what goes into a response is copied, unless it
//! is large. A counted reference would be written by every core for every response.

use super::{Body, Builder, ConnectionInfo, Server};
use crate::config::{self, Config, RedirectTo, Respond, Route};
use crate::error::Error;
use crate::mode::Mode;
use crate::runtime::Handle;
use crate::services::{
    Answering, Content, Files, Head, Health, Ready, Redirect, host, is_other_method, plain,
    refuse_method,
};
use crate::sync::Arc;
use crate::sync::live::{Known, Live};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// What the routes of a configuration do. Clones share them: what is replaced in one holds in all.
///
/// Requests that are neither `GET` nor `HEAD` get 405, unless they are sent elsewhere, and those that no route is for 404. Of the routes that fit, those
/// of the request's host come before those of any host, a whole path before the beginning of one, a longer one before a
/// shorter.
#[derive(Clone)]
pub struct Routes(Arc<Live<Table>>);

/// The routes of each listener, by its number.
struct Table(Vec<Hosts>);

#[derive(Default)]
struct Hosts {
    named: HashMap<String, Paths>,
    any: Paths,
}

#[derive(Default)]
struct Paths {
    /// In their order: most servers have few, and comparing costs less than hashing.
    whole: Vec<(String, Arc<Action>)>,
    /// The longest first.
    beginnings: Vec<(String, Arc<Action>)>,
}

enum Action {
    Respond(Answer),
    Files(Files),
    Redirect(Redirect),
    Health,
    Ready,
}

struct Answer {
    status: StatusCode,
    /// Set if there is a body, and nobody has said of what type it is.
    content_type: Option<HeaderValue>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Routes {
    /// Takes the routes of a configuration; the listeners are numbered in its order.
    pub(crate) fn new(config: &Config) -> Routes {
        Routes(Arc::new(Live::new(Table::new(config))))
    }

    /// Takes the routes of another configuration instead, which must have the same listeners in the same order. Requests
    /// that come from now on get them, on every shard.
    pub fn replace(&self, config: &Config) {
        self.0.replace(Table::new(config));
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

impl Builder {
    /// Starts with the responses of a configuration, in either mode.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_routes(self, handle: &Handle, routes: &Routes) -> Result<Server, Error> {
        let live = routes.0.clone();
        match handle.mode() {
            Mode::ThreadPerCore => self.start_with(handle, move |_shard| {
                let known = Rc::new(Known::new(live));
                move |connection: &ConnectionInfo| RouteService {
                    known: known.clone(),
                    listener: connection.listener,
                }
            }),
            Mode::WorkStealing => {
                self.start_send_with(handle, move |connection: &ConnectionInfo| {
                    let known = Box::new(Known::new(live.clone()));
                    RouteService { known, listener: connection.listener }
                })
            }
        }
    }
}

impl Table {
    fn new(config: &Config) -> Table {
        let of = |number: usize| {
            let name: &String = &config.listeners[number].name;
            let mut hosts = Hosts::default();
            let for_all = config.routes.iter().filter(|route| route.listener.is_none());
            // After those for all: they take their place.
            let for_this =
                config.routes.iter().filter(|route| route.listener.as_ref() == Some(name));
            for_all.chain(for_this).for_each(|route| hosts.add(route));
            if config.routes.is_empty() {
                hosts.any.whole.push(("/".to_owned(), Arc::new(Action::hello())));
            }
            hosts
        };
        Table((0..config.listeners.len()).map(of).collect())
    }
}

impl Hosts {
    /// Takes the place of one for the same requests.
    fn add(&mut self, route: &Route) {
        let paths = match &route.host {
            Some(host) => self.named.entry(host.clone()).or_default(),
            None => &mut self.any,
        };
        let action = Arc::new(Action::new(&route.action));
        match route.path.strip_suffix('*') {
            None => match paths.place(&route.path) {
                Ok(place) => paths.whole[place].1 = action,
                Err(place) => paths.whole.insert(place, (route.path.clone(), action)),
            },
            Some(beginning) => {
                paths.beginnings.retain(|(other, _)| other != beginning);
                paths.beginnings.push((beginning.to_owned(), action));
                paths.beginnings.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
            }
        }
    }

    fn find(&self, head: Head<'_>) -> Option<(&Action, usize)> {
        let path = head.uri.path();
        let named = || self.named.get(&host(head)?)?.find(path);
        let of_host = if self.named.is_empty() { None } else { named() };
        of_host.or_else(|| self.any.find(path))
    }
}

impl Paths {
    /// Where a whole path stands, or would.
    fn place(&self, path: &str) -> Result<usize, usize> {
        self.whole.binary_search_by(|(other, _)| other.as_str().cmp(path))
    }

    /// What is done at a path, and where in it what a `*` stands for begins; in a whole path behind the slash.
    fn find(&self, path: &str) -> Option<(&Action, usize)> {
        if let Ok(place) = self.place(path) {
            return Some((&self.whole[place].1, 1));
        }
        let begins = |(beginning, _): &&(String, Arc<Action>)| path.starts_with(beginning.as_str());
        let (beginning, action) = self.beginnings.iter().find(begins)?;
        Some((action, beginning.len()))
    }
}

/// Bodies up to this size are copied into each response.
const COPIED_MAX: usize = 4096;

impl Action {
    fn new(action: &config::Action) -> Action {
        match action {
            config::Action::Respond(respond) => Action::Respond(Answer::new(respond)),
            config::Action::Files(files) => {
                // It was checked.
                let cache_control = files.cache_control.as_ref();
                let cache_control = cache_control.and_then(|text| text.parse::<HeaderValue>().ok());
                Action::Files(
                    Files::of(files.directory.clone())
                        .index(&files.index)
                        .precompressed(files.precompressed)
                        .symlinks(files.symlinks)
                        .dotfiles(files.dotfiles)
                        .cache_control(cache_control),
                )
            }
            config::Action::Redirect(RedirectTo { to, status }) => {
                Action::Redirect(Redirect::of(to.clone(), *status))
            }
            config::Action::Health => Action::Health,
            config::Action::Ready => Action::Ready,
        }
    }

    /// The answer of what has one at once, or what `respond` says to other methods than its own.
    #[cold]
    fn answer(&self, head: Head<'_>, rest: &str) -> Response<Content> {
        match self {
            Action::Respond(_) | Action::Files(_) => refuse_method(),
            Action::Redirect(redirect) => redirect.answer(head, rest),
            Action::Health => Health.answer(head.method),
            Action::Ready => Ready.answer(head.method),
        }
    }

    /// What a server answers that nobody has told what to answer.
    fn hello() -> Action {
        Action::Respond(Answer::new(&Respond {
            status: 200,
            headers: Vec::new(),
            body: Bytes::from_static(b"Hello, World!"),
            content_type: "text/plain; charset=utf-8",
        }))
    }
}

impl Answer {
    fn new(respond: &Respond) -> Answer {
        let mut headers = Vec::new();
        for (name, value) in &respond.headers {
            // The configuration was checked: neither fails.
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
            {
                headers.push((name, value));
            }
        }
        let status = StatusCode::from_u16(respond.status).unwrap_or_default();
        let body = respond.body.clone();
        let is_typed = body.is_empty() || headers.iter().any(|(name, _)| name == CONTENT_TYPE);
        let content_type = (!is_typed).then(|| HeaderValue::from_static(respond.content_type));
        Answer { status, content_type, headers, body }
    }

    fn response(&self) -> Response<Content> {
        let body = match self.body.len() {
            0..=COPIED_MAX => Bytes::copy_from_slice(&self.body),
            _ => self.body.clone(),
        };
        let mut response = Response::new(Content::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = &self.content_type {
            // Of static bytes, so nothing is counted.
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        for (name, value) in &self.headers {
            // They were made of such bytes: neither fails.
            let (name, value) =
                (HeaderName::from_bytes(name.as_ref()), HeaderValue::from_bytes(value.as_bytes()));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        response
    }
}

/// Answers the requests of one connection.
struct RouteService<K> {
    /// What one shard, or one connection of a pool, knows.
    known: K,
    listener: usize,
}

impl<K: Deref<Target = Known<Table>>> RouteService<K> {
    #[inline]
    fn answer(&self, head: Head<'_>) -> Answering {
        let table = self.known.get();
        let Some((action, from)) = table.0.get(self.listener).and_then(|hosts| hosts.find(head))
        else {
            return Answering::ready(head, plain(StatusCode::NOT_FOUND, "Nothing here.\n"));
        };
        let rest = || head.uri.path().get(from..).unwrap_or_default();
        match action {
            Action::Respond(answer) if !is_other_method(head.method) => {
                Answering::ready(head, answer.response())
            }
            Action::Files(files) => files.answer(head, rest()),
            other => Answering::ready(head, other.answer(head, rest())),
        }
    }
}

impl<K: Deref<Target = Known<Table>>> Service<Request<Body>> for RouteService<K> {
    type Response = Response<Content>;
    type Error = Infallible;
    type Future = Answering;

    #[inline]
    fn call(&self, request: Request<Body>) -> Self::Future {
        self.answer(Head::of(&request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HOST, LOCATION};
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    fn routes(text: &str) -> Routes {
        Routes::new(&Config::from_toml_str(text).expect("a configuration"))
    }

    fn service(routes: &Routes, listener: usize) -> RouteService<Box<Known<Table>>> {
        RouteService { known: Box::new(Known::new(routes.0.clone())), listener }
    }

    fn response(
        service: &RouteService<Box<Known<Table>>>,
        request: Request<()>,
    ) -> Response<Content> {
        let mut answer = std::pin::pin!(service.answer(Head::of(&request)));
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => response,
            _ => panic!("it is there at once"),
        }
    }

    fn ask(service: &RouteService<Box<Known<Table>>>, path: &str, host: &str) -> (u16, String) {
        let request = Request::builder().uri(path).header(HOST, host).body(()).expect("a request");
        let response = response(service, request);
        let status = response.status().as_u16();
        let mut body = Box::pin(http_body_util::BodyExt::collect(response.into_body()));
        match body.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(body)) => {
                (status, String::from_utf8(body.to_bytes().to_vec()).expect("text"))
            }
            _ => panic!("a full body is there at once"),
        }
    }

    const ROUTES: &str = r#"
        [[listener]]
        name = "a"
        address = "127.0.0.1:0"
        [[listener]]
        name = "b"
        address = "127.0.0.1:0"
        [[route]]
        path = "/*"
        respond = { body = "rest" }
        [[route]]
        path = "/x"
        respond = { body = "x" }
        [[route]]
        path = "/x/*"
        respond = { body = "below x" }
        [[route]]
        host = "Example.org"
        path = "/*"
        respond = { body = "example" }
        [[route]]
        listener = "b"
        path = "/x"
        respond = { body = "x of b", status = 404 }
    "#;

    #[test]
    fn the_host_comes_first_then_the_whole_path_then_the_longest_beginning() {
        let routes = routes(ROUTES);
        let (a, b) = (service(&routes, 0), service(&routes, 1));
        let body = |service, path, host| ask(service, path, host).1;
        assert_eq!(body(&a, "/x", "test"), "x");
        assert_eq!(body(&a, "/x/y?z=/x", "test"), "below x");
        assert_eq!(body(&a, "/xy", "test"), "rest");
        assert_eq!(body(&a, "/x", "EXAMPLE.org:80"), "example");
        assert_eq!(body(&a, "http://example.org:8080/x", "test"), "example");
        assert_eq!(body(&a, "/x", "[::1]:80"), "x");
        assert_eq!(ask(&b, "/x", "test"), (404, "x of b".to_owned()));
        assert_eq!(body(&b, "/y", "test"), "rest");
    }

    #[test]
    fn a_redirect_fills_its_target_for_every_method() {
        let routes = routes(
            "[[route]]\npath = \"/old/*\"\nredirect = { to = \"https://{host}/new/{rest}{query}\", status = 301 }\n\
             [[route]]\npath = \"/alive\"\nhealth = true\n",
        );
        let service = service(&routes, 0);
        let ask = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).header(HOST, "Test:80");
            response(&service, request.body(()).expect("a request"))
        };
        for method in ["GET", "POST"] {
            let response = ask(method, "/old/a/b?c=d");
            assert_eq!(response.status(), 301);
            assert_eq!(response.headers()[LOCATION], "https://test/new/a/b?c=d");
        }
        assert_eq!(ask("GET", "/alive").status(), 200);
        assert_eq!(ask("POST", "/alive").status(), 405);
    }

    #[test]
    fn what_is_replaced_holds_from_the_next_request_on() {
        let first = routes("");
        let service = service(&first, 0);
        assert_eq!(ask(&service, "/", "test"), (200, "Hello, World!".to_owned()));
        let second = "[[route]]\npath = \"/new\"\nrespond = { body = \"new\" }\n";
        first.replace(&Config::from_toml_str(second).expect("a configuration"));
        assert_eq!(ask(&service, "/", "test").0, 404);
        assert_eq!(ask(&service, "/new", "test").1, "new");
    }
}
