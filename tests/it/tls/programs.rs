//! Clients that are not rustls: OpenSSL and curl.

use super::certificates::{Authority, Files};
use super::site::Site;
use crate::harness::{FIRST, SECOND};
use crate::process::skipped;
use corelane::tls::Tls;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

struct Served {
    clients: Authority,
    authority: std::path::PathBuf,
    files: Files,
    site: Site,
}

fn served(require_clients: bool) -> Served {
    let (server, clients, files) =
        (Authority::new("of servers"), Authority::new("of clients"), Files::new());
    let (chain, key) = files.put_issued("a", &server.issue(&["a.example"]));
    let (chain2, key2) = files.put_issued("b", &server.issue(&["*.b.example"]));
    let authority = files.put("authority.pem", &server.pem());
    let tls = Tls::builder().certificate(chain, key).certificate(chain2, key2);
    let tls = match require_clients {
        true => tls.client_certificates(files.put("clients.pem", &clients.pem()), true),
        false => tls,
    };
    let site = Site::start(&tls.build().expect("good files"));
    Served { clients, authority, files, site }
}

/// Runs a program with nothing to read; none if it is not there.
pub(super) fn run(program: &str, arguments: &[&str], files: &Files) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(files.directory()).stdin(Stdio::null());
    // A proxy would not know these addresses.
    command.env("NO_PROXY", "*");
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skipped(&format!("there is no {program}"));
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

/// What `openssl s_client` says in a handshake with `a.example`.
fn s_client(served: &Served, address: SocketAddr, arguments: &[&str]) -> Option<(String, bool)> {
    let address = address.to_string();
    let authority = served.authority.to_str().expect("a path in UTF-8");
    let fixed = ["s_client", "-connect", &address, "-CAfile", authority, "-verify_return_error"];
    let arguments = [&fixed[..], &["-servername", "a.example"], arguments].concat();
    let output = run("openssl", &arguments, &served.files)?;
    let text = [output.stdout, output.stderr].concat();
    Some((String::from_utf8_lossy(&text).into_owned(), output.status.success()))
}

#[test]
fn openssl_agrees_on_version_protocol_and_certificate() {
    let served = served(false);
    for (version, named) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let arguments = [version, "-alpn", "h2,http/1.1", "-verify_hostname", "a.example"];
        let Some((text, good)) = s_client(&served, served.site.first(), &arguments) else { return };
        assert!(good, "{text}");
        for expected in [named, "ALPN protocol: h2", "Verification: OK", "Compression: NONE"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        served.site.outcome().expect("a handshake");
    }
}

#[test]
fn openssl_gets_neither_old_versions_nor_suites_without_secrecy_or_authentication() {
    let served = served(false);
    for arguments in [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0"],
    ] {
        let Some((text, good)) = s_client(&served, served.site.first(), arguments) else { return };
        assert!(!good, "{arguments:?}: {text}");
        let said = served.site.outcome().expect_err("no handshake");
        assert!(said.contains("peer is incompatible"), "{arguments:?}: {said}");
    }
}

#[test]
fn openssl_resumes_on_the_other_shard() {
    let served = served(false);
    for version in ["-tls1_2", "-tls1_3"] {
        // In TLS 1.3 tickets come after the handshake: with an answer they have come.
        let request =
            served.files.put("request", "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let ask = |address: SocketAddr, session: &[&str]| {
            let input = std::fs::File::open(&request).expect("it is there");
            let authority = served.authority.to_str().expect("a path in UTF-8");
            let address = address.to_string();
            let fixed = ["s_client", "-connect", &address, "-CAfile", authority, version];
            let mut command = Command::new("openssl");
            command.args(fixed).args(["-servername", "a.example", "-ign_eof"]).args(session);
            command.current_dir(served.files.directory()).stdin(input);
            command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let Ok(text) = ask(served.site.address(FIRST), &["-sess_out", "session"]) else {
            return skipped("there is no openssl");
        };
        assert!(text.contains("Hello"), "{text}");
        assert!(!served.site.outcome().expect("a handshake").is_resumed);
        let text = ask(served.site.address(SECOND), &["-sess_in", "session"]).expect("openssl");
        assert!(text.contains("Reused, TLSv1."), "{text}");
        let facts = served.site.outcome().expect("a handshake");
        assert_eq!((facts.shard, facts.is_resumed), (SECOND, true));
    }
}

#[test]
fn curl_speaks_both_versions_of_http() {
    let served = served(false);
    let address = served.site.first();
    for (name, flags, alpn) in [
        ("a.example", &["--http1.1"][..], "http/1.1"),
        ("a.example", &["--http2"], "h2"),
        ("x.b.example", &["--http2", "--tls-max", "1.2"], "h2"),
    ] {
        let resolve = format!("{name}:{}:{}", address.port(), address.ip());
        let url = format!("https://{name}:{}/", address.port());
        let fixed =
            ["-sS", "--max-time", "60", "--cacert", "authority.pem", "--resolve", &resolve, &url];
        let Some(output) = run("curl", &[&fixed[..], flags].concat(), &served.files) else {
            return;
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"Hello", "{name} {flags:?}: {errors}");
        let facts = served.site.outcome().expect("a handshake");
        assert_eq!(facts.alpn.as_deref(), Some(alpn.as_bytes()));
        assert_eq!(facts.server_name.as_deref(), Some(name));
    }
}

#[test]
fn curl_shows_a_certificate_of_its_own() {
    let served = served(true);
    served.files.put_issued("own", &served.clients.issue(&["client.example"]));
    let address = served.site.first();
    let resolve = format!("a.example:{}:{}", address.port(), address.ip());
    let url = format!("https://a.example:{}/", address.port());
    let fixed =
        ["-sS", "--max-time", "60", "--cacert", "authority.pem", "--resolve", &resolve, &url];
    let own = ["--cert", "own.pem", "--key", "own.key"];
    let Some(output) = run("curl", &[&fixed[..], &own].concat(), &served.files) else { return };
    assert_eq!(output.stdout, b"Hello", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(served.site.outcome().expect("a handshake").client.len(), 1);
    let output = run("curl", &fixed, &served.files).expect("curl");
    assert!(!output.status.success());
    served.site.outcome().expect_err("a certificate is missing");
}
