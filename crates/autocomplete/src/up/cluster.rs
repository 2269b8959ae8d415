//! The parts of the cluster, running.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ::cluster::Layout;
use anyhow::Context as _;
use rpc::Neighbours;
use runtime::{CancellationToken, Listener, Runtime, Task, Vital};
use telemetry::Metrics;
use vfs::RealDisk;

use super::UpArgs;
use super::place::{Place, node_name};
use super::supervisor::Supervisor;

/// Where a cluster is reached by people and clients on this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    /// The page.
    pub(super) http: SocketAddr,
}

/// A running cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    addresses: Addresses,
    coordinator: Task<Result<(), coordinator::Error>>,
    watchdog: Task<()>,
    supervisor: Arc<Supervisor>,
    /// The tasks that look after the others.
    vital: Vital,
    /// Stops the nodes; cancelled when the coordinator has ended.
    stop_nodes: CancellationToken,
    coordinator_has_ended: bool,
}

impl Cluster {
    /// Binds the public addresses and starts every part. They find each other as anywhere; the coordinator then reaches the shards
    /// without the network.
    pub(super) async fn start(
        runtime: &Runtime,
        arguments: &UpArgs,
        place: &Place,
        stop: &CancellationToken,
    ) -> Result<Self, anyhow::Error> {
        let metrics = Metrics::new(runtime)?;
        let grpc = bind(runtime, arguments.grpc_addr, "--grpc-addr").await?;
        let http = bind(runtime, arguments.http_addr, "--http-addr").await?;
        let (grpc_addr, http_addr) = (grpc.local_addr(), http.local_addr());
        let coordinator_address = reachable(grpc_addr).to_string();
        let config = coordinator::Config {
            grpc_addr,
            http_addr,
            data_dir: place.coordinator_dir(),
            cluster: coordinator::ClusterConfig {
                template: Layout::for_english(place.shards())?,
                replicas: place.replicas(),
                expect_nodes: place.servers(),
            },
            ..coordinator::Config::default()
        };
        let neighbours = Neighbours::default();
        let deps = coordinator::Deps {
            runtime: runtime.clone(),
            vfs: Arc::new(RealDisk::new()),
            metrics: metrics.clone(),
            grpc,
            http: Some(http),
            neighbours: neighbours.clone(),
        };
        let coordinator =
            runtime.spawn("coordinator", coordinator::run(config, deps, stop.clone()));

        let stop_nodes = CancellationToken::new();
        let configs = (1..=place.servers()).map(|number| shard_server::Config {
            grpc_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: place.node_dir(number),
            node_name: node_name(number),
            coordinators: vec![coordinator_address.clone()],
            ..shard_server::Config::default()
        });
        let vital = Vital::new(runtime, stop.clone());
        let supervisor = Supervisor::start(
            &vital,
            runtime,
            configs.collect(),
            metrics.clone(),
            &neighbours,
            &stop_nodes,
        );
        let config = watchdog::Config {
            coordinators: vec![coordinator_address],
            grpc_addr: None,
            http_addr: None,
            ..watchdog::Config::default()
        };
        let deps = watchdog::Deps {
            runtime: runtime.clone(),
            metrics,
            restarter: Arc::clone(&supervisor) as Arc<dyn watchdog::restart::Restarter>,
        };
        let watchdog = vital.spawn("watchdog", watchdog_run(config, deps, stop.clone()));
        Ok(Self {
            addresses: Addresses {
                grpc: reachable(grpc_addr),
                http: reachable(http_addr),
            },
            coordinator,
            watchdog,
            supervisor,
            vital,
            stop_nodes,
            coordinator_has_ended: false,
        })
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until the coordinator ends by itself, without which there is no cluster, or a task is missing that looks after the rest.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            ended = &mut self.coordinator => ended,
            failed = self.vital.failed() => return failed.into(),
        };
        self.coordinator_has_ended = true;
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("the coordinator ended"),
            Ok(Err(error)) => anyhow::Error::from(error).context("the coordinator"),
            Err(error) => error.into(),
        }
    }

    /// Waits until everything has ended, once the stop was asked for.
    pub(super) async fn stopped(&mut self) {
        if !self.coordinator_has_ended {
            match (&mut self.coordinator).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the coordinator did not end well"),
                Err(error) => tracing::error!(%error, "the coordinator did not end well"),
            }
            self.coordinator_has_ended = true;
        }
        self.stop_nodes.cancel();
        self.supervisor.stopped().await;
        if let Err(error) = (&mut self.watchdog).await {
            tracing::error!(%error, "the watchdog did not end well");
        }
    }
}

async fn watchdog_run(config: watchdog::Config, deps: watchdog::Deps, stop: CancellationToken) {
    if let Err(error) = watchdog::run(config, deps, stop.clone()).await {
        tracing::error!(%error, "the watchdog could not start; the cluster runs without it");
        stop.cancelled().await;
    }
}

async fn bind(
    runtime: &Runtime,
    address: SocketAddr,
    option: &str,
) -> Result<Listener, anyhow::Error> {
    runtime
        .bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (choose another with {option})"))
}

/// An address by which this machine reaches itself: one that listens everywhere is reached on the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_everywhere_is_reached_on_the_loopback() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:7"), "127.0.0.1:7");
        assert_eq!(reached("[::]:7"), "[::1]:7");
        assert_eq!(reached("10.0.0.5:7"), "10.0.0.5:7");
    }
}
