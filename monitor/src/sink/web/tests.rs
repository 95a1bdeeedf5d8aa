use std::{fs, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;

/// bcrypt of `secret` at the least cost.
fn hash() -> String {
    bcrypt::hash("secret", 4).expect("a cost that is allowed")
}

fn basic(name: &str, password: &str) -> Vec<u8> {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))).into_bytes()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.yml");
    fs::write(&path, text).expect("written");
    let error = Web::read(&path).expect_err(text).to_string();
    let here = folder.path().display().to_string();
    let error = error.replace(&here, "");
    assert_eq!(error, format!("--web-config: /web.yml{expected}"), "{text}");
}

#[test]
fn errors_name_file_line_and_key() {
    refused(
        "# fine\nbasic_auth_user: {}\n",
        ":2: unknown field `basic_auth_user`, expected one of tls_server_config, \
         http_server_config, basic_auth_users, bearer_token_files, bearer_token_sha256",
    );
    refused(
        "tls_server_config:\n  cert_file: a.pem\n",
        ":2: tls_server_config.cert_file: cannot read /a.pem: No such file or directory (os error 2)",
    );
    refused(
        "\ntls_server_config:\n  key_file: a.pem\n",
        ":3: tls_server_config.cert_file: is missing",
    );
    refused(
        "tls_server_config:\n  cert: x\n  cert_file: y\n",
        ":3: tls_server_config.cert_file: and cert are both given",
    );
    refused(
        "basic_auth_users:\n  good: GOOD\n  prometheus: secret\n"
            .replace("GOOD", &hash())
            .as_str(),
        ":3: basic_auth_users.prometheus: is no bcrypt hash; `htpasswd -nBC 10 USER` prints one after \
         the name",
    );
    refused(
        &format!(
            "basic_auth_users:\n  dear: {}\n",
            hash().replace("$04$", "$31$")
        ),
        ":2: basic_auth_users.dear: has cost 31, not one of 4 to 14: each password would be checked \
         for seconds",
    );
    refused(
        "bearer_token_sha256:\n  - abc\n",
        ":2: bearer_token_sha256: is no SHA-256 in 64 hexadecimal digits; `printf %s TOKEN | \
         sha256sum` prints one",
    );
    refused(
        "bearer_token_files: [nowhere]\n",
        ":1: bearer_token_files: cannot read /nowhere: No such file or directory (os error 2)",
    );
}

#[test]
fn what_is_no_yaml_is_refused_with_its_line() {
    for (text, line) in [
        ("basic_auth_users:\n  a: [\n", ":2: a: "),
        ("- a\n", ":1: "),
        ("basic_auth_users: 7\n", ":1: basic_auth_users: "),
        ("a: 1\n---\nb: 2\n", ":1: "),
        ("basic_auth_users:\n  a: x\n  a: y\n", ":3: "),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("web.yml");
        fs::write(&path, text).expect("written");
        let error = Web::read(&path).expect_err(text).to_string();
        let expected = format!("--web-config: {}{line}", path.display());
        assert!(error.starts_with(&expected), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let error = Web::read("/nowhere/web.yml".as_ref()).expect_err("no file");
    let begin = "--web-config: cannot read /nowhere/web.yml: ";
    assert!(error.to_string().starts_with(begin), "{error}");
}

#[test]
fn an_empty_file_asks_for_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.yml");
    for text in [
        "",
        "# nothing\n",
        "{}\n",
        "http_server_config:\n  http2: true\n",
    ] {
        fs::write(&path, text).expect("written");
        let web = Web::read(&path).expect(text);
        assert_eq!(web.words(), "http");
        assert!(web.tls().is_none() && web.access().is_open());
    }
}

#[test]
fn passwords_and_tokens_are_told_from_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.yml");
    let token = "0123456789abcdef-in-a-file";
    fs::write(folder.path().join("token"), format!("{token}\n")).expect("written");
    // Of `another-bearer-token`.
    let sum = "910676e910986b44744eff6914d06aa5fddf617617419c2ebfcf88d264dd8255";
    let text = format!(
        "basic_auth_users:\n  prometheus: {}\nbearer_token_files: [token]\nbearer_token_sha256: [{sum}]\n",
        hash()
    );
    fs::write(&path, text).expect("written");
    let web = Web::read(&path).expect("a configuration");
    assert_eq!(web.words(), "http, basic authentication, bearer token");
    assert_eq!(web.files, [path, folder.path().join("token")]);
    let access = web.access();
    let challenges: Vec<_> = access.challenges().collect();
    assert_eq!(challenges.len(), 2, "{challenges:?}");
    let judge = |given: Option<Vec<u8>>| runtime().block_on(access.judge(given.as_deref()));
    let allowed = [
        basic("prometheus", "secret"),
        format!("Bearer {token}").into_bytes(),
        format!("bearer  {token} ").into_bytes(),
    ];
    for given in allowed {
        assert_eq!(judge(Some(given.clone())), Verdict::Allowed, "{given:?}");
    }
    let denied = [
        basic("prometheus", "Secret"),
        basic("prometheus", ""),
        basic("prometheus", "secret\0"),
        basic("", "secret"),
        basic("nobody", "secret"),
        format!("Bearer {}", &token[1..]).into_bytes(),
        format!("Bearer {sum}").into_bytes(),
        format!("Basic {token}").into_bytes(),
        b"Bearer".to_vec(),
        b"Basic ====".to_vec(),
        b"Digest x".to_vec(),
        vec![0xff; 10],
        vec![b'a'; 10_000],
        Vec::new(),
    ];
    for given in denied {
        assert_eq!(judge(Some(given.clone())), Verdict::Denied, "{given:?}");
    }
    assert_eq!(judge(None), Verdict::Denied);
}

#[test]
fn a_token_may_be_given_by_its_sum() {
    let mut access = Access::default();
    // printf %s another-bearer-token | sha256sum
    let sum = "910676e910986b44744eff6914d06aa5fddf617617419c2ebfcf88d264dd8255";
    access.add_sum(&sum.to_uppercase()).expect("64 digits");
    let given = b"Bearer another-bearer-token";
    assert_eq!(
        runtime().block_on(access.judge(Some(given))),
        Verdict::Allowed
    );
}

#[test]
fn short_and_broken_tokens_are_refused() {
    let mut access = Access::default();
    for (token, words) in [
        ("", "0 characters"),
        ("short", "5 characters"),
        ("two words, which no header may have", "printable"),
        ("line\nline\nline\nline\n", "printable"),
    ] {
        let error = access.add_token(token).expect_err(token);
        assert!(error.contains(words), "{error}");
    }
    assert!(access.is_open(), "none was taken");
}

#[test]
fn a_password_that_was_right_is_not_computed_again() {
    let mut access = Access::default();
    let dear = bcrypt::hash("secret", 11).expect("a cost that is allowed");
    access.add_user("prometheus", &dear).expect("a hash");
    let given = basic("prometheus", "secret");
    let runtime = runtime();
    let start = Instant::now();
    assert_eq!(
        runtime.block_on(access.judge(Some(&given))),
        Verdict::Allowed
    );
    let first = start.elapsed();
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(
            runtime.block_on(access.judge(Some(&given))),
            Verdict::Allowed
        );
    }
    assert!(
        start.elapsed() < first,
        "{:?} and {first:?}",
        start.elapsed()
    );
}

#[test]
fn guesses_wait_for_each_other_and_hold_up_nobody_who_is_known() {
    let mut access = Access::default();
    access.add_user("prometheus", &hash()).expect("a hash");
    let right = basic("prometheus", "secret");
    runtime().block_on(async {
        assert_eq!(access.judge(Some(&right)).await, Verdict::Allowed);
        let start = Instant::now();
        let wrong: Vec<_> = (0..4)
            .map(|n| basic("prometheus", &n.to_string()))
            .collect();
        let guesses = async {
            for guess in &wrong {
                assert_eq!(access.judge(Some(guess)).await, Verdict::Denied);
            }
            start.elapsed()
        };
        let known = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            assert_eq!(access.judge(Some(&right)).await, Verdict::Allowed);
            start.elapsed()
        };
        let (guesses, known) = tokio::join!(guesses, known);
        // Three of the four waited for one before.
        assert!(guesses.as_millis() >= 600, "{guesses:?}");
        assert!(known < guesses, "{known:?}");
    });
}

#[test]
fn a_file_that_comes_later_than_the_configuration_that_names_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.yml");
    fs::write(&path, "{}\n").expect("written");
    let (current, mut reload) = reload::reload(path.clone()).expect("a configuration");
    fs::write(&path, "bearer_token_files: [token]\n").expect("written");
    for _ in 0..3 {
        reload.look();
        assert_eq!(current.counts().loads(), [("applied", 0), ("refused", 1)]);
        assert!(current.web().access().is_open());
    }
    fs::write(folder.path().join("token"), "0123456789abcdef-in-a-file").expect("written");
    reload.look();
    assert_eq!(current.counts().loads(), [("applied", 1), ("refused", 1)]);
    assert!(!current.web().access().is_open());
    // Nothing is read again after that.
    reload.look();
    assert_eq!(current.counts().loads(), [("applied", 1), ("refused", 1)]);
}
