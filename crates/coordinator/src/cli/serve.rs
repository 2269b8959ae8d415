//! `coordinator serve`

use std::net::SocketAddr;
use std::sync::Arc;

use runtime::{CancellationToken, Listener, Runtime};
use telemetry::Metrics;
use telemetry::logging;

use super::{Done, EXIT_FAILED, EXIT_USAGE, Failure};
use crate::{Config, Deps, Error, Settings, run};

/// The options of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) async fn run(self, runtime: &Runtime) -> Done {
        let usage = |problem: String| Failure::new(EXIT_USAGE, problem);
        let config = self.settings.load();
        let config = config.map_err(|problems| usage(problems.to_string()))?;
        logging::init(&config.logging).map_err(|error| usage(error.to_string()))?;
        let runtime = &runtime
            .clone()
            .with_connection_threads()
            .map_err(|error| Failure::new(EXIT_FAILED, format!("cannot start threads: {error}")))?;
        let vfs = Arc::new(vfs::RealDisk::new());
        let stop = CancellationToken::new();
        stop_on_signal(runtime, stop.clone());
        let served = serve(config, runtime, vfs, stop).await;
        served.map_err(|error| Failure::new(EXIT_FAILED, error.to_string()))
    }
}

async fn serve(
    config: Config,
    runtime: &Runtime,
    vfs: Arc<vfs::RealDisk>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let metrics = Metrics::new(runtime)?;
    let deps = Deps {
        runtime: runtime.clone(),
        vfs,
        metrics,
        grpc: bind(runtime, config.grpc_addr).await?,
        http: Some(bind(runtime, config.http_addr).await?),
        neighbours: rpc::Neighbours::default(),
    };
    tracing::info!(grpc = %config.grpc_addr, http = %config.http_addr, "listening");
    run(config, deps, stop).await
}

async fn bind(runtime: &Runtime, address: SocketAddr) -> Result<Listener, Error> {
    runtime.bind(address).await.map_err(|source| Error::Bind {
        address: address.to_string(),
        source,
    })
}

/// Stops on SIGTERM and on Ctrl-C.
fn stop_on_signal(runtime: &Runtime, stop: CancellationToken) {
    runtime.spawn("signals", async move {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be waited for");
                let _ = tokio::signal::ctrl_c().await;
            }
        }
        tracing::info!("stopping");
        stop.cancel();
    });
}
