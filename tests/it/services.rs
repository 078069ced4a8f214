//! What routes do besides giving a fixed answer, as clients meet it: in both modes, by configuration and by the library.

mod bodies;
mod direct;
mod files;
mod routes;
mod traversal;

use corelane::server::Server;
use corelane::{Config, Runtime};
use std::net::SocketAddr;
use std::path::Path;

const MODES: [&str; 2] = ["thread-per-core", "work-stealing"];

/// A server inside this process, by a configuration.
struct Site {
    runtime: Runtime,
    address: SocketAddr,
}

impl Site {
    /// One shard or worker and one listener, with these routes. The configuration is a file in `directory`.
    #[track_caller]
    fn start(directory: &Path, mode: &str, routes: &str) -> Site {
        let text = format!(
            "[runtime]\nmode = \"{mode}\"\ncores = 1\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n{routes}"
        );
        let file = directory.join("server.toml");
        std::fs::write(&file, text).expect("written");
        let config = Config::from_path(file).expect("right");
        let runtime = config.runtime().start().expect("started");
        let builder = config.server(&runtime);
        let server: Server =
            builder.start_routes(runtime.handle(), &config.routes()).expect("a port");
        Site { address: server.local_addrs()[0], runtime }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}
