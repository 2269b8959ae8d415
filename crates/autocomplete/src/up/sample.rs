//! The sample that comes with the program: names of places, from GeoNames.
//!
//! Loaded like any file, exactly once for a data directory: the state of the load lies in it, so a start that was interrupted is
//! continued by the next, and terms that somebody removed do not come back.

use std::io::{self, Write as _};

use anyhow::Context as _;
use client::Client;
use runtime::Runtime;

use super::place::Place;
use crate::load;
use crate::output::counted;

/// See `data/README.md` for its origin and licence.
static PLACES: &[u8] = include_bytes!("../../../../data/places.tsv.zst");

/// Loads what is missing of the sample. A failure is reported and leaves the cluster running; the next start goes on.
pub(super) async fn load(runtime: &Runtime, client: &Client, place: &Place) {
    let loaded = load::embedded(runtime, client, PLACES, &place.sample_state())
        .await
        .context("loading the sample");
    match loaded {
        Ok(0) => {}
        Ok(terms) => {
            let text = counted(terms, "name");
            // With standard output closed there is nobody to tell.
            let _ = writeln!(
                io::stdout(),
                "\nLoaded the sample: {text} of places (GeoNames, CC BY 4.0)."
            );
        }
        Err(error) => tracing::error!(error = format!("{error:#}"), "the sample is not complete"),
    }
}
