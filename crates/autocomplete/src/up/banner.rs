//! What a person sees who has started a cluster.

use std::io::{self, Write as _};

use super::cluster::Addresses;
use super::place::Place;
use crate::target::DEFAULT_GRPC_ADDRESS;

/// Says that the cluster is ready, where it is, and what to try. Goes to standard output: it is the answer to the command.
pub(super) fn ready(addresses: Addresses, place: &Place) -> io::Result<()> {
    let grpc = addresses.grpc.to_string();
    let addr = if grpc == DEFAULT_GRPC_ADDRESS {
        String::new()
    } else {
        format!(" --addr {grpc}")
    };
    let shards = place.shards();
    let replicas = match place.replicas() {
        1 => String::new(),
        count => format!(" of {count} replicas"),
    };
    let mut out = io::stdout().lock();
    write!(
        out,
        "\nautocomplete {version} is ready: {shards} shard{plural}{replicas} in {dir}\n\n\
         \x20 page   http://{http}/\n\
         \x20 gRPC   {grpc}\n\n\
         \x20 autocomplete top -i{addr}               type, and see it completed\n\
         \x20 autocomplete record{addr} \"new york\"    count a search\n\
         \x20 autocomplete top{addr} new              complete a prefix\n\
         \x20 autocomplete load{addr} FILE            load lines of term<TAB>count\n\n\
         Ctrl-C stops it. What was acknowledged is on disk.\n",
        version = env!("CARGO_PKG_VERSION"),
        plural = if shards == 1 { "" } else { "s" },
        dir = place.dir().display(),
        http = addresses.http,
    )?;
    out.flush()
}

/// Says that the stop was heard.
pub(super) fn stopping() {
    // With standard error closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "stopping (once more to stop in a hurry)");
}
