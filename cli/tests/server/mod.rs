//! A small HTTP server that records requests.

use std::sync::{Arc, Mutex};

use crate::http;

/// Serves pages one after the other, repeats the last one, and records requests.
pub(crate) struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(status: &'static str, pages: Vec<String>) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        let status = format!("{status}\r\nConnection: close");
        let address = http::listen(move |mut stream, head| {
            let at = {
                let mut kept = kept.lock().unwrap();
                kept.push(head);
                kept.len().min(pages.len()) - 1
            };
            http::answer(&mut stream, &status, "text/plain; version=0.0.4", &pages[at]);
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        self.address.clone()
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}
