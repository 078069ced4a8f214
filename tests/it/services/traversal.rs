//! Nothing outside the directory is served, however it is asked for and whatever is moved meanwhile.

use super::files::{ROUTES, ask, tree};
use super::{MODES, Site};
use crate::serve::client::Client;
use hyper::Version;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Ways to say `../secret.txt`, from the directory itself and from below.
const ATTEMPTS: &[&str] = &[
    "/../secret.txt",
    "/sub/../../secret.txt",
    "/./../secret.txt",
    "/%2e%2e/secret.txt",
    "/%2E%2e/secret.txt",
    "/.%2e/secret.txt",
    "/%2e%2e%2fsecret.txt",
    "/..%2fsecret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/%252e%252e/secret.txt",
    "/%252e%252e%252fsecret.txt",
    "/..%252fsecret.txt",
    "/%c0%ae%c0%ae/secret.txt",
    "/%c0%ae%c0%ae%c0%afsecret.txt",
    "/%uff0e%uff0e/secret.txt",
    "/..;/secret.txt",
    "/.../secret.txt",
    "/....//secret.txt",
    "/..%00/secret.txt",
    "/..%0d%0a/secret.txt",
    "//../secret.txt",
    "//secret.txt",
    "/sub/..%2f..%2fsecret.txt",
    "/sub%2f..%2f..%2fsecret.txt",
    "/outside",
    "/outdir/secret.txt",
    "/sub/../outdir/secret.txt",
    "/outdir/site/../secret.txt",
    "/plain/../../secret.txt",
    "/all/../secret.txt",
    "/all/../../secret.txt",
    "/all/%2e%2e/secret.txt",
    "/plain/outside",
    "/plain/outdir/secret.txt",
];

#[test]
fn nothing_beside_the_directory_is_served() {
    let tree = tree();
    let root = tree.path().to_str().expect("text");
    let whole = [format!("/{root}/secret.txt"), format!("/%2f{root}/secret.txt")];
    for mode in MODES {
        let site = Site::start(tree.path(), mode, ROUTES);
        for path in ATTEMPTS.iter().copied().chain(whole.iter().map(String::as_str)) {
            let mut client = Client::connect(site.address);
            client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
            let answer = client.answer();
            assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
            assert!(!answer.body.windows(6).any(|part| part == b"secret"), "{path}");
        }
    }
}

#[test]
fn nothing_beside_the_directory_is_served_while_names_change() {
    let tree = tree();
    let site = tree.path().join("site");
    // `door/secret.txt` is a file inside at one moment, and behind a link to the outside at the next.
    fs::create_dir(site.join("real")).expect("made");
    fs::write(site.join("real/secret.txt"), "inside").expect("written");
    std::os::unix::fs::symlink("..", site.join("link")).expect("made");
    let door = site.join("door");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for name in ["real", "link"] {
                    fs::rename(site.join(name), &door).expect("renamed");
                    fs::rename(&door, site.join(name)).expect("renamed");
                }
            }
        });
        let asked = thread::scope(|inner| {
            let asking = inner.spawn(|| {
                let mut seen = [0_u32; 2];
                for mode in MODES {
                    let site = Site::start(tree.path(), mode, ROUTES);
                    corelane::block_on(async {
                        for _ in 0..500 {
                            let path = "/door/secret.txt";
                            let answer =
                                ask(site.address, Version::HTTP_11, "GET", path, &[]).await;
                            match answer.status {
                                200 => assert_eq!(answer.body, b"inside"),
                                status => assert_eq!(status, 404),
                            }
                            seen[usize::from(answer.status == 200)] += 1;
                        }
                    });
                }
                seen
            });
            asking.join()
        });
        over.store(true, Ordering::Relaxed);
        let seen = asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        eprintln!(
            "names that changed: {} times nothing, {} times the file inside",
            seen[0], seen[1]
        );
    });
}
