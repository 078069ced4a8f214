//! From a configuration to a runtime, a server and its routes.

use super::{
    AccessLog, AccessLogBuilder, AccessLogFormat, AccessLogTarget, Builder, Listen, Routes, Server,
};
use crate::config::{Config, Core, Listener};
use crate::id::ShardId;
use crate::listen_addr::ListenAddr;
use crate::mode::Mode;
use crate::runtime::{self, Runtime, ShardInfo};

impl Config {
    /// Settings of a runtime as this says.
    pub fn runtime(&self) -> runtime::Builder {
        let mut builder = Runtime::builder()
            .mode(self.mode)
            .cores(self.cores.clone())
            .limits(self.shard.limits.clone())
            .stall_threshold(self.shard.stall_threshold);
        if let Some(pin) = self.pin {
            builder = builder.pin(pin);
        }
        self.core.iter().fold(builder, |builder, Core { cpu, shard, .. }| {
            let builder = builder.limits_on(*cpu, shard.limits.clone());
            builder.stall_threshold_on(*cpu, shard.stall_threshold)
        })
    }

    /// Settings of a server with the listeners of this, each on the shards that are to serve it. `runtime` is one that
    /// [`runtime`](Self::runtime) has made.
    pub fn server(&self, runtime: &Runtime) -> Builder {
        let shards = runtime.shards();
        let mut server = Server::builder().rebalance(self.rebalance).when_full(self.when_full);
        if let Some(most) = self.max_connections {
            server = server.max_connections(most);
        }
        for info in shards {
            let core = self.core.iter().find(|core| core.cpu == info.cpu);
            let own = core.map_or(&self.shard, |core| &core.shard).max_connections;
            server = own
                .into_iter()
                .fold(server, |server, most| server.max_connections_on(info.shard, most));
        }
        let listen = |listener| self.listen(listener, shards);
        self.listeners.iter().map(listen).fold(server, Builder::listen_with)
    }

    /// Settings of the access log that this asks for, if it does: to be started, and given to
    /// [`Builder::access_log`](Builder::access_log).
    pub fn access_log(&self) -> Option<AccessLogBuilder> {
        let (target, format) = self.access_log_parts()?;
        Some(AccessLog::builder(target).format(format))
    }

    pub(crate) fn access_log_parts(&self) -> Option<(AccessLogTarget, AccessLogFormat)> {
        let log = self.access_log.as_ref()?;
        let format = match log.format.as_str() {
            "common" => AccessLogFormat::Common,
            "json" => AccessLogFormat::Json,
            _ => AccessLogFormat::Combined,
        };
        Some((AccessLogTarget::from_path(&log.path), format))
    }

    /// What the requests get that this server is asked.
    pub fn routes(&self) -> Routes {
        Routes::new(self)
    }

    fn listen(&self, listener: &Listener, shards: &[ShardInfo]) -> Listen {
        let mut listen = match &listener.address {
            ListenAddr::Tcp(address) => Listen::new(*address)
                .share(listener.share)
                .nodelay(listener.nodelay)
                .keepalive(listener.keepalive),
            ListenAddr::Unix(path) => Listen::unix(path),
            ListenAddr::Inherited(name) => Listen::inherited(name),
        };
        listen = listen
            .backlog(listener.backlog)
            .balance(listener.balance)
            .limits(listener.limits.clone())
            .proxied(listener.proxied);
        if let Some(secure) = &listener.tls {
            listen = listen.tls(secure.tls.clone());
        }
        if let Some(mode) = listener.mode {
            listen = listen.mode(mode);
        }
        if let Some(only_v6) = listener.only_v6 {
            listen = listen.only_v6(only_v6);
        }
        if let Some(bytes) = listener.receive_buffer {
            listen = listen.receive_buffer(bytes);
        }
        if let Some(bytes) = listener.send_buffer {
            listen = listen.send_buffer(bytes);
        }
        match self.mode {
            Mode::ThreadPerCore => listen.shards(self.shards_of(listener, shards)),
            Mode::WorkStealing => listen,
        }
    }

    /// The shards of the cores that name it; if none does, those of the cores that name no listeners.
    fn shards_of(&self, listener: &Listener, shards: &[ShardInfo]) -> Vec<ShardId> {
        let names =
            |core: &Core| core.listeners.as_ref().map(|names| names.contains(&listener.name));
        let is_named = self.core.iter().any(|core| names(core) == Some(true));
        let serves = |info: &&ShardInfo| {
            let core = self.core.iter().find(|core| core.cpu == info.cpu);
            core.and_then(names).unwrap_or(!is_named)
        };
        shards.iter().filter(serves).map(|info| info.shard).collect()
    }
}
