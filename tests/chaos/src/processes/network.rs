//! The proxies between the processes of a run.
//!
//! What always holds: where there are proxies, shard servers are reached, and reach coordinators, through them alone. So one that is cut off is
//! reached by nobody and reaches nobody: its own proxy breaks what others ask of it, and all of them break what it asks. Of its watchdogs nothing is
//! cut off but the way to it. One shard server is cut off at a time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use runtime::Runtime;
use tokio::sync::watch;

use super::RunFolder;
use crate::deployment::Pid;
use crate::proxy::{Apart, Link, Origin, Proxy};

/// Proxies, by the names of the servers that they stand before.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// Whether there are to be any.
    has_proxies: bool,
    proxies: BTreeMap<String, Proxy>,
    apart: watch::Sender<Apart>,
}

impl Network {
    pub(super) fn new(has_proxies: bool) -> Self {
        Self {
            has_proxies,
            ..Self::default()
        }
    }

    /// Where others are to reach a server: at a proxy, which listens at a free address, or at its own.
    pub(super) async fn reached(
        &mut self,
        runtime: &Runtime,
        (name, server): (&str, &str),
        free: String,
    ) -> anyhow::Result<String> {
        if !self.has_proxies {
            return Ok(server.to_owned());
        }
        let (listen, server) = (free.parse()?, server.parse()?);
        let proxy = Proxy::start(runtime, listen, server, &self.apart).await?;
        self.proxies.insert(name.to_owned(), proxy);
        Ok(free)
    }

    /// Changes what becomes of the connections to a shard server, and whether it has any to others.
    pub(super) fn set(&self, folder: &RunFolder, node: &str, link: Link) -> anyhow::Result<()> {
        let proxy = self.proxies.get(node);
        let proxy = proxy.with_context(|| format!("{node} has no proxy"))?;
        proxy.set(link);
        let apart: Apart = if link == Link::Cut {
            Some(Arc::new(Named {
                folder: folder.clone(),
                name: node.to_owned(),
            }))
        } else {
            None
        };
        self.apart.send_replace(apart);
        Ok(())
    }
}

/// Whichever process has a name at the time: a watchdog may have another one started meanwhile.
#[derive(Debug)]
struct Named {
    folder: RunFolder,
    name: String,
}

impl Origin for Named {
    fn began(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let pid = self.folder.pid(&self.name).ok().flatten();
        pid.is_some_and(|pid| has_begun(pid, from, to))
    }
}

/// Whether it was this process that connected one address of this machine with another, by the kernel's tables of sockets and of open files.
fn has_begun(pid: Pid, from: SocketAddr, to: SocketAddr) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let ports = (from.port(), to.port());
    let inode = sockets.lines().find_map(|line| inode_of(line, ports));
    inode.is_some_and(|inode| has_open(pid, &format!("socket:[{inode}]")))
}

/// The inode of the socket that a line of `/proc/net/tcp` (proc(5)) is about, if it connects these ports.
fn inode_of(line: &str, (from, to): (u16, u16)) -> Option<&str> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote) = (port(fields.next()?)?, port(fields.next()?)?);
    // State, queues, timer, retransmissions, user and timeout come first.
    let inode = fields.nth(6)?;
    (local == from && remote == to).then_some(inode)
}

/// The port of an address as it is in that table, all in hexadecimal digits.
fn port(address: &str) -> Option<u16> {
    let (_, port) = address.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

fn has_open(pid: Pid, file: &str) -> bool {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let mut open = open.into_iter().flatten().flatten();
    open.any(|entry| std::fs::read_link(entry.path()).is_ok_and(|at| at == Path::new(file)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_line_of_the_kernel_tells_what_a_socket_connects() {
        let line = "3: 0100007F:9C41 0100007F:4E20 01 00000000:00000000 02:000004F1 \
                    00000000 1000 0 71531 2 0000000000000000 20 4 30 10 -1";
        assert_eq!(inode_of(line, (40_001, 20_000)), Some("71531"));
        assert_eq!(inode_of(line, (20_000, 40_001)), None, "the other end");
        let header = "sl local_address rem_address st tx_queue rx_queue tr tm->when \
                      retrnsmt uid timeout inode";
        assert_eq!(inode_of(header, (0, 0)), None);
    }

    #[test]
    fn a_connection_is_that_of_the_process_that_began_it() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let client = TcpStream::connect(to).unwrap();
        let from = client.local_addr().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = |id: u32| Pid::new(i32::try_from(id).unwrap()).unwrap();
        let told = [std::process::id(), other.id()].map(|id| has_begun(pid(id), from, to));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(told, [true, false]);
        drop(client);
    }
}
