//! The listeners of the agent, and the files that say who may read at them.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::try_join_all};
use tokio::net::TcpListener;

use super::AgentError;
use crate::{
    access::{Authorizer, ReviewAges, Reviews, TokenFile},
    config::Config,
    exporters::{
        http::{self, AccessPolicy, ServerState},
        series::Scrapes,
    },
    kubernetes::TokenReviewer,
    messages,
    retry::Outage,
    samplers,
    tls::{ServerFiles, ServerTls},
};

/// How often certificates and tokens are read again. The kubelet replaces those of a Secret about once a minute.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// After a review of a token that failed, none is tried for this time, so that scrapes do not wait for an API server that hangs.
const REVIEW_RETRY: Duration = Duration::from_secs(5);

/// The files that are read again while the agent runs.
#[derive(Clone, Debug, Default)]
pub(super) struct AccessFiles {
    tls: Option<Arc<ServerTls>>,
    authorizer: Option<Arc<Authorizer>>,
    outage: Outage,
}

impl AccessFiles {
    /// Reads the files again. Whatever cannot be used is logged, and what was read before stays.
    pub(super) fn reload(&mut self) {
        let tls = self.tls.as_ref().map(|tls| tls.reload().map_err(|error| messages::chain(&error)));
        let tokens = self.authorizer.as_ref().and_then(|authorizer| authorizer.tokens.as_ref());
        let tokens = tokens.map(|tokens| tokens.reload().map_err(|error| messages::chain(&error)));
        let mut errors = Vec::new();
        for (what, result) in [("the certificate", tls), ("the tokens", tokens)] {
            match result {
                Some(Ok(true)) => tracing::info!("read {what} for clients of tls-listen"),
                Some(Ok(false)) | None => {}
                Some(Err(error)) => errors.push(error),
            }
        }
        if errors.is_empty() {
            self.outage.end();
        } else if let Some(error) = self.outage.new_text(errors.join("; ")) {
            let has_certificate = self.tls.as_ref().is_some_and(|tls| tls.current().is_some());
            let effect =
                if has_certificate { "the last usable ones stay" } else { "no client is served over TLS" };
            tracing::warn!(error, "files of tls-listen cannot be used: {effect}; will retry");
        }
    }

    /// Lets the metrics show the certificate and the reviews of tokens.
    pub(super) fn report_to(&self, scrapes: &Scrapes) {
        if let (Some(tls), Some(authorizer)) = (&self.tls, &self.authorizer) {
            scrapes.report_tls(Arc::clone(tls), Arc::clone(authorizer));
        }
    }

    /// Reads the files for ever.
    pub(super) async fn keep_reading(mut self) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            self.reload();
        }
    }
}

/// The sockets, each with its policy.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<(TcpListener, AccessPolicy)>,
    /// The files, which were read once.
    pub(super) files: AccessFiles,
}

impl Listeners {
    /// Opens the sockets. Reads certificates and tokens; those that are missing may come later.
    pub(super) async fn open(config: &Config) -> Result<Self, AgentError> {
        let mut sockets = Vec::new();
        if let Some(address) = config.listen {
            let (listener, bound) = bind("listen", address).await?;
            sockets.push((listener, AccessPolicy::plain(bound)));
        }
        let mut files = AccessFiles::default();
        if let (Some(address), Some(certificate), Some(key)) =
            (config.tls_listen, &config.tls_certificate, &config.tls_key)
        {
            let has_tokens = config.bearer_token_file.is_some() || config.token_review;
            let tls = Arc::new(ServerTls::new(ServerFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_authorities: config.tls_client_ca.clone(),
                requires_client_certificate: !has_tokens,
            }));
            let authorizer = Arc::new(authorizer(config));
            files = AccessFiles {
                tls: Some(Arc::clone(&tls)),
                authorizer: Some(Arc::clone(&authorizer)),
                outage: Outage::default(),
            };
            files.reload();
            sockets.push((bind("tls-listen", address).await?.0, AccessPolicy::Tls(tls, authorizer)));
        }
        if let Some(address) = config.probe_listen {
            sockets.push((bind("probe-listen", address).await?.0, AccessPolicy::Probes));
        }
        Ok(Self { sockets, files })
    }

    /// The address of each socket, and what is served there.
    pub(super) fn addresses(&self) -> Vec<(Option<SocketAddr>, &'static str)> {
        let what = |policy: &AccessPolicy| match policy {
            AccessPolicy::Loopback | AccessPolicy::Open => "/metrics",
            AccessPolicy::Tls(..) => "/metrics over TLS",
            AccessPolicy::Probes => "probes",
        };
        self.sockets.iter().map(|(listener, policy)| (listener.local_addr().ok(), what(policy))).collect()
    }

    /// Serves all sockets until `shutdown` completes.
    pub(super) async fn serve(
        self,
        state: Arc<ServerState>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), AgentError> {
        let shutdown = shutdown.shared();
        let served = self
            .sockets
            .into_iter()
            .map(|(listener, policy)| http::serve(listener, policy, Arc::clone(&state), shutdown.clone()));
        try_join_all(served).await?;
        // Without any socket nobody has waited for it.
        shutdown.await;
        Ok(())
    }
}

fn authorizer(config: &Config) -> Authorizer {
    let reviews = config.token_review.then(|| {
        let node = samplers::node_name(config);
        let reviewer = TokenReviewer::new(node, config.token_audiences.clone(), config.kubeconfig.clone());
        let ages = ReviewAges {
            allowed: config.token_allowed_age,
            denied: config.token_denied_age,
            outage: config.token_outage_age,
            retry: REVIEW_RETRY,
        };
        Reviews::new(reviewer, ages)
    });
    Authorizer::new(config.bearer_token_file.as_deref().map(TokenFile::new), reviews)
}

async fn bind(option: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), AgentError> {
    let failed = |source| AgentError::Listen { option, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
