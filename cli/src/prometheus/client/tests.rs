use std::{io::Write as _, net::TcpListener, thread};

use proptest::prelude::*;

use super::*;
use crate::prometheus::matcher::Selection;

/// A server that gives one response after the other, and closes the connection for an empty one.
fn server(responses: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for response in responses {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            stream.write_all(response.as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

fn response(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

const GOOD: &str =
    r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"7"]}]}}"#;

fn client(responses: Vec<String>, allow_partial: bool) -> Client {
    let base = server(responses);
    Client { pause: |_| {}, ..Client::new(&base, &[], &RootCertificates::default(), allow_partial) }
}

/// The first point of a query, or the message of its error.
fn ask(client: &Client) -> Result<f64, String> {
    let query = Query::new(&["up"], &Selection::default());
    let series = client.query(&query, At::Time(0)).map_err(|error| error.to_string())?;
    Ok(series.first().and_then(|it| it.points().first().map(|(_, value)| *value)).unwrap_or(f64::NAN))
}

#[test]
fn addresses_and_headers() {
    assert_eq!(parse_address("http://mimir:8080/prometheus/").unwrap(), "http://mimir:8080/prometheus");
    for bad in ["prometheus:9090", "http://p/?x=1"] {
        assert!(parse_address(bad).unwrap_err().contains("allowed is"), "{bad}");
    }
    let header = parse_header("X-Scope-OrgID: shop").unwrap();
    assert_eq!((&*header.name, &*header.value), ("X-Scope-OrgID", "shop"));
    for bad in ["X-Scope-OrgID", ": a", "a b: c", "a: b\nc: d"] {
        assert!(parse_header(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_busy_server_is_asked_again_after_a_pause() {
    let busy = || response(503, "Content-Type: text/plain\r\n", "upstream connect error");
    let limited = response(429, "Retry-After: 7\r\n", r#"{"error":"too many outstanding requests"}"#);
    let waits = client(vec![busy(), limited, response(200, "", GOOD)], false);
    assert_eq!(ask(&waits), Ok(7.0));
    assert_eq!(waits.paused.get(), Duration::from_secs(2 + 7));

    let never = client((0..MAX_TRIES).map(|_| busy()).collect(), false);
    let error = ask(&never).unwrap_err();
    assert!(
        error.contains("status 503 after") && error.contains("overloaded") && error.contains("-n"),
        "{error}"
    );
    assert!(!error.contains("--header"), "{error}");
}

#[test]
fn a_broken_connection_is_tried_again_once_the_server_has_responded() {
    let breaks = client(vec![response(200, "", GOOD), String::new(), response(200, "", GOOD)], false);
    assert_eq!((ask(&breaks), ask(&breaks)), (Ok(7.0), Ok(7.0)));
    let error = ask(&client(vec![String::new()], false)).unwrap_err();
    assert!(error.contains("cannot reach Prometheus"), "{error}");
}

#[test]
fn a_query_above_a_limit_is_too_large() {
    for (status, text) in [
        (422, "query processing would load too many samples into memory in query execution"),
        (422, "the query hit the max number of series limit"),
        (503, r#"{"errorType":"timeout","error":"query timed out in expression evaluation"}"#),
        (504, "gateway timeout"),
        (400, "exceeded maximum resolution of 11,000 points per timeseries"),
        (500, "expanding series: exceeded series limit"),
    ] {
        let query = Query::new(&["up"], &Selection::default());
        let error = client(vec![response(status, "", text)], false).query(&query, At::Time(0)).unwrap_err();
        assert!(matches!(error, PrometheusError::TooLarge { .. }), "{status} {text}: {error}");
        let error = error.to_string();
        assert!(error.contains("-n") && error.contains("--since") && !error.contains("--header"), "{error}");
    }
}

#[test]
fn each_refusal_names_its_remedy() {
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Log in</body></html>";
    for (response, wanted) in [
        (response(200, "Content-Type: text/html; charset=utf-8\r\n", page), "login page"),
        (response(200, "", " <html>"), "login page"),
        (response(403, "Content-Type: text/html\r\n", page), "\"Sign in\""),
        (response(302, "Location: /oauth2/sign_in?rd=x\r\n", ""), "/oauth2/sign_in"),
        (response(401, "", "no"), "--header"),
        (response(404, "", "404 page not found"), "without /api/v1"),
        (response(200, "", "{\"status\": "), "not that of a Prometheus query API"),
        (response(400, "", "{\"error\": \"parse error\"}"), "PromQL"),
    ] {
        let error = ask(&client(vec![response], false)).unwrap_err();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn a_partial_result_is_an_error_unless_it_is_allowed() {
    let partial = GOOD.replace("\"status\"", "\"isPartial\":true,\"status\"");
    let warned = GOOD.replace("\"status\"", "\"warnings\":[\"store 10901 is\\nunavailable\"],\"status\"");
    let remark = GOOD
        .replace("\"status\"", "\"warnings\":[\"PromQL warning: metric might not be a counter\"],\"status\"");
    for (body, why) in [(partial, "isPartial"), (warned, "store 10901 is unavailable")] {
        let error = ask(&client(vec![response(200, "", &body)], false)).unwrap_err();
        assert!(error.contains(why) && error.contains("--allow-partial"), "{error}");
        assert_eq!(ask(&client(vec![response(200, "", &body)], true)), Ok(7.0));
    }
    assert_eq!(ask(&client(vec![response(200, "", &remark)], false)), Ok(7.0));
}

#[test]
fn a_result_with_warnings_or_missing_parts_is_never_taken_for_complete() {
    let warnings = prop::collection::vec("(PromQL warning: )?[a-z ]{1,20}", 0..4);
    let cases = (any::<bool>(), warnings);
    let is_partial = |(partial, warnings): &(bool, Vec<String>)| {
        *partial || warnings.iter().any(|text| !text.starts_with("PromQL "))
    };
    CommandRule::Complete.prove(&cases, is_partial, |(partial, warnings)| {
        let response =
            QueryResponse { is_partial: *partial, warnings: warnings.clone(), ..QueryResponse::default() };
        let client = Client::new("http://127.0.0.1:1", &[], &RootCertificates::default(), false);
        match client.complete(response) {
            Err(PrometheusError::Partial { .. }) => Ok(()),
            _ => Err("the result is used as if it were complete".to_owned()),
        }
    });
}

proptest! {
    #[test]
    fn any_response_is_an_error_with_text(status in 100..600_u16, text in "\\PC{0,60}|<(html|title|TITLE>|</title>|\\PC){0,20}") {
        let mut response = Response::new(text);
        *response.status_mut() = ureq::http::StatusCode::from_u16(status).unwrap();
        match failure("http://p", &response) {
            Failure::Busy { .. } => prop_assert!([429, 502, 503].contains(&status)),
            Failure::Final(error) => prop_assert!(error.to_string().contains("http://p")),
        }
    }
}

#[test]
fn a_server_that_is_absent_or_hangs_is_an_error_that_names_it() {
    const SHORT: Duration = Duration::from_millis(300);
    let ask_at = |address| {
        let base = format!("http://{address}");
        let trust = RootCertificates::default();
        let client = Client { agent: http::client(SHORT, &trust), ..Client::new(&base, &[], &trust, false) };
        let error = ask(&client).unwrap_err();
        assert!(error.contains(&base), "{error}");
        error
    };
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let absent = listen().local_addr().unwrap();
    assert!(ask_at(absent).contains("cannot reach Prometheus"));
    for begin in ["", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"status\":"] {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(begin.as_bytes()).unwrap();
            thread::sleep(100 * SHORT);
        });
        let started = std::time::Instant::now();
        ask_at(address);
        assert!(started.elapsed() < 50 * SHORT, "{:?} for {begin:?}", started.elapsed());
    }
}

#[test]
fn half_and_garbled_responses_are_errors_that_name_the_server() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"status\":\"success\",\"data\":{\"res",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\0\0\0\0",
        "\0\u{1}garbage\r\n\r\n",
    ] {
        let error = ask(&client(vec![response.to_owned()], false)).unwrap_err();
        assert!(error.contains("http://127.0.0.1"), "{error}");
    }
}
