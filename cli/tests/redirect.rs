//! What is secret is sent to the given server alone.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

#[path = "../../tests/src/http.rs"]
pub mod http;
mod server;

use std::process::Command;

use server::Server;

#[test]
fn headers_and_passwords_are_not_sent_where_a_redirection_leads() {
    let other = Server::start("200 OK", vec!["{}".to_owned()]);
    for status in ["301", "302", "303", "307", "308"] {
        // A status line with a header.
        let head = format!("{status} Moved\r\nLocation: {}/login", other.url());
        let first = Server::start(head.leak(), vec![String::new()]);
        let address = first.url().replace("http://", "http://user:password-1@");
        let output = Command::new(env!("CARGO_BIN_EXE_snug"))
            .args(["recommend", "--prometheus", &address, "--header", "X-Api-Key: key-2"])
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("redirects queries to") && message.contains(&other.url()), "{message}");
        assert!(!message.contains("password-1") && !message.contains("key-2"), "{message}");
        let request = first.requests().concat().to_ascii_lowercase();
        assert!(
            request.contains("x-api-key: key-2") && request.contains("authorization: basic"),
            "{request}"
        );
    }
    assert_eq!(other.requests(), [""; 0], "the other server gets no request");
}
