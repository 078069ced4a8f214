//! Files as OpenSSL writes them: what can be used, and what is said of the rest.

use super::certificates::Files;
use super::programs::run;
use corelane::tls::Tls;
use std::path::Path;

/// Runs openssl; false, after saying so, if there is none.
#[track_caller]
fn openssl(files: &Files, arguments: &str) -> bool {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let Some(output) = run("openssl", &arguments, files) else { return false };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

fn certify(files: &Files, key: &str) -> bool {
    openssl(
        files,
        &format!(
            "req -x509 -key {key} -out chain -subj /CN=a -addext subjectAltName=DNS:a.example"
        ),
    )
}

fn build(chain: &Path, key: &Path) -> Result<Tls, String> {
    Tls::builder().certificate(chain, key).build().map_err(|error| {
        assert!(error.is_config());
        error.to_string()
    })
}

#[test]
fn keys_of_every_usual_form_can_be_used() {
    let files = Files::new();
    for how in [
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key",
        "genrsa -traditional -out key 2048",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key",
        "ecparam -name prime256v1 -genkey -out key",
        "genpkey -algorithm ED25519 -out key",
    ] {
        if !openssl(&files, how) || !certify(&files, "key") {
            return;
        }
        let tls = build(&files.path("chain"), &files.path("key"));
        let names = tls.map(|tls| tls.certificates()[0].names().to_vec());
        assert_eq!(names.as_deref(), Ok(&["a.example".to_owned()][..]), "{how}");
    }
}

#[test]
fn what_cannot_be_used_is_told_what_it_is() {
    let files = Files::new();
    let good = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key";
    if !openssl(&files, good) || !certify(&files, "key") {
        return;
    }
    let (chain, key) = (files.path("chain"), files.path("key"));
    let said = |chain: &Path, key: &Path| build(chain, key).expect_err("it cannot be used");
    #[track_caller]
    fn contains(said: &str, expected: &[&str]) {
        for expected in expected {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    contains(
        &said(&key, &chain),
        &["the certificate chain ", "/key: ", "are the two files swapped?"],
    );
    contains(&said(&files.path("none"), &key), &["/none: No such file", "check the path"]);
    for (made, text) in [
        ("x509 -in chain -outform der -out other", "openssl x509 -inform der"),
        ("req -new -key key -subj /CN=a -out other", "issued for it"),
        ("x509 -in chain -trustout -out other", "OpenSSL's own form"),
        ("pkcs12 -export -in chain -inkey key -passout pass:a -out other", "openssl pkcs12"),
    ] {
        openssl(&files, made);
        contains(&said(&files.path("other"), &key), &["/other: ", text]);
    }
    for (made, text) in [
        ("pkey -in key -aes256 -passout pass:a -out other", "is encrypted"),
        ("pkey -in key -traditional -aes256 -passout pass:a -out other", "is encrypted"),
        ("pkey -in key -pubout -out other", "the private one is needed"),
        ("pkey -in key -outform der -out other", "openssl pkey -inform der"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out other", "does not belong"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out other", "cannot be used"),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out other", "cannot be used"),
    ] {
        openssl(&files, made);
        contains(&said(&chain, &files.path("other")), &["/other", text]);
    }
}

#[test]
fn who_issues_client_certificates_must_be_in_the_file() {
    let files = Files::new();
    if !openssl(&files, "genpkey -algorithm ED25519 -out key") || !certify(&files, "key") {
        return;
    }
    for (authorities, text) in [("key", "swapped"), ("none", "No such file")] {
        let tls = Tls::builder().certificate(files.path("chain"), files.path("key"));
        let tls = tls.client_certificates(files.path(authorities), false).build();
        let error = tls.expect_err("no authorities").to_string();
        assert!(error.contains("those who issue client certificates"), "{error}");
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn settings_without_sense_are_refused() {
    let error = Tls::builder().build().expect_err("no certificate").to_string();
    assert!(error.contains("needs a certificate"), "{error}");
    for name in [String::new(), "a".repeat(256)] {
        let tls = Tls::builder().certificate("a", "b").alpn([name]);
        let error = tls.build().expect_err("no name of a protocol").to_string();
        assert!(error.contains("1 to 255 bytes"), "{error}");
    }
}
