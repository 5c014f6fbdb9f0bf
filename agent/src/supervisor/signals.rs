//! Signals, from the first moment of the process on, and reading the configuration again.

use std::io;

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{AgentError, listeners::AccessFiles};
use crate::{
    config::{Config, LogDirectives},
    messages,
};

/// The signals that the agent handles. Those that arrive before anybody waits are kept.
#[derive(Debug)]
pub struct Signals {
    /// The runtime that receives them and that serves.
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Handles signals from now on. Before, SIGTERM ends the process at once, or is ignored if it is the first one of its pid
    /// namespace.
    ///
    /// # Errors
    /// When there are no file descriptors or threads.
    pub fn handle() -> Result<Self, AgentError> {
        let system = |what| move |source: io::Error| AgentError::System { what, source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(system("the runtime"))?;
        let [terminate, interrupt, hangup] = {
            let _inside = runtime.enter();
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal)
        };
        Ok(Self {
            terminate: terminate.map_err(system("the handler of SIGTERM"))?,
            interrupt: interrupt.map_err(system("the handler of SIGINT"))?,
            hangup: hangup.map_err(system("the handler of SIGHUP"))?,
            runtime,
        })
    }

    pub(super) fn split(self) -> (Runtime, Stop, Hangup) {
        let Self { runtime, terminate, interrupt, hangup } = self;
        (runtime, Stop { terminate, interrupt }, Hangup(hangup))
    }
}

/// SIGTERM and SIGINT.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Waits for one of them.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    }
}

/// SIGHUP.
pub(super) struct Hangup(Signal);

/// Reads the configuration again, from where it was read at start. The error has all mistakes.
pub type ReadConfig = Box<dyn Fn() -> Result<Config, String> + Send>;

/// What SIGHUP reads again.
pub struct Reload {
    /// Reads the configuration.
    pub read: ReadConfig,
    /// The directives of the log, which can be changed.
    pub log: LogDirectives,
}

impl Hangup {
    /// Reads certificates, tokens and the configuration again at each signal.
    pub(super) async fn reload(mut self, mut config: Config, mut files: AccessFiles, reload: Reload) {
        while self.0.recv().await.is_some() {
            tracing::info!("SIGHUP: reading certificates, tokens and the configuration");
            files.reload();
            match (reload.read)() {
                Ok(new) => reload.apply(&mut config, &new),
                Err(errors) => {
                    let errors = messages::excerpt(&errors);
                    tracing::error!(errors, "the configuration is wrong; the current one stays");
                }
            }
        }
    }
}

impl Reload {
    /// Applies what can be changed while the agent runs, and names the rest.
    fn apply(&self, config: &mut Config, new: &Config) {
        if config.log != new.log {
            match self.log.set(new) {
                Ok(()) => {
                    config.log.clone_from(&new.log);
                    tracing::info!(log = config.log, "the log has new directives");
                }
                Err(error) => tracing::error!(%error, "the log keeps its directives"),
            }
        }
        let differences = config.differences(new);
        if !differences.is_empty() {
            let options = differences.join(", ");
            tracing::warn!(
                options,
                "these options have changed; they take effect when the agent is restarted"
            );
        }
    }
}
